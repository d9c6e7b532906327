"""Settings of the budget and the search within it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator

from nas_kd.config.names import names_in_tables
from nas_kd.config.settings import Changed, default_of, settings
from nas_kd.config.types import Count, Natural, NotNegative, Positive
from nas_kd.data.config import MeasuringConfig, MeasuringSettings
from nas_kd.errors import SettingError, nearest
from nas_kd.searcher.amounts import Amount, check_budget
from nas_kd.searcher.database import check_database
from nas_kd.searcher.engine import NNI_PREFIX

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler as Sampler

    from nas_kd.searcher.engine import Engine
else:

    def _sampler(value):
        """Accept objects with the method that every sampler has; Optuna is not imported to check settings."""
        if not hasattr(value, "sample_relative"):
            raise ValueError("not a sampler")
        return value

    def _engine(value):
        if not hasattr(value, "propose"):
            raise ValueError("not an engine")
        return value

    Sampler = Annotated[Any, AfterValidator(_sampler), "an Optuna sampler object"]
    Engine = Annotated[Any, AfterValidator(_engine), "a custom engine object"]


GROWS = ("trials", "rerate", "top", "rounds", "tuned")  # a larger number goes on from what a search has
SUBNETS = "images of the rate split that subnets are scored on; null takes all"


@settings(
    "search",
    {
        "calibration_images": Changed(512, "training images for norm statistics", Count),
        "rate_images": Changed(None, SUBNETS, Count | None),
    },
    {"calibration_images": "tuned"},
)
class SearchConfig(MeasuringConfig):
    """The budget and the search within it."""

    engine: str | Engine | None = None
    """exact (rated stages, then whole subnets), gates, reinforce (a rewarded controller), predictor, nni:tpe or
    nni:random; by the supernet's accuracy alone nsga2, coarse or random; null is exact, or nsga2 without a teacher"""
    max_macs: Amount = "60%"
    """maximum multiply-adds: a share of the teacher's (60%; without a teacher of the largest's) or a number (6.5e6,
    6.5M); null is no limit"""
    max_params: Amount = None
    """maximum parameters; null is no limit"""
    min_macs: Amount = None
    """minimum multiply-adds; null is no limit"""
    min_params: Amount = None
    """minimum parameters; null is no limit"""
    max_latency_ms: Positive | None = None
    """median of one image; null is no limit"""
    latency_table: str | None = None
    """CSV of latencies on another device (nas_kd/searcher/README.md); null measures here"""
    latency_runtime: Literal["torch", "onnxruntime"] = "torch"
    """what runs networks measured here: torch or onnxruntime"""
    first: str | None = None
    """JSON file of archs to score first, such as supernet/board.json of rule cream or search/best.json of another
    run"""
    weights: Literal["sensitivity", "learned"] | Sequence[NotNegative] | None = None
    """factors of the stages' scores: one number each, sensitivity (loss when a stage is replaced) or learned (by `nas-
    kd rank`)"""
    trials: Count = 300
    """whole subnets to score"""
    sampler: Literal["tpe", "nsga2", "random"] | Sampler = "tpe"
    """of engine exact: tpe, nsga2 or random"""
    objectives: Sequence[str] | None = None
    """what to optimise: kl or accuracy (the metric), tuned_kl or tuned_accuracy (after an epoch of distillation), p_tg
    (TG-SAGE), and any of macs, params and latency_ms; several give a front. null is kl, without a teacher accuracy and
    macs"""
    variables: Literal["dimensions", "candidates"] = "dimensions"
    """search variables: dimensions (each width, depth ... alone) or candidates (one index per stage)"""
    rerate: Natural = 3
    """with the teacher as the space: archs to begin with, the front's best and those found around it; 0 skips it"""
    rerate_images: Count = 192
    """images of the rate split for each of these ratings, at most"""
    rerate_temperature: Positive = 4.0
    """softening of answers there, and of gates"""
    gate_epochs: Count = 5
    """passes over train in which gates learn"""
    gate_lr: Positive = 0.001
    """peak learning rate of their weights"""
    steps: Count = 1
    """with the teacher as the space: cuts on the way; 2 first cuts to the square root of the share, distils and cuts
    again"""
    step_epochs: Count = 1
    """epochs of distillation between two cuts"""
    rounds_of_teachers: Count = 1
    """with a named space: rounds, in each of which the student found before teaches (DNA+); the first teacher teaches
    the final students"""
    top: Count = 4
    """architectures that a short training decides between, besides the controls"""
    epochs: Natural = 3
    """epochs of it, distilled after exact, else from labels; 0 skips it"""
    rounds: Count = 2
    """rounds of it (successive halving): the better half trains again, up to twice as long"""
    tuned: Natural = 16
    """after exact: subnets of lowest KL that are trained for an epoch and measured again; the best enter the short
    trainings; 0 skips it"""
    storage: str | None = None
    """postgresql://USER@HOST/DATABASE for workers on several machines; null is a journal file in the run. The password:
    in PGPASSWORD or ~/.pgpass"""

    def __post_init__(self) -> None:
        check_engine(self.engine)
        check_database("search.storage", self.storage)
        if self.storage is not None and isinstance(self.engine, str):
            check_shared(self.engine)
        timed = self.max_latency_ms is not None or "latency_ms" in (self.objectives or ())
        if self.latency_table is not None and not timed:
            expected = "null without search.max_latency_ms or latency_ms in search.objectives"
            raise SettingError("search.latency_table", self.latency_table, expected, "give search.max_latency_ms")
        if self.latency_runtime != "torch" and (not timed or self.latency_table is not None):
            without = "without search.max_latency_ms or latency_ms in search.objectives"
            expected = f"torch {without if not timed else 'with search.latency_table: nothing is measured here'}"
            hint = "give search.max_latency_ms" if not timed else "leave one of the two out"
            raise SettingError("search.latency_runtime", self.latency_runtime, expected, hint)
        check_budget(self.max_macs, "search.max_macs")
        check_budget(self.max_params, "search.max_params")
        check_budget(self.min_macs, "search.min_macs")
        check_budget(self.min_params, "search.min_params")
        if self.steps > 1 and self.max_macs is None and self.max_params is None:
            expected = "1 without search.max_macs and search.max_params: steps are parts of the way there"
            raise SettingError("search.steps", self.steps, expected, "give search.max_macs")
        if not isinstance(self.weights, str | None) and not any(self.weights):
            expected = "numbers of at least 0, one per stage and not all of them 0, or sensitivity or learned"
            raise SettingError("search.weights", self.weights, expected, "omit it for equal weights")

    @property
    def larger(self) -> Amount:
        """The minimum of MACs where the maximum is the default one, which gives way to it; else None."""
        return self.min_macs if self.max_macs == default_of(type(self), "max_macs") else None


def check_engine(engine: object) -> None:
    """Check that a built-in engine of this name exists, without importing it."""
    known = names_in_tables("searcher/engines", "type[SearchEngine]")
    tuners = tuple(f"{NNI_PREFIX}{name}" for name in names_in_tables("searcher/nni_engine.py", "tuple[str, str]"))
    if isinstance(engine, str) and engine not in (*known, *tuners):
        expected = ", ".join((*known, *tuners) if engine.startswith(NNI_PREFIX) else known)
        raise SettingError("search.engine", engine, expected, nearest(engine, (*known, *tuners)))


def check_shared(engine: str) -> None:
    """Check that several processes may share the trials of a built-in engine."""
    from nas_kd.searcher.engines import search_engine

    if not search_engine(engine).shared:
        expected = f"null with search.engine={engine}: one process searches"
        raise SettingError("search.storage", "a database", expected)


class SearchSettings(MeasuringSettings, total=False):
    """The settings of `SearchConfig` as keywords."""

    engine: str | Engine | None
    max_macs: Amount
    max_params: Amount
    min_macs: Amount
    min_params: Amount
    max_latency_ms: float | None
    latency_table: str | None
    first: str | None
    latency_runtime: Literal["torch", "onnxruntime"]
    weights: Literal["sensitivity", "learned"] | Sequence[float] | None
    trials: int
    sampler: Literal["tpe", "nsga2", "random"] | Sampler
    objectives: Sequence[str] | None
    variables: Literal["dimensions", "candidates"]
    rerate: int
    rerate_images: int
    rerate_temperature: float
    gate_epochs: int
    gate_lr: float
    steps: int
    step_epochs: int
    rounds_of_teachers: int
    top: int
    epochs: int
    rounds: int
    tuned: int
    storage: str | None
