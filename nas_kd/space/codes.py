"""Archs as rows of integers, and their costs from look-up tables: over 100,000 archs per second."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from nas_kd.errors import SettingError
from nas_kd.space.arch import Arch, Candidate, Cost
from nas_kd.space.chain import Chain
from nas_kd.space.count import count_layers
from nas_kd.space.members import check

if TYPE_CHECKING:
    import pandas as pd


def extras(space: Chain) -> dict[str, tuple[Any, ...]]:
    """Return the elastic choices of a space besides its stages, by name, in the order of a code."""
    named: dict[str, tuple[Any, ...]] = {"stem": space.stem.choices(), "head": space.head.choices()}
    named = {name: choices for name, choices in named.items() if len(choices) > 1}
    return named | ({"resolution": space.resolutions} if space.resolutions else {})


def encode(space: Chain, archs: Sequence[Arch]) -> np.ndarray:
    """Encode archs as (N, D) integers; see ``ElasticSpace.encode``."""
    for arch in archs:
        check(space, arch)
    index = [_index(stage.candidates()) for stage in space.stages]
    more = {name: {choice: i for i, choice in enumerate(choices)} for name, choices in extras(space).items()}
    codes = [
        [index[s][candidate] for s, candidate in enumerate(arch.stages)]
        + [known[getattr(arch, name)] for name, known in more.items()]
        for arch in archs
    ]
    return np.array(codes, dtype=np.int64).reshape(len(archs), len(space.stages) + len(more))


@lru_cache(maxsize=256)
def _index(choices: tuple[Candidate, ...]) -> dict[Candidate, int]:
    return {choice: number for number, choice in enumerate(choices)}


def decode(space: Chain, codes: np.ndarray) -> list[Arch]:
    """Invert ``encode``: (N, D) integers to archs.

    Raises:
        SettingError: the number of columns is wrong, or an index is outside its choices.
    """
    codes = checked(space, codes)
    tables = [stage.candidates() for stage in space.stages]
    more = extras(space)
    archs = []
    for row in codes.tolist():
        stages = tuple(table[i] for table, i in zip(tables, row[: len(tables)], strict=True))
        chosen = {name: choices[i] for (name, choices), i in zip(more.items(), row[len(tables) :], strict=True)}
        archs.append(Arch(space.hash, stages, **chosen))
    return archs


def checked(space: Chain, codes: np.ndarray) -> np.ndarray:
    """Return codes as (N, D) integers, each within its choices."""
    given = np.asarray(codes)
    codes = given.astype(np.int64)
    sizes = [len(stage.candidates()) for stage in space.stages] + [len(c) for c in extras(space).values()]
    if codes.ndim != 2 or codes.shape[1] != len(sizes):
        raise SettingError("codes", codes.shape, f"(N, {len(sizes)}) integers", "use space.encode(archs)")
    if (given != codes).any():
        raise SettingError("codes", given.dtype, "integers", "use space.encode(archs)")
    outside = (codes < 0) | (codes >= np.array(sizes))
    if outside.any():
        row, column = (int(i) for i in np.argwhere(outside)[0])
        expected = f"0 to {sizes[column] - 1}"
        raise SettingError(f"codes[{row}, {column}]", int(codes[row, column]), expected, "use space.encode(archs)")
    return codes


class CostTables:
    """Costs of every part of a space's archs for one input: one look-up a part."""

    def __init__(self, space: Chain, resolution: int, in_chans: int, num_classes: int) -> None:
        stems = space.stem.choices()
        heads = space.head.choices()
        sizes = space.stage_sizes(resolution)
        before = [space.stem_size(resolution), *sizes[:-1]]
        kinds = space.kinds
        self.stem = _costs(count_layers([space.stem.resolve(stem, in_chans)], resolution, kinds) for stem in stems)
        widths = space.stem.widths
        self.stem_width = np.array([widths.index(space.stem.width_of(stem)) for stem in stems])
        self.stages: list[tuple[np.ndarray, np.ndarray]] = []  # (in_widths, candidates, 2) and width indices
        for index, stage in enumerate(space.stages):
            rows = [
                _costs(count_layers(stage.resolve(c, width), before[index], kinds) for c in stage.candidates())
                for width in space.in_widths(index)
            ]
            out = np.array([stage.widths.index(candidate.width) for candidate in stage.candidates()])
            self.stages.append((np.stack(rows), out))
        last = space.stages[-1].widths
        self.head = np.stack(
            [
                _costs(count_layers([space.head.resolve(h, w, num_classes)], sizes[-1], kinds) for h in heads)
                for w in last
            ]
        )  # (widths, heads, 2)

    def total(self, stages: np.ndarray, stem: np.ndarray, head: np.ndarray) -> np.ndarray:
        """Add up the parts of (N, S) stage codes with (N,) stem and head codes to (N, 2) MACs and params."""
        total = self.stem[stem]
        in_width = self.stem_width[stem]
        for index, (table, width_of) in enumerate(self.stages):
            total = total + table[in_width, stages[:, index]]
            in_width = width_of[stages[:, index]]
        return total + self.head[in_width, head]


def _costs(costs: Iterable[Cost]) -> np.ndarray:
    return np.array(list(costs), dtype=np.int64)


def costs(
    space: Chain, codes: np.ndarray, tables_at: Callable[[int], CostTables], resolution: int | None = None
) -> pd.DataFrame:
    """Count many archs as ``ElasticSpace.costs`` does; ``tables_at`` maps an input height to look-up tables."""
    import pandas as pd

    codes = checked(space, codes)
    stages = codes[:, : len(space.stages)]
    rest = codes[:, len(space.stages) :]
    columns = dict(zip(extras(space), rest.T, strict=True))
    none = np.zeros(len(codes), dtype=np.int64)
    stem = columns.get("stem", none)
    head = columns.get("head", none)
    total = np.zeros((len(codes), 2), dtype=np.int64)
    sizes = columns.get("resolution") if resolution is None else None
    for choice in [None] if sizes is None else np.unique(sizes).tolist():
        size = space.resolution if choice is None else space.resolutions[choice]
        tables = tables_at(size if resolution is None else resolution)
        rows = slice(None) if sizes is None else sizes == choice
        total[rows] = tables.total(stages[rows], stem[rows], head[rows])
    return pd.DataFrame({"macs": total[:, 0], "params": total[:, 1]})
