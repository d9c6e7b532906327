"""The dear proxy: a short distilled training of each arch."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from nas_kd.distill import Classification, Distiller, target_source
from nas_kd.nn import resized
from nas_kd.rate.scores.base import Bench, Score
from nas_kd.runtime import seeded
from nas_kd.space import Arch
from nas_kd.train.network import predict, train_network


def short_training(epochs: int, bench: Bench, archs: Sequence[Arch]) -> list[float]:
    """Train each arch from new weights for a few epochs and measure it on the rating images."""
    teacher = bench.cache or bench.need_teacher()
    task, data, found = Classification(smoothing=0.0), bench.data, []
    for arch in archs:
        seeded(bench.seed, "short training", arch.key)
        network = resized(bench.space.build(arch, data.num_classes, data.in_chans), arch.resolution)
        train_network(
            network, data, distiller=Distiller("kd", task), source=target_source(teacher, features=False), stage=None,
            name="short training", epochs=epochs, batch_size=min(64, len(data.train)), lr=0.05, momentum=0.9,
            weight_decay=5e-4, warmup_epochs=0.25 * epochs, clip_grad=0.0, seed=bench.seed, runtime=bench.runtime,
        )  # fmt: skip
        found.append(task.metric(predict(network, data.rate, bench.runtime), data.rate.labels))
        bench.used.student += 3 * epochs * len(data.train) + (epochs + 1) * len(data.rate)
        bench.used.teacher += 0 if bench.cache is not None else epochs * len(data.train)
    return found


SHORT_TRAINING = Score("short training", partial(short_training, 1), True, needs=frozenset({"teacher"}))
