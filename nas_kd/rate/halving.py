"""Rate a stage: all of its rows, or above a limit by successive halving inside cost bins."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import ceil, log2
from typing import NamedTuple

import numpy as np
import pandas as pd

from nas_kd.rate.errors import NSR, StageError
from nas_kd.rate.tree import evaluations, rate_tree, tree_size
from nas_kd.space import ElasticSpace
from nas_kd.space.paths import Entry, entries
from nas_kd.train.stages import Blockwise, StageFeatures

BINS = 16
MIN_IN_BIN = 8
# images of a first round
MIN_RATING = 16
MIN_CALIBRATION = 64


class Round(NamedTuple):
    """One round of a rating: how often the rows are halved before it, and the images it uses."""

    halvings: int
    rating: int
    calibration: int


def schedule(rows: int, max_rows: int, images: int, calibration: int) -> list[Round]:
    """Plan the rounds of a stage's rating.

    Args:
        rows: number of rows.
        max_rows: how many may be scored on all images.
        images: rating images in all.
        calibration: calibration images in all.

    Returns:
        A single round when all rows may be scored, else one per halving, on doubling images up to all of them.
    """
    halvings = max(0, ceil(log2(rows / max_rows)))
    plan = [Round(0, *_early(images, calibration, halvings))] if halvings else []
    pending = int(bool(halvings))
    for left in range(halvings - 1, 0, -1):
        rating, statistics = _early(images, calibration, left)
        if rating > plan[-1].rating:
            plan.append(Round(pending, rating, statistics))
            pending = 0
        pending += 1  # with too few images for another round, rows are halved twice before the next
    return [*plan, Round(pending, images, calibration)]


def _early(images: int, calibration: int, left: int) -> tuple[int, int]:
    # never all images before the last round: the number of images marks the rows of the last round
    rating = min(images - 1, max(MIN_RATING, images >> left))
    return rating, min(calibration, max(MIN_CALIBRATION, calibration >> left))


def better_half(table: pd.DataFrame) -> pd.Index:
    """Choose the rows that go into the next round.

    Args:
        table: the rows of this round, scored.

    Returns:
        Index labels: for each pair of input and output width the better half inside each of up to ``BINS``
        MACs bins, so that large rows do not drive out small ones, and its cheapest rows, so that what was
        feasible stays so.
    """
    kept: set[int] = set()
    for _, rows in table.groupby(["in_width", "out_width"]):
        rank = rows["macs"].rank(method="first").to_numpy() - 1
        # in smaller bins, rounding up would keep far more than half
        count = min(BINS, max(1, len(rows) // MIN_IN_BIN))
        bins = (rank * count // len(rows)).astype(np.int64)
        for _, inside in rows.groupby(bins):
            best = inside.sort_values(["score", "params"], kind="stable", na_position="last")
            kept.update(best.index[: ceil(len(inside) / 2)])
        for order in (["macs", "params"], ["params", "macs"]):
            kept.add(rows.sort_values(order, kind="stable").index[0])
    return pd.Index(sorted(kept))


def rate_stage(
    model: Blockwise,
    index: int,
    table: pd.DataFrame,
    calibration: StageFeatures,
    rating: StageFeatures,
    *,
    max_rows: int,
    error: StageError = NSR,
    announce: Callable[[int], None] | None = None,
    advance: Callable[[], None] | None = None,
) -> pd.DataFrame:
    """Score the rows of a stage.

    Rows that differ in the head alone get the same score: the head comes after what is compared.

    Args:
        model: the trained stages and adapters.
        index: which stage.
        table: what ``rows_of`` returned.
        calibration: features of the calibration images.
        rating: features of the rating images.
        max_rows: rate all rows up to this many; above, halve on growing numbers of images.
        error: compares a stage's output with the teacher's.
        announce: called before each round but the first with the layers that it will evaluate.
        advance: called after each layer.

    Returns:
        The table with ``score``, and in ``images`` the number of rating images behind it.
    """
    every = table
    table = without_heads(table).copy()
    alive = table.index
    candidates = model.space.stages[index].candidates()
    rounds = schedule(len(table), max_rows, len(rating.inputs), len(calibration.inputs))
    for number, (halvings, images, statistics) in enumerate(rounds):
        for _ in range(halvings):
            alive = better_half(table.loc[alive])
        groups = list(by_entry(model.space, index, table.loc[alive]))
        if number and announce is not None:
            announce(sum(tree_size(candidates, rows["candidate"].tolist()) for _, rows in groups))
        for entry, rows in groups:
            scores = rate_tree(
                model,
                index,
                entry,
                calibration.head(statistics),
                rating.head(images),
                error=error,
                only=rows["candidate"].tolist(),
                advance=advance,
            )
            table.loc[rows.index, "score"] = rows["candidate"].map(scores)
            table.loc[rows.index, "images"] = images
    heads = len(every) // len(table)
    return every.assign(**{name: np.repeat(table[name].to_numpy(), heads) for name in ("score", "images")})


def without_heads(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows with the first setting of the head: as many as there are scores."""
    return table[table["head"] == 0] if "head" in table else table


def by_entry(space: ElasticSpace, index: int, table: pd.DataFrame) -> Iterator[tuple[Entry, pd.DataFrame]]:
    """Split the rows of a stage by the setting of the stem, or by the input width.

    Args:
        index: which stage.
        table: some of its rows.

    Returns:
        Pairs of the entry and its rows; entries without rows are left out.
    """
    if index == 0 and "stem" not in table:
        yield entries(space, 0)[0], table
        return
    entry_keys = table["in_width" if index else "stem"]
    for key in sorted(set(entry_keys.tolist())):
        yield entries(space, 0)[key] if index == 0 else key, table[entry_keys == key]


def count_evaluations(space: ElasticSpace, index: int, table: pd.DataFrame) -> tuple[int, int]:
    """Count the layer evaluations behind a rating table, from the table alone.

    Args:
        index: which stage.
        table: its rating table.

    Returns:
        Layers evaluated in the tree of shared prefixes, and path by path.
    """
    table = without_heads(table)
    rounds = (
        [rows["candidate"].tolist() for _, rows in by_entry(space, index, table[table["images"] >= images])]
        for images in sorted(table["images"].unique())
    )
    return evaluations(space.stages[index].candidates(), rounds)
