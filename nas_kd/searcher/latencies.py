"""The latency of every row of a search's tables: measured once a run, with the error of its sums."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch

from nas_kd.export.onnx_timed import timed_on
from nas_kd.rate.timed import latency_rows
from nas_kd.runs.files import atomic_write, read_frame
from nas_kd.runs.log import log_message
from nas_kd.searcher.budget import Budget
from nas_kd.space import Arch, ElasticSpace
from nas_kd.space.rows import stage_scores


def with_latency(tables: Sequence[pd.DataFrame], budget: Budget, resolution: int, seed: int = 0) -> list[pd.DataFrame]:
    """Add the column ``latency_ms`` to rating tables, so that solvers can bound it.

    Sums of rows are an estimate: the log and latency.csv give their error on twenty whole networks, and the
    search measures each network that it scores.

    Args:
        tables: one rating table per stage.
        budget: its run stores the rows in latency_rows.csv.
        resolution: input size of the tables.
        seed: seed of the networks that the layers are timed in.

    Returns:
        The tables with the column.
    """
    run = budget.run
    shape = {"in_chans": budget.cost["in_chans"], "num_classes": budget.cost["num_classes"]}
    facts = {
        "space": budget.space.hash,
        "device": timed_on(budget.runtime, budget.device),
        "threads": torch.get_num_threads(),
    }
    facts |= {"resolution": resolution, **shape}
    rows = pd.concat([table.index.to_frame(name="row").assign(stage=at) for at, table in enumerate(tables, 1)])
    rows = rows[["stage", "row"]].reset_index(drop=True).assign(**facts)
    if run is not None:
        kept = read_frame(run.path / "latency_rows.csv")
        if kept.reindex(columns=rows.columns).astype(str).equals(rows.astype(str)):
            ends = np.cumsum([len(table) for table in tables])[:-1]
            parts = np.split(kept["latency_ms"].to_numpy(), ends)
            return [table.assign(latency_ms=part) for table, part in zip(tables, parts, strict=True)]
    found = latency_rows(
        budget.space,
        tables,
        resolution=resolution,
        device=budget.device,
        runtime=budget.runtime,
        seed=seed,
        **shape,
    )
    if run is not None:
        for row in found.whole.to_dict("records"):
            run.latency({str(name): value for name, value in row.items()})
        timed = rows.assign(latency_ms=np.concatenate([times.to_numpy() for times in found.rows]))
        atomic_write(run.path / "latency_rows.csv", timed.to_csv(index=False))
    log_message(
        run,
        f"latency of rows: sums of {len(found.whole)} whole networks are off by {100 * found.error:.1f} % on the "
        f"median, {100 * found.worst:.1f} % at worst (batch 1, {facts['threads']} threads, {facts['device']})",
    )
    return [table.assign(latency_ms=times) for table, times in zip(tables, found.rows, strict=True)]


def by_ratings(archs: Sequence[Arch], space: ElasticSpace, tables: Sequence[pd.DataFrame]) -> list[Arch]:
    """Sort archs by the sum of their stages' scores; those with a choice that was not rated come last."""
    scores = stage_scores(space, tables)
    sums = np.array([sum(scores(arch)) for arch in archs])
    return [archs[at] for at in np.argsort(np.nan_to_num(sums, nan=np.inf), kind="stable")]
