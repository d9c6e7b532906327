"""Paths through the stages of a space: which entry, and which layers, a step of blockwise training uses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from nas_kd.runtime.seeds import seed_for
from nas_kd.space import Candidate, ElasticSpace, Stage
from nas_kd.space.arch import Layer

MOST_PATHS = 4

Entry = int | Layer  # how a stage is entered: a setting of the stem for the first one, else an input width


def entries(space: ElasticSpace, index: int) -> tuple[Entry, ...]:
    """Return the entries of a stage: settings of the stem for the first one, input widths for the others."""
    return space.stem.choices() if index == 0 else space.in_widths(index)


def entry_width(space: ElasticSpace, entry: Entry) -> int:
    """Return the number of channels that an entry gives to its stage."""
    return entry if isinstance(entry, int) else space.stem.width_of(entry)


class Path(NamedTuple):
    """One path through a stage: how it is entered, and the candidate."""

    entry: Entry
    candidate: Candidate


@lru_cache(maxsize=1024)
def _order(count: int, *parts: int | str) -> tuple[int, ...]:
    return tuple(np.random.default_rng(seed_for(*parts)).permutation(count).tolist())


def nth(count: int, n: int, *parts: int | str) -> int:
    """Return the n-th number of an infinite sequence of permutations of ``range(count)``."""
    return _order(count, *parts, n // count)[n % count]


def fair_paths(stage: Stage, entry_choices: Sequence[Entry], count: int, step: int, *seed: int | str) -> list[Path]:
    """Draw the paths of a step so that all choices of a dimension are used equally often.

    Each dimension runs through an infinite sequence of seeded permutations of its values: with as many paths as a
    layer has choices, each step uses each choice of the first layer once, and the counts of any two choices of a
    layer never differ by more than one. A layer's permutation advances only at depths that include it.

    Args:
        entry_choices: the stage's entries.
        step: index of the step in the whole training.
        seed: parts of the seed of the draw.

    Source: strict fairness: FairNAS (Chu et al. 2019), section 3.2.
    """
    groups = stage.groups()
    depths = stage.depths
    kinds = [(group, depth) for group in range(len(groups)) for depth in depths]
    paths = []
    for n in range(step * count, (step + 1) * count):
        cycle, position = divmod(n, len(kinds))
        order = _order(len(kinds), *seed, "kind", cycle)
        group, depth = kinds[order[position]]
        layers = []
        for layer in range(depth):
            here = [g == group and d > layer for g, d in kinds]
            before = cycle * sum(here) + sum(here[kind] for kind in order[:position])
            choices = groups[group]
            layers.append(choices[nth(len(choices), before, *seed, "layer", group, layer)])
        width = stage.widths[nth(len(stage.widths), n, *seed, "width")]
        entry = entry_choices[nth(len(entry_choices), n, *seed, "in_width")]
        paths.append(Path(entry, Candidate(width, tuple(layers))))
    return paths


def uniform_paths(stage: Stage, entry_choices: Sequence[Entry], count: int, step: int, *seed: int | str) -> list[Path]:
    """Draw every dimension of every path uniformly and independently; arguments as in ``fair_paths``."""
    rng = np.random.default_rng(seed_for(*seed, step))
    return [Path(entry_choices[int(rng.integers(len(entry_choices)))], stage.sample(rng)) for _ in range(count)]


def fitting(space: ElasticSpace, index: int, path: Path) -> Path:
    """Return the path with its candidate at the entry's width if the stage keeps its width, else the path itself."""
    if not space.stages[index].keeps_width:
        return path
    return path._replace(candidate=replace(path.candidate, width=entry_width(space, path.entry)))


SAMPLINGS: dict[str, Callable[..., list[Path]]] = {"fair": fair_paths, "uniform": uniform_paths}


def path_count(stage: Stage, paths: int | None) -> int:
    """Return the number of paths per step: the given one, else one per choice of a layer, at most ``MOST_PATHS``."""
    return paths or min(MOST_PATHS, max(len(group) for group in stage.groups()))
