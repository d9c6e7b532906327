"""Ratings of a model during and after training, and their summary."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pandas as pd

from nas_kd.config.checks import MIN_ARCHS
from nas_kd.data import Data
from nas_kd.rate.errors import StageError
from nas_kd.rate.halving import by_entry, count_evaluations, rate_stage, without_heads
from nas_kd.rate.tree import tree_size
from nas_kd.runs.log import log_message
from nas_kd.runs.progress import Progress
from nas_kd.runs.stage import Stage
from nas_kd.space.rows import full_rows, rows_of
from nas_kd.train.stages import Blockwise, StageFeatures


@dataclass(frozen=True)
class Rater:
    """Rates stages of a training model, on features that were gathered once.

    Args:
        model: the stages and adapters.
        data: gives resolution, channels and classes.
        calibration: the teacher's features of the calibration images, one pair per stage.
        rating: those of the rating images.
        max_rows: as for ``rate_blockwise``.
        error: compares a stage's output with the teacher's.
        only: which stages.
        stage: where tables go, or None.
        marks: constant columns that identify the tables' space and teacher.
    """

    model: Blockwise
    data: Data
    calibration: Sequence[StageFeatures]
    rating: Sequence[StageFeatures]
    max_rows: int
    error: StageError
    only: Sequence[int]
    stage: Stage | None
    marks: Mapping[str, str]

    @cached_property
    def rows(self) -> dict[int, pd.DataFrame]:
        """The candidates of each stage."""
        data = self.data
        shape = {"resolution": data.resolution, "in_chans": data.in_chans, "num_classes": data.num_classes}
        return {index: rows_of(self.model.space, index, **shape) for index in self.only}

    def rate(self, name: str, images: int) -> list[pd.DataFrame]:
        """Rate the stages; one whose table is already written is kept."""
        space = self.model.space
        tables = []
        layers = {
            index: sum(
                tree_size(space.stages[index].candidates(), part["candidate"].tolist())
                for _, part in by_entry(space, index, without_heads(rows))
            )
            for index, rows in self.rows.items()
        }
        run = self.stage.run if self.stage else None
        title = "blockwise: half-time rating" if name == "half" else "blockwise: rating"
        with Progress(title, sum(layers.values()), unit="layers", run=run) as progress:

            def announce(more: int) -> None:
                progress.total += more

            for index, rows in self.rows.items():
                file = f"{name}_{index + 1}.csv"
                if self.stage is not None and (self.stage.folder / file).exists():
                    tables.append(self.stage.read_frame(file))
                    progress.advance(layers[index])
                    continue
                begun = time.perf_counter()
                worked = time.process_time()
                table = rate_stage(
                    self.model,
                    index,
                    rows,
                    self.calibration[index],
                    self.rating[index].head(images),
                    max_rows=self.max_rows,
                    error=self.error,
                    announce=announce,
                    advance=progress.advance,
                )
                table = table.assign(**self.marks)
                if self.stage is not None:
                    self.stage.write_frame(file, table)
                    took = time.perf_counter() - begun, time.process_time() - worked
                    self.stage.seconds(f"{name}_{index + 1} rating", *took)
                tables.append(table)
        return tables

    def summarise(self, tables: Sequence[pd.DataFrame], half: Sequence[pd.DataFrame]) -> pd.DataFrame:
        """Log how each stage was rated and how far its scores agree with those at half time."""
        rows = []
        for place, (index, table) in enumerate(zip(self.only, tables, strict=True)):
            full = full_rows(table)
            made, path_by_path = count_evaluations(self.model.space, index, table)
            rated = "all" if len(without_heads(table)) <= self.max_rows else "halving"
            agree = float("nan")
            if half:
                both = full.index.intersection(full_rows(half[place]).index)
                agree = tau(half[place].loc[both, "score"], full.loc[both, "score"])
            row: dict[str, Any] = {
                "stage": index + 1,
                "rows": len(table),
                "rated": rated,
                "rows_full": len(full),
                "images": int(full["images"].iloc[0]),
                "calibration_images": len(self.calibration[index].inputs),
                "tau_half_full": agree,
                "tau_score_macs": tau(full["score"], full["macs"]),
                "layer_evaluations": made,
                "layer_evaluations_path_by_path": path_by_path,
                "score_min": full["score"].min(),
                "score_median": full["score"].median(),
                "score_max": full["score"].max(),
                "score_spread": full["score"].std(),
            }
            rows.append(row)
            log_message(
                self.stage.run if self.stage else None, f"stage {index + 1}: {self._described(row, bool(half))}"
            )
        return pd.DataFrame(rows)

    def _described(self, row: dict[str, Any], half: bool) -> str:
        how = "all rated" if row["rated"] == "all" else f"rated by halving, {row['rows_full']} to the end"
        agree = f"tau(half, end) {row['tau_half_full']:.2f}" if half else "not rated at half time"
        if row["rows_full"] < MIN_ARCHS:
            agree = "nothing to choose" if row["rows"] == 1 else f"fewer than {MIN_ARCHS} rows have no tau"
        work = f"{row['layer_evaluations']} layers run, path by path {row['layer_evaluations_path_by_path']}"
        return f"{row['rows']} rows {how}, {agree}; {work}"


def tau(a: pd.Series[Any], b: pd.Series[Any]) -> float:
    """Return Kendall's tau-b; NaN for fewer than eight values."""
    if len(a) < MIN_ARCHS:
        return float("nan")
    from scipy.stats import kendalltau  # late: it takes most of a second to import

    return float(kendalltau(a, b).statistic)
