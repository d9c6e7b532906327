"""The expensive proxies: a short distilled training of each arch, from new weights or from the supernet's."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from nas_kd.config.measures import measure_named
from nas_kd.data import Data
from nas_kd.distill import Distiller, Task
from nas_kd.nn import inputs, resized
from nas_kd.rate.scores.base import CHUNK, Bench, Score
from nas_kd.runtime.seeds import seeded
from nas_kd.space import Arch
from nas_kd.train.config import TEXT_INHERITED_LR, TEXT_NEW_LR, TrainingConfig
from nas_kd.train.network import predict, train_network

TEMPERATURE = 4.0  # of "kd", which trains them
# from the supernet's weights, at a lower learning rate than from new ones
TUNING: dict[str, Any] = {"epochs": 1, "batch_size": 64, "lr": 0.02, "weight_decay": 5e-4, "warmup_epochs": 0.25}


def tuning_of(data: Data) -> dict[str, Any]:
    """Return the settings with which subnets are tuned: text encoders take AdamW's rates, as in `retrain`."""
    return TUNING if data.tokens is None else TUNING | {"optimizer": "adamw", "lr": TEXT_INHERITED_LR}


def softened_kl(task: Task, student: Tensor, teacher: Tensor) -> float:
    """Return a task's divergence, of classes the KL, from teacher to student, at the temperature of the distillation.

    Args:
        task: what labels mean.
        student: (N, C) logits.
        teacher: (N, C) logits.

    Returns:
        Nats. At temperature 1 it would mostly measure confidence, which that training does not fit.
    """
    return float(task.divergence(student, teacher, TEMPERATURE))


def short_training(epochs: int, bench: Bench, archs: Sequence[Arch]) -> list[float]:
    """Train each arch from new weights for a few epochs and measure its accuracy on the rating images."""
    data = bench.data
    how: dict[str, Any] = {"lr": 0.05} if data.tokens is None else {"optimizer": "adamw", "lr": TEXT_NEW_LR}
    found = []
    for arch in archs:
        seeded(bench.seed, "short training", arch.key)
        network = resized(bench.space.build(arch, data.num_classes, data.in_chans), arch.resolution)
        _train(network, bench, **how, epochs=epochs, batch_size=64, weight_decay=5e-4, warmup_epochs=0.25 * epochs)
        reached = bench.task.metric(predict(network, data.rate, bench.runtime), data.rate.labels)
        found.append(measure_named(bench.task.measure).sign * reached)
        bench.used.student += len(data.rate)
    return found


def tuned_subnet(bench: Bench, archs: Sequence[Arch]) -> list[float]:
    """Train each arch from the supernet's weights for an epoch and measure its KL on the rating images.

    Shared weights are a compromise between all archs. `search` tunes its best subnets in the same way.
    """
    teacher = bench.need_teacher()
    net = bench.need_net()
    rate = bench.data.rate
    found = []
    shown = [inputs.moved(batch.x, bench.runtime.device) for batch in rate.clean(CHUNK)]
    targets = torch.cat([teacher(x).float().cpu() for x in shown])
    bench.used.teacher += len(rate)
    for arch in archs:
        seeded(bench.seed, "tuned subnet", arch.key)
        network = resized(net.extract(arch), arch.resolution)
        _train(network, bench, **tuning_of(bench.data))
        found.append(softened_kl(bench.task, predict(network, rate, bench.runtime), targets))
        bench.used.student += len(rate)
    return found


def _train(network: nn.Module, bench: Bench, *, epochs: int, batch_size: int, **settings: Any) -> None:
    """Distil a network in place."""
    source = bench.cache or bench.need_teacher()
    data = bench.data
    train_network(
        network,
        data,
        TrainingConfig(epochs=epochs, batch_size=min(batch_size, len(data.train)), **settings),
        distiller=Distiller("kd", bench.task, temperature=TEMPERATURE),
        source=source,
        stage=None,
        name="short training",
        seed=bench.seed,
        runtime=bench.runtime,
    )
    bench.used.student += 3 * epochs * len(data.train) + epochs * len(data.rate)
    bench.used.teacher += 0 if bench.cache is not None else epochs * len(data.train)


SHORT_TRAINING = Score("short training", partial(short_training, 1), True, needs=frozenset({"teacher"}))
TUNED_SUBNET = Score("tuned subnet", tuned_subnet, False, needs=frozenset({"teacher", "supernet"}))
