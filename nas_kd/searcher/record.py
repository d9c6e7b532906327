"""What the record of a search says: what it depends on, its engine and tables by name, and the arch it comes to."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch

from nas_kd.config.settings import default_of, fields_of
from nas_kd.data import Data
from nas_kd.distill import form_of
from nas_kd.errors import SettingError
from nas_kd.export.onnx_timed import timed_on
from nas_kd.runs.files import atomic_json
from nas_kd.runs.stage import Stage
from nas_kd.searcher.budget import Budget
from nas_kd.searcher.config import SearchConfig
from nas_kd.searcher.engine import Engine, SearchEngine
from nas_kd.searcher.engines import ENGINES, search_engine
from nas_kd.searcher.finalists import best_trained, ranked
from nas_kd.searcher.result import SearchResult
from nas_kd.searcher.trials import evaluated
from nas_kd.supernet import Supernet
from nas_kd.teacher import TargetSource
from nas_kd.train import weights_hash
from nas_kd.train.config import RetrainConfig, TrainingConfig

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

BOUNDS = ("max_macs", "max_params", "min_macs", "min_params")  # the record has their numbers
LATER = (
    "rerate_images",
    "rerate_temperature",
    "gate_epochs",
    "gate_lr",
    "latency_runtime",
)  # runs recorded before they were settings lack them
STEPS = ("steps", "step_epochs", "rounds_of_teachers")  # weights and teacher are what they come to
# settings of retrainings that short ones share
TRAINING_FIELDS = (*(name for name in fields_of(TrainingConfig) if name != "epochs"), "method_settings")


def checked_engine(engine: str | Engine | None, source: TargetSource | None, tables: object) -> SearchEngine:
    """Return the engine's search, and check that it has what it needs.

    Args:
        engine: a name, an engine of the user's own, or None, which is exact with tables and nsga2 without.
        source: what teaches; None without a teacher.
        tables: of ratings; None where there are none.

    Raises:
        SettingError: it is guided and lacks a teacher or tables, or several teachers cannot guide it.
    """
    searches = search_engine(engine or ("nsga2" if tables is None else "exact"))
    if not isinstance(engine, str | None):
        if searches.name in ENGINES:
            raise SettingError("search.engine", searches.name, "a name that no built-in engine has", "rename it")
        return searches
    if searches.guided and (source is None or tables is None):
        free = [name for name, kind in ENGINES.items() if not kind.guided]
        expected = f"{', '.join(free)} without a teacher and its rating tables"
        hint = "pass teacher= and tables=nas_kd.rate_blockwise(...), or engine='nsga2'"
        raise SettingError("search.engine", searches.name, expected, hint)
    if source is not None and source.teacher is None and not source.shared:
        expected = "one nas_kd Teacher, the cache of its logits, or None"
        raise SettingError(
            "teacher", type(source).__name__, expected, "several teachers can retrain a student, not search"
        )
    return searches


def short_settings(training: RetrainConfig) -> dict[str, Any]:
    """Return the settings of retrainings that short ones share."""
    return {name: getattr(training, name) for name in TRAINING_FIELDS}


def search_facts(
    config: SearchConfig,
    engine: str,
    goals: Sequence[str],
    budget: Budget,
    *,
    net: Supernet,
    source: TargetSource | None,
    data: Data,
    tables: Sequence[pd.DataFrame],
    training: RetrainConfig,
    seed: int,
    precision: str,
) -> dict[str, Any]:
    """Return what a search depends on, by the name of each fact; a run that has others is not continued.

    Args:
        config: the settings of the search.
        engine: its name.
        goals: the objectives.
        budget: with its bounds in numbers.
        net: what is searched in.
        source: what teaches.
        data: the data.
        tables: the ratings; empty where there are none.
        training: settings of the short trainings, all settled.
        seed: of the search.
        precision: of the networks' arithmetic.
    """
    facts: dict[str, Any] = {
        "space": budget.space.hash,
        "data": data.fingerprint,
        "seed": seed,
        "precision": precision,
        "teacher": None if source is None else source.fingerprint,
        "supernet": weights_hash(net),
        "tables": tables_hash(tables) if tables else None,
    }
    if budget.table is not None:
        facts |= {"search.latency_table": budget.table.digest}
    elif budget.max_latency_ms is not None or "latency_ms" in goals:  # other machines' latencies are not comparable
        device = timed_on(budget.runtime, budget.device)
        facts |= {"latency.device": device, "latency.threads": torch.get_num_threads()}
    usual = [name for name in LATER if getattr(config, name) == default_of(SearchConfig, name)]
    facts |= config.record("storage", "latency_table", "first", *BOUNDS, *STEPS, *usual) | {
        "search.engine": engine,
        "search.caps": budget.upper,
        "search.floors": budget.lower,
        "search.sampler": sampler_name(config.sampler),
        "search.weights": None if config.weights is None else [float(weight) for weight in config.weights],
        "search.objectives": list(goals),
        "search.method": repr(training.method),
        "search.training": short_settings(training),
    }
    if training.method is not None and (form := form_of(training.method, training.method_settings)):
        facts["search.method_form"] = form
    return facts


def sampler_name(sampler: str | BaseSampler) -> str:
    """Return an identifier of a sampler: a name, or the class of an object and its plain settings."""
    if isinstance(sampler, str):
        return sampler
    plain = {name: value for name, value in vars(sampler).items() if isinstance(value, str | int | float | bool)}
    return f"{type(sampler).__name__}({', '.join(f'{name}={value}' for name, value in sorted(plain.items()))})"


def winner_of(finalists: pd.DataFrame, guided: bool, metric: str) -> str:
    """Return the key of the best: by the short training where there was one, then by the scores.

    Args:
        finalists: the archs of the short training.
        guided: whether the engine uses a teacher: KL decides then.
        metric: name of the task's measure.
    """
    lowest = [name for name in ("tuned_kl", "kl") if name in finalists]
    finalists = finalists.sort_values(lowest, kind="stable") if guided else ranked(finalists, "loss", metric)
    if f"select_{metric}" in finalists:
        finalists = best_trained(finalists, metric)
    return str(finalists["key"].iloc[0])


def tables_hash(tables: Sequence[pd.DataFrame]) -> str:
    """Return a short hash of the rating tables."""
    digest = hashlib.sha256()
    for table in tables:
        digest.update(table.to_csv(index=False).encode())
    return digest.hexdigest()[:12]


def keep_result(stage: Stage, result: SearchResult, budget: Budget, taught: bool) -> None:
    """Write top.csv, pareto.csv and best.json, and mark the search as done.

    Args:
        stage: of the search.
        result: what was found.
        budget: what it is within.
        taught: whether there is a teacher.
    """
    stage.write_frame("top.csv", result.top)
    stage.write_frame("pareto.csv", result.front())
    winner = result.best
    found = {
        "key": winner.key,
        "label": winner.label,
        "arch": winner.to_dict(),
        "budget": result.budget,
        "at_least": budget.lower,
        "max_latency_ms": budget.max_latency_ms,
        "engine": result.engine,
        "teacher": taught,
        "objectives": list(result.objectives),
    }
    if budget.runtime != "torch":
        found |= {"latency_runtime": budget.runtime}
    if budget.table is not None:
        found |= {"latency_table": budget.table.path, "latency_ms": budget.latency(winner)}
    cost = budget.cost_of(winner)
    atomic_json(stage.folder / "best.json", found | {"macs": cost.macs, "params": cost.params})
    stage.finish({"best": winner.key, "evaluations": len(evaluated(result.trials))})
