"""The members of a space: their number, iteration, sampling and validation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np

from nas_kd.errors import SettingError
from nas_kd.space.arch import Arch, Candidate, Layer
from nas_kd.space.chain import Chain


def number(space: Chain) -> int:
    """Return the number of archs of a space in closed form."""
    count: dict[int, int] = {}  # number of partial archs by width
    for stem in space.stem.choices():
        width = space.stem.width_of(stem)
        count[width] = count.get(width, 0) + 1
    for stage in space.stages:
        each = stage.size // len(stage.widths)  # every width offers the same candidates
        if stage.keeps_width:
            count = {width: ways * each for width, ways in count.items()}
        else:
            count = dict.fromkeys(stage.widths, sum(count.values()) * each)
    return sum(count.values()) * len(space.head.choices()) * max(1, len(space.resolutions))


def everything(space: Chain) -> Iterator[Arch]:
    """Iterate over all archs in canonical order: stages, then resolution, stem and head."""
    ends = list(product(space.resolutions or (None,), space.stem.choices(), space.head.choices()))
    for stages in product(*(stage.candidates() for stage in space.stages)):
        for size, stem, head in ends:
            if fits(space, stem, stages):
                yield Arch(space.hash, stages, size, stem, head)


def draw(space: Chain, seed: int) -> Arch:
    """Draw every dimension uniformly and independently; the same seed gives the same arch."""
    rng = np.random.default_rng(seed)
    stem = _one(rng, space.stem.choices())
    width = space.stem.width_of(stem)
    stages = []
    for stage in space.stages:
        candidate = stage.sample(rng)
        if stage.keeps_width:
            candidate = replace(candidate, width=width)
        stages.append(candidate)
        width = candidate.width
    head = _one(rng, space.head.choices())
    size = _one(rng, space.resolutions) if space.resolutions else None
    return Arch(space.hash, tuple(stages), size, stem, head)


def _one(rng: np.random.Generator, choices: tuple[Any, ...]) -> Any:
    return choices[int(rng.integers(len(choices)))] if len(choices) > 1 else choices[0]


def fits(space: Chain, stem: Layer, stages: Sequence[Candidate]) -> bool:
    """Return whether the stages that keep their input's width do so."""
    widths = [space.stem.width_of(stem), *(candidate.width for candidate in stages)]
    chain = zip(space.stages, widths[:-1], widths[1:], strict=True)
    return all(before == after for stage, before, after in chain if stage.keeps_width)


def check(space: Chain, arch: Arch) -> None:
    """Check that an arch is in a space.

    Raises:
        SettingError: it belongs to another space, or one of its settings is not offered.
    """
    if arch.space != space.hash:
        hint = f"load the space with hash {arch.space}, or search {space.name} again"
        raise SettingError("arch.space", arch.space, f"{space.hash} (the space {space.name})", hint)
    if len(arch.stages) != len(space.stages):
        raise SettingError("arch.stages", len(arch.stages), f"{len(space.stages)} stages")
    for index, (stage, candidate) in enumerate(zip(space.stages, arch.stages, strict=True)):
        if not stage.contains(candidate):
            expected = f"widths {stage.widths}, depths {stage.depths}, layers {stage.fields} of {stage.groups()}"
            raise SettingError(f"arch.stages[{index}]", candidate, expected)
    for name, end in (("stem", space.stem), ("head", space.head)):
        if getattr(arch, name) not in end.choices():
            raise SettingError(f"arch.{name}", getattr(arch, name), f"{end.fields} of {end.choices()}")
    if arch.resolution not in (space.resolutions or (None,)):
        expected = f"one of {space.resolutions}" if space.resolutions else "None: this space does not choose it"
        raise SettingError("arch.resolution", arch.resolution, expected)
    if not fits(space, arch.stem, arch.stages):
        widths = [space.stem.width_of(arch.stem), *(candidate.width for candidate in arch.stages)]
        raise SettingError("arch.stages", widths, "one width for the stem and all stages that keep their input's width")
