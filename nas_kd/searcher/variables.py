"""An arch as one index per dimension: width, depth, kernel and the like, for engines that vary archs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import NamedTuple

from nas_kd.errors import SettingError
from nas_kd.space import Arch, Candidate, ElasticSpace, Stage
from nas_kd.space.arch import Layer, Setting

Point = tuple[int, ...]


class SearchVariable(NamedTuple):
    """One dimension of the archs of a space.

    Args:
        part: what it belongs to: ``resolution``, ``stem``, ``head`` or ``stage 1`` and on.
        kind: what is chosen: ``resolution``, ``width``, ``depth``, or the name of a layer's setting.
        values: what to choose from, in ascending order.
        layer: index of the layer, from 0; None for the whole part.
    """

    part: str
    kind: str
    values: tuple[Setting, ...]
    layer: int | None = None

    @property
    def label(self) -> str:
        """What it is called where people read it."""
        parts = [self.part.replace(" ", "")] if self.part != self.kind else []
        return ".".join([*parts, *([] if self.layer is None else [f"layer{self.layer + 1}"]), self.kind])


class _Fields(NamedTuple):
    """How the layers of a stage are chosen: settings of all layers together, and of each on its own."""

    shared: tuple[int, ...]
    free: tuple[int, ...]
    values: tuple[tuple[Setting, ...], ...]  # of each field


@dataclass(frozen=True)
class SearchVariables:
    """The dimensions of a space that have several values; an arch is a point in them.

    Layers beyond an arch's depth have variables without effect, so several points decode to the same arch;
    `canonical` returns the one that represents them.

    Args:
        space: each setting of each layer is one variable; a setting shared by all layers of a stage is one variable.
    """

    space: ElasticSpace

    @cached_property
    def variables(self) -> tuple[SearchVariable, ...]:
        """The dimensions in order: resolution, stem, stages from first to last, head."""
        found = [SearchVariable("resolution", "resolution", self.space.resolutions)]
        found += self._ends("stem")
        for index, stage in enumerate(self.space.stages):
            part = f"stage {index + 1}"
            fields = self._fields[index]
            if not stage.keeps_width:
                found.append(SearchVariable(part, "width", stage.widths))
            found.append(SearchVariable(part, "depth", stage.depths))
            found += [SearchVariable(part, stage.fields[f], fields.values[f]) for f in fields.shared]
            for layer in range(stage.depths[-1]):
                found += [SearchVariable(part, stage.fields[f], fields.values[f], layer) for f in fields.free]
        found += self._ends("head")
        varied = tuple(variable for variable in found if len(variable.values) > 1)
        # a space of one arch keeps a variable of one value: engines need a dimension
        return varied or (next(variable for variable in found if variable.kind == "depth"),)

    @property
    def sizes(self) -> list[int]:
        """Number of values of each variable."""
        return [len(variable.values) for variable in self.variables]

    @property
    def labels(self) -> list[str]:
        """Names of the variables, such as ``stage2.depth`` or ``stage2.layer1.kernel``; layers count from 1."""
        return [variable.label for variable in self.variables]

    def _ends(self, name: str) -> list[SearchVariable]:
        end = getattr(self.space, name)
        return [SearchVariable(name, kind, values) for kind, values in zip(end.fields, end.options(), strict=True)]

    @cached_property
    def _fields(self) -> tuple[_Fields, ...]:
        return tuple(_factor(index, stage) for index, stage in enumerate(self.space.stages))

    @cached_property
    def _at(self) -> dict[tuple[str, str, int | None], int]:
        return {(variable.part, variable.kind, variable.layer): at for at, variable in enumerate(self.variables)}

    def decode(self, point: Sequence[int]) -> Arch:
        """Return the arch of a point, which holds one index per variable."""
        space = self.space

        def value(part: str, kind: str, values: Sequence[Setting], layer: int | None = None) -> Setting:
            at = self._at.get((part, kind, layer))
            return values[0 if at is None else point[at]]

        def end(name: str) -> Layer:
            described = getattr(space, name)
            options = zip(described.fields, described.options(), strict=True)
            return tuple(value(name, kind, values) for kind, values in options if len(values) > 1)

        stem = end("stem")
        stages = []
        width = space.stem.width_of(stem)
        for index, stage in enumerate(space.stages):
            part = f"stage {index + 1}"
            fields = self._fields[index]
            if not stage.keeps_width:
                width = int(value(part, "width", stage.widths))
            layers = tuple(
                tuple(
                    value(part, name, fields.values[f], layer if f in fields.free else None)
                    for f, name in enumerate(stage.fields)
                )
                for layer in range(int(value(part, "depth", stage.depths)))
            )
            stages.append(Candidate(width, layers))
        size = int(value("resolution", "resolution", space.resolutions)) if space.resolutions else None
        return Arch(space.hash, tuple(stages), size, stem, end("head"))

    def encode(self, arch: Arch) -> Point:
        """Return the point of an arch, one index per variable; 0 for variables without effect."""
        named = {"stem": self.space.stem.named(arch.stem), "head": self.space.head.named(arch.head)}
        point = []
        for variable in self.variables:
            chosen: Setting | None
            if variable.part == "resolution":
                chosen = arch.resolution
            elif variable.part in named:
                chosen = named[variable.part][variable.kind]
            else:
                index = int(variable.part.split()[1]) - 1
                chosen = _setting(self.space.stages[index], arch.stages[index], variable)
            point.append(0 if chosen is None else variable.values.index(chosen))
        return tuple(point)

    def canonical(self, point: Sequence[int]) -> Point:
        """Return the point that represents all points of the same arch."""
        return self.encode(self.decode(point))


def _setting(stage: Stage, candidate: Candidate, variable: SearchVariable) -> Setting | None:
    """Return a candidate's value of a variable; None for a layer that it does not have."""
    if variable.layer is None and variable.kind in ("width", "depth"):
        return candidate.width if variable.kind == "width" else candidate.depth
    layer = variable.layer or 0
    return candidate.layers[layer][stage.fields.index(variable.kind)] if layer < candidate.depth else None


def _factor(index: int, stage: Stage) -> _Fields:
    """Split a stage's layer choices into settings of the whole stage and settings of each layer."""
    groups = stage.groups()
    values = tuple(tuple(sorted({layer[f] for group in groups for layer in group})) for f in range(len(stage.fields)))
    shared = tuple(f for f in range(len(values)) if all(len({layer[f] for layer in group}) == 1 for group in groups))
    free = tuple(f for f in range(len(values)) if f not in shared)
    every = sorted(
        sorted(_merged(together, shared, own, free) for own in product(*(values[f] for f in free)))
        for together in product(*(values[f] for f in shared))
    )
    if sorted(sorted(group) for group in groups) != every:
        expected = "every combination of the settings of a layer, those that all layers share in groups of their own"
        hint = "let a setting be free in each layer, or the same in all of them"
        raise SettingError(f"stages[{index}].groups", groups, expected, hint)
    return _Fields(shared, free, values)


def _merged(together: Layer, shared: Sequence[int], own: Layer, free: Sequence[int]) -> Layer:
    named = dict(zip((*shared, *free), (*together, *own), strict=True))
    return tuple(named[f] for f in range(len(named)))
