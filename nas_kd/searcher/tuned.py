"""The best subnets, fine-tuned for an epoch from the supernet's weights before the short trainings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import pandas as pd
from torch import nn

from nas_kd.config.measures import TUNED
from nas_kd.nn import resized
from nas_kd.rate.scores.short import TEMPERATURE, TUNING, softened_kl, tuning_of
from nas_kd.runs.log import timed
from nas_kd.runs.progress import Progress
from nas_kd.searcher.trials import evaluated
from nas_kd.space import Arch
from nas_kd.train.many import Results, Retraining, TrainingSetup, train_many
from nas_kd.train.network import predict


def tuned(
    rows: pd.DataFrame,
    archs: Mapping[str, Arch],
    setup: TrainingSetup,
    *,
    count: int,
    seed: int,
    folder: str,
    workers: int,
) -> pd.DataFrame:
    """Fine-tune the subnets of lowest KL from the supernet's weights, and measure them again.

    Shared weights are a compromise between all archs; one epoch of its own says more about an arch.

    Args:
        rows: the trials of a search.
        archs: every arch by key.
        setup: teacher, data, run and the supernet that they start from.
        count: subnets to tune.
        seed: seed of the trainings.
        folder: the search's folder in the run.
        workers: processes.

    Returns:
        ``key`` and ``tuned_kl`` (KL to the teacher on the rating split, both softened; nats), best first.
    """
    scored = evaluated(rows).drop_duplicates("key").sort_values("kl", kind="stable")
    keys = scored["key"].head(count).tolist()
    setup.prefill_teacher(TUNING["epochs"])
    trainings = [_tuning(setup, archs[key], seed, folder) for key in keys]
    with Progress("tuned subnets", len(keys), unit="subnets", run=setup.run) as progress:
        found = train_many(trainings, progress, workers=setup.processes(workers))
    frame = pd.DataFrame({"key": keys, "tuned_kl": [each["tuned_kl"] for each in found]})
    return frame.sort_values("tuned_kl", kind="stable", ignore_index=True)


def _tuning(setup: TrainingSetup, arch: Arch, seed: int, folder: str) -> Retraining:
    """Return the short training of one arch."""
    how = tuning_of(setup.data)
    settings = how | {
        "batch_size": min(how["batch_size"], len(setup.data.train)),
        "method": "kd",
        "method_settings": {"temperature": TEMPERATURE},
        "test": False,
    }
    return Retraining(setup, arch, seed, f"{folder}/tuned/{arch.key}", settings, measure=tuned_scores)


@dataclass(frozen=True)
class TunedScorer:
    """Scores subnets with shared weights, and again when each has learned from the teacher for an epoch.

    Args:
        scorer: scores them before.
        setup: teacher, data, run and the supernet that they start from. In a run an arch is trained once: its folder
            keeps what it came to.
        seed: seed of the trainings.
        folder: the search's folder in the run.
    """

    scorer: Callable[[Arch], dict[str, float]]
    setup: TrainingSetup
    seed: int
    folder: str

    def __call__(self, arch: Arch) -> dict[str, float]:
        """Score one arch.

        Returns:
            The scorer's, ``tuned_kl`` and the measure's name after ``tuned_``, on the rating split.
        """
        return self.scorer(arch) | _tuning(self.setup, arch, self.seed, self.folder).train()


def measured(rows: pd.DataFrame) -> pd.DataFrame | None:
    """Return what `tuned` does of a search whose trials were tuned, one and all; None of another."""
    if "tuned_kl" not in rows:
        return None
    scored = evaluated(rows).drop_duplicates("key")[["key", "tuned_kl"]]
    return scored.sort_values("tuned_kl", kind="stable", ignore_index=True)


def tuned_scores(network: nn.Module, training: Retraining) -> Results:
    """Return the KL between a tuned subnet's logits and the teacher's, and its measure, on the rating split."""
    setup = training.setup
    sized = resized(network, training.arch.resolution)
    with timed(setup.run, training.folder, "scoring"):
        logits = predict(sized, setup.data.rate, setup.runtime)
    target = None if setup.teacher is None else setup.teacher.split_logits("rate", setup.data)
    if target is None:
        raise RuntimeError("measuring a tuned subnet needs a teacher")
    measure = float(setup.task.metric(logits, setup.data.rate.labels))
    return {"tuned_kl": softened_kl(setup.task, logits, target), TUNED + setup.task.measure: measure}
