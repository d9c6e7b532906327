"""Rating tables as a search takes them: of this space and this teacher, without missing scores, weighted."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from numbers import Real

import numpy as np
import pandas as pd

from nas_kd.data import Data
from nas_kd.errors import SettingError
from nas_kd.runs.log import log_message
from nas_kd.runs.run import Run
from nas_kd.space import ElasticSpace
from nas_kd.space.rows import full_rows, rows_of

MAX_NAMES = 5  # rows without a score that a message names


def usable_ratings(
    tables: Sequence[pd.DataFrame],
    space: ElasticSpace,
    data: Data,
    teacher: str,
    weights: Sequence[float] | None = None,
    run: Run | None = None,
) -> list[pd.DataFrame]:
    """Check rating tables, drop rows without a score, and weight the stages.

    Args:
        tables: one table per stage, of ``rate_blockwise`` or with the same columns.
        space: the space that is searched.
        teacher: fingerprint of the teacher of the search.
        weights: what each stage's scores are multiplied by; None is 1 for all.
        run: its log lists the rows that were dropped.

    Returns:
        The rows that were scored on all images, with finite scores.

    Raises:
        SettingError: tables of another space or teacher, a stage without a score, or weights that are not one
            number of at least 0 per stage.
    """
    if len(tables) != len(space.stages):
        expected = f"{len(space.stages)} tables, one per stage of {space.name}"
        raise SettingError("tables", len(tables), expected, "rate the stages of this space")
    chosen = _checked_weights(weights, len(tables))
    found = []
    for number, (table, weight) in enumerate(zip(tables, chosen, strict=True), 1):
        _check_table(table, number, space, data, teacher)
        full = full_rows(table)
        unscored = full[~np.isfinite(full["score"].astype(float))]
        if len(unscored) == len(full):
            field = f"tables[{number - 1}].score"
            expected = "a table with at least one finite score"
            raise SettingError(field, f"{len(full)} rows without", expected, "rate the stage again")
        if len(unscored):
            names = ", ".join(f"{row.in_width} > {row.label}" for row in unscored.head(MAX_NAMES).itertuples())
            more = f" and {len(unscored) - MAX_NAMES} more" if len(unscored) > MAX_NAMES else ""
            dropped = f"{len(unscored)} of {len(full)} rows have no score and are dropped"
            log_message(run, f"warning: stage {number}: {dropped}: {names}{more}")
        if len(full) == 1:
            log_message(run, f"stage {number} has one candidate, {full['label'].iloc[0]}: there is nothing to choose")
        rest = full.drop(index=unscored.index)
        found.append(rest if weight == 1.0 else rest.assign(score=weight * rest["score"]))
    return found


def _checked_weights(weights: Sequence[float] | None, count: int) -> list[float]:
    given = [1.0] * count if weights is None else list(weights) if isinstance(weights, Iterable) else []
    usable = len(given) == count and all(isinstance(w, Real) and np.isfinite(w) and w >= 0 for w in given)
    if not usable or not any(given):
        expected = f"{count} numbers of at least 0, one per stage and not all of them 0"
        hint = "omit it for equal weights, or use nas_kd.stage_weights"
        raise SettingError("search.weights", weights, expected, hint)
    return [float(weight) for weight in given]


def _check_table(table: pd.DataFrame, number: int, space: ElasticSpace, data: Data, teacher: str) -> None:
    """Raise for a table of another space or teacher."""
    where = f"tables[{number - 1}]"
    rate = "rate the stages with this space, teacher and data"
    for name, hash_ in (("space", space.hash), ("teacher", teacher)):
        others = set(table[name].astype(str)) if name in table else set()
        if different := [other for other in sorted(others) if other.split(" ")[-1] != hash_[:12]]:
            expected = f"ratings of the {name} of this search, {hash_[:12]}"
            raise SettingError(f"{where}.{name}", different[0], expected, rate)
    known = rows_of(space, number - 1, resolution=data.resolution, in_chans=data.in_chans, num_classes=data.num_classes)
    keys = [name for name in ("in_width", "candidate", "stem", "head") if name in known]
    missing = [name for name in [*keys, "score", "macs", "params", "out_width"] if name not in table]
    if missing:
        raise SettingError(f"{where}.{missing[0]}", "missing", f"a table with {', '.join(map(str, known))}", rate)
    joined = table.reset_index(drop=True).merge(known, on=keys, how="left", suffixes=("", "_known"))
    for name in ("macs", "params", "out_width"):
        other = joined[joined[name] != joined[f"{name}_known"]]
        if len(other):
            row = other.iloc[0]
            expected = f"what the rows of stage {number} of {space.name} have on these data: another space's table?"
            raise SettingError(f"{where}.{name}", f"{row[name]} in row {row.name}", expected, rate)
