"""The best subnets, fine-tuned for an epoch from the supernet's weights before the short trainings."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
from torch import nn

from nas_kd.nn import resized
from nas_kd.rate.scores.short import TEMPERATURE, TUNING, softened_kl
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
    settings = TUNING | {
        "batch_size": min(TUNING["batch_size"], len(setup.data.train)),
        "method": "kd",
        "method_settings": {"temperature": TEMPERATURE},
        "test": False,
    }
    trainings = [
        Retraining(setup, archs[key], seed, f"{folder}/tuned/{key}", settings, measure=tuned_kl) for key in keys
    ]
    with Progress("tuned subnets", len(keys), unit="subnets", run=setup.run) as progress:
        found = train_many(trainings, progress, workers=setup.processes(workers))
    frame = pd.DataFrame({"key": keys, "tuned_kl": [each["tuned_kl"] for each in found]})
    return frame.sort_values("tuned_kl", kind="stable", ignore_index=True)


def tuned_kl(network: nn.Module, training: Retraining) -> Results:
    """Return the KL between a tuned subnet's logits and the teacher's."""
    setup = training.setup
    sized = resized(network, training.arch.resolution)
    with timed(setup.run, training.folder, "scoring"):
        logits = predict(sized, setup.data.rate, setup.runtime)
    target = None if setup.teacher is None else setup.teacher.split_logits("rate", setup.data)
    if target is None:
        raise RuntimeError("measuring a tuned subnet needs a teacher")
    return {"tuned_kl": softened_kl(setup.task, logits, target)}
