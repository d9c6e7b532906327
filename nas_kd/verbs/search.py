"""The verb search: from rating tables, a supernet and a teacher to one architecture within a budget."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from nas_kd.data import Data
from nas_kd.distill import Classification, Method
from nas_kd.errors import SettingError
from nas_kd.files import atomic_json, read_json
from nas_kd.rate.halving import full_rows
from nas_kd.rate.subnet import SubnetScorer
from nas_kd.run import Run, Stage
from nas_kd.runtime import Runtime
from nas_kd.solve import best, exact_front
from nas_kd.space import Arch, ElasticSpace
from nas_kd.supernet import Supernet
from nas_kd.teacher import Teacher, ViewCache
from nas_kd.train import weights_hash
from nas_kd.train.network import LOGITS_ONLY
from nas_kd.verbs.budget import Budget, caps_of, cost_settings
from nas_kd.verbs.finalists import controls, entrants, short_training
from nas_kd.verbs.refine import EVALUATED, score_subnets
from nas_kd.verbs.retrain import checked_method, fingerprint, stored_answers, teacher_logits


@dataclass(frozen=True)
class SearchResult:
    """What a search found.

    Args:
        best: the architecture that the short training chose.
        space: its space.
        caps: the budget by column, ``macs`` and ``params``.
        trials: one row a proposal of the refinement and a control.
        top: one row an arch of the short training.
        exact: the exact front of the stage scores.
    """

    best: Arch
    space: ElasticSpace
    caps: Mapping[str, int]
    trials: pd.DataFrame
    top: pd.DataFrame
    exact: pd.DataFrame

    def frame(self) -> pd.DataFrame:
        """Return all trials."""
        return self.trials.copy()

    def front(self) -> pd.DataFrame:
        """Return the trials that no other trial beats in both KL and MACs, cheapest first."""
        scored = self.trials[self.trials["kl"].notna()].sort_values(["macs", "kl"], kind="stable")
        return scored[scored["kl"] < scored["kl"].cummin().shift(fill_value=math.inf)].reset_index(drop=True)


def search(
    net: Supernet, teacher: Teacher | ViewCache, data: Data, tables: Sequence[pd.DataFrame], *,
    max_macs: str | int | float | None = "60%", max_params: str | int | float | None = None,
    max_latency_ms: float | None = None, trials: int = 300, sampler: str = "tpe", top: int = 4,
    epochs: int = 3, calibration_images: int = 1024,
    rate_images: int | None = None, run: Run | str | None = None, folder: str = "search", seed: int = 0,
    method: Method = "kd_ls", training: Mapping[str, Any] | None = None, runtime: Runtime | None = None,
    workers: int = 1, inputs: Mapping[str, Any] | None = None,
) -> SearchResult:  # fmt: skip
    """Find the architecture within a budget that the teacher teaches best.

    The stage scores are searched exactly for every budget at once; Optuna then refines with scores of whole
    subnets (KL to the teacher on the rating split, after calibration); a short distilled training of the best
    few decides on the select split, the largest by MACs, the largest by params and a random arch among them.

    Args:
        net: the in-place distilled supernet.
        teacher: the teacher, or the cache of its views.
        data: the data; ``test`` is not read.
        tables: one rating table a stage, of ``rate_blockwise``.
        max_macs: budget: share of the largest (``"60%"``), number, or None.
        max_params: likewise.
        max_latency_ms: largest median latency of one image on this machine in milliseconds, or None.
        trials: distinct whole subnets to score.
        sampler: ``tpe``, ``nsga2`` or ``random``.
        top: archs of the short training besides the three controls.
        epochs: epochs of the short training.
        calibration_images: training images for a subnet's norms.
        rate_images: rating images a score, None for all.
        run: run folder.
        folder: stage folder in the run.
        seed: seed of proposals and of the short training.
        method: distillation method of the short training.
        training: further arguments of the short training, as for ``retrain``.
        runtime: device and precision.
        workers: processes for the short trainings.
        inputs: more facts that determine the result, for the run's record.

    Returns:
        The found arch, its space and all evidence as frames.

    Raises:
        SettingError: the budget is unreadable or infeasible, or the run was made with other settings.
    """
    if not isinstance(teacher, Teacher | ViewCache):
        legal = "one nas_kd Teacher, or the ViewCache of its answers"
        raise SettingError("teacher", type(teacher).__name__, legal, "several teachers can retrain, not search")
    space, runtime, run = net.space, runtime or Runtime(), Run.of(run)
    answers = stored_answers(teacher, data, run)
    features = bool(checked_method(method, Classification(), data.num_classes).needs - LOGITS_ONLY)
    caps = caps_of(space, data, max_macs, max_params)
    budget = Budget(space, cost_settings(data), caps, max_latency_ms, runtime.device, run)
    tables = [full_rows(table) for table in tables]
    if caps:
        best(tables, caps=caps)  # raises now when the caps are infeasible together
    stage = None
    if run is not None:
        settings = {
            "caps": caps, "trials": trials, "sampler": sampler, "top": top, "epochs": epochs,
            "calibration_images": calibration_images, "rate_images": rate_images, "method": repr(method),
            "training": dict(training or {}), "max_latency_ms": max_latency_ms,
        }  # fmt: skip
        facts: dict[str, Any] = {
            "space": space.hash, "data": data.fingerprint, "teacher": fingerprint(teacher),
            "supernet": weights_hash(net), "tables": tables_hash(tables), "seed": seed,
            "precision": runtime.precision,
        }  # fmt: skip
        facts |= {f"search.{name}": value for name, value in settings.items()} | dict(inputs or {})
        stage = run.stage(folder, facts)
        if stage.done:
            return load_search(stage, space)
    targets = teacher_logits(answers, "rate", data, runtime)
    assert targets is not None  # of the two that are allowed
    exact = exact_front(tables, budget="macs")
    if stage is not None:
        stage.write_frame("front.csv", exact)
    scorer = SubnetScorer(
        net, data, targets, task=Classification(), calibration_images=calibration_images,
        rate_images=rate_images, runtime=runtime,
    )  # fmt: skip
    extra = controls(tables, budget, seed)
    rows, archs = score_subnets(
        tables, exact, budget, scorer, extra, trials=trials, sampler=sampler, seed=seed, stage=stage
    )
    decided = short_training(
        entrants(rows, top), archs, teacher if features else answers, data, space, epochs=epochs, method=method,
        seed=seed, run=run, folder=folder, workers=workers, runtime=runtime, training=dict(training or {}),
    )  # fmt: skip
    order = decided.sort_values(["select_accuracy", "select_agreement", "kl"], ascending=[False, False, True])
    winner = archs[str(order["key"].iloc[0])]
    if stage is not None:
        stage.write_frame("top.csv", decided)
        cost = space.cost(winner, **budget.cost)
        found = {
            "key": winner.key, "label": winner.label, "arch": winner.to_dict(), "budget": caps,
            "max_latency_ms": max_latency_ms,
        }  # fmt: skip
        atomic_json(stage.folder / "best.json", found | {"macs": cost.macs, "params": cost.params})
        stage.finish({"best": winner.key, "evaluations": int(rows["kind"].isin(EVALUATED).sum())})
        return load_search(stage, space)
    return SearchResult(winner, space, caps, rows, decided, exact)


def load_search(stage: Stage, space: ElasticSpace) -> SearchResult:
    """Read a finished search back from its folder."""
    found = read_json(stage.folder / "best.json", ("arch", "budget"))
    frames = [stage.read_frame(name) for name in ("trials.csv", "top.csv", "front.csv")]
    return SearchResult(Arch.from_dict(found["arch"]), space, found["budget"], *frames)


def tables_hash(tables: Sequence[pd.DataFrame]) -> str:
    """Return a short hash of the rating tables."""
    import hashlib

    digest = hashlib.sha256()
    for table in tables:
        digest.update(table.to_csv(index=False).encode())
    return digest.hexdigest()[:12]
