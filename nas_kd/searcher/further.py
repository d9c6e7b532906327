"""Scores of subnets that a search measures only where they are its objectives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from nas_kd.config.measures import TUNED, measure_named
from nas_kd.data import Data
from nas_kd.errors import SettingError
from nas_kd.rate.scores.guidance import Guidance
from nas_kd.rate.scores.short import TUNING
from nas_kd.searcher.tuned import TunedScorer
from nas_kd.space import Arch
from nas_kd.supernet import Supernet
from nas_kd.teacher import TargetSource
from nas_kd.teacher.targets import LiveSource
from nas_kd.train.many import TrainingSetup

Scorer = Callable[[Arch], dict[str, float]]


class Further(NamedTuple):
    """How archs are scored in a search.

    Args:
        scorer: returns all scores of an arch.
        columns: those that only some searches have.
    """

    scorer: Scorer
    columns: tuple[str, ...] = ()


def need_images(objectives: Sequence[str], data: Data) -> None:
    """Refuse an objective that compares images where the data are texts.

    Raises:
        SettingError: it is among the objectives.
    """
    if data.tokens is not None and "p_tg" in objectives:
        expected = "objectives without p_tg, which compares layers on images"
        raise SettingError("search.objectives", list(objectives), expected, "use kl")


def need_network(objectives: Sequence[str], source: TargetSource | None) -> LiveSource | None:
    """Return the teacher's network, which an objective may need that looks into its layers.

    Raises:
        SettingError: it is needed, and there are stored answers alone.
    """
    teacher = None if source is None else source.teacher
    if "p_tg" in objectives and teacher is None:
        hint = "pass teacher=nas_kd.load_teacher(...), or use kl"
        raise SettingError("search.objectives", list(objectives), "kl without the teacher's network", hint)
    return teacher


def further_scores(
    objectives: Sequence[str],
    scorer: Scorer,
    setup: TrainingSetup,
    source: TargetSource | None,
    *,
    calibration_images: int,
    seed: int,
    folder: str,
) -> Further:
    """Add what the objectives of a search need to its scores.

    Args:
        objectives: of the search, from `checked_objectives`.
        scorer: returns the scores that every search has.
        setup: teacher's answers, data, run, and the supernet.
        source: what teaches.
        calibration_images: training images that norms are measured on.
        seed: seed of trainings.
        folder: the search's folder in the run.

    Raises:
        SettingError: an objective needs a teacher's features, and there is none.
    """
    columns: tuple[str, ...] = ()
    measure = setup.task.measure
    if any(name.startswith(TUNED) for name in objectives):
        setup.prefill_teacher(TUNING["epochs"])
        scorer = TunedScorer(scorer, setup, seed, folder)
        columns += (f"{TUNED}kl", TUNED + measure)
    if "p_tg" in objectives:
        teacher = need_network(objectives, source)
        net = setup.supernet
        assert teacher is not None
        assert isinstance(net, Supernet)  # a search has one
        guided = Guidance(net, teacher, setup.data, setup.runtime, calibration_images=calibration_images)
        scorer = GuidedScorer(scorer, guided, measure)
        columns += ("p_tg",)
    return Further(scorer, columns)


@dataclass(frozen=True)
class GuidedScorer:
    """Adds what a subnet knows already to how much it tells images apart as the teacher does.

    Args:
        scorer: returns the measure, among others.
        guidance: of the teacher.
        measure: its name.

    Source: TG-SAGE (Bashivan et al. 2019): P + TG, both with the same weight.
    """

    scorer: Scorer
    guidance: Guidance
    measure: str

    def __call__(self, arch: Arch) -> dict[str, float]:
        """Score one arch; ``p_tg`` is high for good ones."""
        scores = self.scorer(arch)
        return scores | {"p_tg": measure_named(self.measure).sign * scores[self.measure] + self.guidance(arch)}
