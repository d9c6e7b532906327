"""The last word of a search: a short distilled training of the best few, size controls among them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from nas_kd.data import Data
from nas_kd.distill import Method
from nas_kd.run import Run
from nas_kd.runtime import Progress, Runtime, run_jobs, seed_for
from nas_kd.solve import best
from nas_kd.space import Arch, ElasticSpace
from nas_kd.teacher import Teacher, ViewCache
from nas_kd.verbs.budget import Budget
from nas_kd.verbs.refine import EVALUATED
from nas_kd.verbs.retrain import retrain

DRAWS = 20_000
GAP = 1e-4  # a size control within 0.01 % of the largest possible size is large enough


def controls(tables: Sequence[pd.DataFrame], budget: Budget, seed: int) -> dict[str, Arch]:
    """Return the archs that a search must beat: the largest within the budget, and a random one.

    Args:
        tables: rating tables; only their costs are read.
        budget: the budget. The largest archs keep its counted caps, and may miss a cap on latency.
        seed: seed of the random arch.

    Returns:
        ``largest_macs``, ``largest_params`` and ``random`` archs.
    """
    found, space = {}, budget.space
    for name in ("macs", "params"):
        if budget.caps:
            chain = best(tables, caps=dict(budget.caps), objective=name, maximise=True, gap=GAP)
            picks = [int(table.loc[chain[f"row_{s + 1}"], "candidate"]) for s, table in enumerate(tables)]
            found[f"largest_{name}"] = space.decode(np.array([picks]))[0]
        else:
            found[f"largest_{name}"] = space.largest()
    drawn = (space.sample(seed_for(seed, "random control", draw)) for draw in range(DRAWS))
    found["random"] = next((arch for arch in drawn if budget.fits(arch)), space.smallest())
    return found


def entrants(rows: pd.DataFrame, top: int) -> pd.DataFrame:
    """Choose who enters the short training.

    Args:
        rows: the trials, with the columns kind, key, kl, accuracy and score.
        top: archs besides the controls: the lowest KL, then alternately the best of the stage score and of
            the accuracy, because no proxy alone has earned the last word.

    Returns:
        One row an arch, with its ``role``: kl, score, accuracy or a control's.
    """
    scored = rows[rows["kind"].isin(EVALUATED)].drop_duplicates("key")
    orders = {
        "score": scored.sort_values("score", kind="stable"),
        "accuracy": scored.sort_values(["accuracy", "kl"], ascending=[False, True], kind="stable"),
        "kl": scored.sort_values("kl", kind="stable"),
    }
    chosen: list[pd.Series] = []
    wanted = ["kl"] * max(1, top - 2) + ["score", "accuracy"]
    for role in wanted[:top] if top >= 3 else ["kl", "score"][:top]:
        taken = {str(row["key"]) for row in chosen}
        rest = orders[role][~orders[role]["key"].isin(taken)]
        if len(rest):
            chosen.append(rest.iloc[0].copy())
            chosen[-1]["role"] = role
    taken = {str(row["key"]) for row in chosen}
    for _, row in rows[(rows["kind"] == "control") & rows["feasible"]].iterrows():
        if row["key"] not in taken:
            chosen.append(row)
            taken.add(str(row["key"]))
    wanted_columns = ["role", "key", "label", "macs", "params", "score", "kl", "accuracy", "agreement"]
    return pd.DataFrame(chosen)[wanted_columns].reset_index(drop=True)


def short_training(
    chosen: pd.DataFrame, archs: Mapping[str, Arch], teacher: Teacher | ViewCache, data: Data,
    space: ElasticSpace, *, epochs: int, method: Method, seed: int, run: Run | None, folder: str, workers: int,
    runtime: Runtime, training: dict[str, Any],
) -> pd.DataFrame:  # fmt: skip
    """Train each entrant shortly and alike, and measure it on the select split.

    Args:
        chosen: the entrants.
        archs: every arch by key.
        teacher: the teacher or its cache; a live teacher keeps the trainings in this process.
        data: the data.
        space: the space.
        epochs: epochs of each training.
        method: distillation method.
        seed: seed of the trainings.
        run: the run, or None.
        folder: the search's folder in the run.
        workers: processes.
        runtime: device and precision.
        training: further arguments of ``retrain``.

    Returns:
        ``chosen`` with select_accuracy and select_agreement, each 0 to 1.
    """
    jobs = [
        {
            "model": archs[key], "teacher": teacher, "data": data, "space": space, "run": run and run.path,
            "method": method, "seed": seed, "epochs": epochs, "test": False, "runtime": runtime,
            "folder": f"{folder}/short/{key}",
        } | training
        for key in chosen["key"]
    ]  # fmt: skip
    parallel = workers if isinstance(teacher, ViewCache) and runtime.device.type == "cpu" else 1
    with Progress("short trainings", len(jobs), unit="students", run=run) as progress:
        metrics = list(run_jobs(trained_metrics, jobs, workers=parallel, progress=progress))
    return chosen.assign(
        select_accuracy=[m["select_accuracy"] for m in metrics],
        select_agreement=[m.get("select_agreement", float("nan")) for m in metrics],
    )


def trained_metrics(**job: Any) -> dict[str, float]:
    """Retrain one network in a worker process and return its metrics; the weights stay in its folder."""
    metrics: dict[str, float] = retrain(**job).info["metrics"]  # type: ignore[assignment,index]
    return metrics
