"""A new feasible point when a sampler finds none."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

import numpy as np

from nas_kd.runtime.seeds import seed_for

SMALL = 20_000  # spaces up to here are walked through completely
DRAWS = 5_000  # uniform draws in a larger space before the neighbours of seen points are tried


def unseen(
    sizes: Sequence[int],
    new: Callable[[tuple[int, ...]], bool],
    known: Sequence[tuple[int, ...]],
    seed: int,
    number: int,
) -> tuple[int, ...] | None:
    """Draw a feasible point that was not seen before.

    Args:
        sizes: number of choices of each stage.
        new: whether a point is feasible and was not seen.
        known: feasible points that were seen, in an order that does not depend on the process.
        seed: the run's seed.
        number: what makes this draw differ from others of the run.

    Returns:
        The point, or None. None is certain for small spaces; in a large one it means that neither uniform
        draws nor any neighbour of a seen feasible point gave one.
    """
    rng = np.random.default_rng(seed_for(seed, "fill", number))
    if (total := prod(sizes)) <= SMALL:
        for code in rng.permutation(total):
            point = tuple(int(i) for i in np.unravel_index(code, sizes))
            if new(point):
                return point
        return None
    for draw in rng.integers(0, sizes, size=(DRAWS, len(sizes))):
        if new(point := tuple(draw.tolist())):
            return point
    for at in rng.permutation(len(known)):
        moves = [(s, i) for s, size in enumerate(sizes) for i in range(size) if i != known[at][s]]
        for move in rng.permutation(len(moves)):
            stage, index = moves[move]
            if new(point := (*known[at][:stage], index, *known[at][stage + 1 :])):
                return point
    return None
