"""Settings of the blockwise rating and of the search."""

from __future__ import annotations

import math
from dataclasses import dataclass

from nas_kd.config.checks import Budget, check_budget, check_database, natural, number, positive, share, word
from nas_kd.config.names import ERRORS
from nas_kd.errors import SettingError


@dataclass(frozen=True)
class BlockwiseConfig:
    """Blockwise supervision by the teacher and the rating of every candidate of a stage."""

    train: bool = True
    """train the stages on the teacher's features (DNA); false trains the adapters only"""
    epochs: int = 5
    """passes over train"""
    batch_size: int = 64
    """images a step"""
    lr: float = 0.01
    """peak learning rate (AdamW)"""
    init: str = "supernet"
    """supernet or scratch: the weights that the stages start from"""
    sampling: str = "fair"
    """fair (every choice of every layer equally often) or uniform"""
    paths: int | None = None
    """paths a stage and step; null is one a choice of a layer, at most 4"""
    mix: float = 0.0
    """share of the steps in which a stage gets what the student's stages before it give, not the teacher's feature"""
    error: str = "nsr"
    """what scores measure: nsr (squared error over the variance of the teacher's channel), nmse (over the teacher's
    energy) or relative_l1 (absolute error over the standard deviation)"""
    rate_images: int | None = None
    """images of the rate split that candidates are scored on; null takes all"""
    calibration_images: int = 512
    """training images that norm statistics are measured on"""
    max_rows: int = 20_000
    """rate all candidates of a stage up to this many rows (input width x candidate); above, by halving"""
    cache_gb: float = 0.0
    """store the teacher's features of all views in the run, in fp16, where they need at most so many GB, so that
    epochs beyond data.views and stages in processes of their own run no teacher; 0 stores none"""
    stage: int | None = None
    """rate this stage alone, from 1: `nas-kd blockwise --stage 3`, several at once; null rates all"""

    def __post_init__(self) -> None:
        positive("blockwise", self, "epochs", "batch_size", "lr", "paths", "max_rows", "stage")
        natural("blockwise", self, "cache_gb")
        share("blockwise", self, "mix")
        if self.mix and self.stage is not None:
            legal = "null with blockwise.mix, which feeds a stage by those before it"
            raise SettingError("blockwise.stage", self.stage, legal, "rate all stages at once, or use blockwise.mix=0")
        number("blockwise", self, "2 or more", lambda value: value >= 2, "rate_images", "calibration_images")
        word("blockwise.init", self.init, ("supernet", "scratch"))
        word("blockwise.sampling", self.sampling, ("fair", "uniform"))
        word("blockwise.error", self.error, ERRORS)


@dataclass(frozen=True)
class SearchConfig:
    """The budget and the search within it."""

    engine: str | None = None
    """exact (stage scores exactly, then whole subnets; needs a teacher), or by the supernet's accuracy alone:
    nsga2 (Optuna's), coarse (coarse-to-fine) or random (the baseline); null is exact, nsga2 without a teacher"""
    max_macs: Budget = "60%"
    """most multiply-adds: a share of the largest (60%) or a number (6.5e6, 6.5M); null is no limit"""
    max_params: Budget = None
    """most parameters, likewise"""
    min_macs: Budget = None
    """least multiply-adds, for a budget that is a range; null is no limit"""
    min_params: Budget = None
    """least parameters, likewise"""
    max_latency_ms: float | None = None
    """largest median latency of one image on this machine, in milliseconds; null is no limit"""
    weights: str | list[float] | None = None
    """what the stages' scores are multiplied by before they are added up: a number a stage, sensitivity (what the
    teacher's answers lose when a stage is replaced) or learned (from what `nas-kd rank` trained in this run)"""
    trials: int = 300
    """whole subnets to score"""
    sampler: str = "tpe"
    """Optuna's sampler after exact: tpe, nsga2 or random"""
    objectives: list[str] | None = None
    """what proposals are to be good in: kl or accuracy, and any of macs, params and latency_ms (measured here); several
    give a front. null is kl with engine exact, else accuracy and macs"""
    variables: str = "dimensions"
    """what it varies: dimensions (every width, depth, kernel ... by itself; the ratings say where to begin) or
    candidates (an index a stage, into those that the ratings prefer)"""
    top: int = 4
    """architectures that a short training decides between, besides the controls"""
    epochs: int = 3
    """epochs of that training, which is distilled after exact, else by labels; 0 leaves it out"""
    rounds: int = 2
    """rounds of that training for the better half each, up to twice as long as the one before; 1 trains all alike"""
    tuned: int = 16
    """after exact: subnets of lowest KL that are trained for an epoch from the supernet's weights and measured again;
    the best of them enter the short trainings; 0 leaves it out"""
    calibration_images: int = 512
    """training images that norm statistics of a subnet are measured on"""
    rate_images: int | None = None
    """images of the rate split that subnets are scored on; null takes all"""
    storage: str | None = None
    """postgresql://USER@HOST/DATABASE where workers of many machines share the trials (`nas-kd search --worker`);
    null is a journal file in the run, for workers of this machine. The password: in PGPASSWORD or ~/.pgpass"""

    def __post_init__(self) -> None:
        check_database("search.storage", self.storage)
        if self.storage is not None and self.engine == "coarse":
            raise SettingError("search.storage", "a database", "null with search.engine=coarse: one process searches")
        check_budget(self.max_macs, "search.max_macs")
        check_budget(self.max_params, "search.max_params")
        check_budget(self.min_macs, "search.min_macs")
        check_budget(self.min_params, "search.min_params")
        positive("search", self, "max_latency_ms", "trials", "top", "rounds")
        natural("search", self, "epochs", "tuned")
        positive("search", self, "calibration_images", "rate_images")
        word("search.sampler", self.sampler, ("tpe", "nsga2", "random"))
        word("search.variables", self.variables, ("candidates", "dimensions"))
        if isinstance(self.weights, str):
            word("search.weights", self.weights, ("sensitivity", "learned"))
        elif self.weights is not None and not (any(self.weights) and all(0 <= w < math.inf for w in self.weights)):
            legal = "numbers of at least 0, one a stage and not all of them 0, or sensitivity or learned"
            raise SettingError("search.weights", self.weights, legal, "leave it out: all stages count alike")
        if self.engine is not None:
            word("search.engine", self.engine, ("exact", "nsga2", "coarse", "random"))
