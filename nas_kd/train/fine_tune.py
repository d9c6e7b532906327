"""Training or fine-tuning of a teacher on the user's data, with the same loop as every other network."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn

from nas_kd.config.keywords import takes
from nas_kd.config.kinds import checked
from nas_kd.data import Data
from nas_kd.distill import Distiller, task_of
from nas_kd.errors import SettingError
from nas_kd.runs.log import log_message
from nas_kd.runs.run import Run
from nas_kd.runs.stage import LAST
from nas_kd.runtime.device import Runtime, place
from nas_kd.runtime.seeds import alone, seeded
from nas_kd.teacher import Teacher, save_weights
from nas_kd.teacher.answers import answer_logits
from nas_kd.teacher.build import build
from nas_kd.teacher.load import fitting
from nas_kd.teacher.text import seal
from nas_kd.train.mixing import check_mixing
from nas_kd.train.network import check_inputs, train_network
from nas_kd.train.optim import check_optimizer
from nas_kd.train.plan import check_epochs
from nas_kd.train.pretrained import begin_heads, kept_norms
from nas_kd.train.teacher_config import EPOCHS, TeacherConfig, TeacherSettings
from nas_kd.train.weights import load_weights, weights_hash

if TYPE_CHECKING:
    from typing_extensions import Unpack

# settings on the origin of the weights: the hash of the weights is recorded instead
LOADED = ("checkpoint", "pretrained", "stages", "mean", "std", "cache")
# settings that are recorded where they matter, or decide nothing of the training
ELSEWHERE = ("freeze_norms", "resolution", "grey", "check", "others")


@takes(TeacherConfig)
@checked
@alone
def train_teacher(
    model: str | nn.Module | None,
    data: Data,
    config: TeacherConfig | None = None,
    *,
    run: Run | str | Path | None = None,
    seed: int = 0,
    runtime: Runtime | None = None,
    **settings: Unpack[TeacherSettings],
) -> Teacher:
    """Train or fine-tune a teacher on the user's data.

    Pretrained weights (of a checkpoint, timm or a student folder) are fine-tuned with their own normalisation of
    images, the statistics of their batch norms, and a rate that suits them. A classifier of other classes begins with
    logistic regression on their features.

    Args:
        model: a timm name, a ``cifar_resnet``, ``package.module:factory`` or a module; None takes that of
            the settings.
        config: the settings; keywords replace some of them. Without epochs it trains for 20.
        run: run folder; weights go to ``teacher/weights.safetensors`` in it.
        seed: seed of weights, order and augmentation.
        runtime: device and precision.

    Returns:
        The sealed teacher, bound to the data.

    Raises:
        SettingError: a setting is out of range, or the run used other settings.
    """
    config = TeacherConfig.of(config, settings)
    if not config.epochs and "epochs" not in settings:
        config = replace(config, epochs=EPOCHS)
    model = config.model if model is None else model
    if model is None:
        raise SettingError("teacher.model", None, "a network to train", "pass a model")
    runtime = runtime or Runtime()
    config = config.fitted(len(data.train), runtime.world)
    check_epochs("teacher", config.epochs, config.batch_size, data.train)
    distiller = Distiller("ce", task_of(data, smoothing=config.smoothing))
    if config.optimizer is not None:
        check_optimizer("teacher.optimizer", config.optimizer)
    check_mixing(config, distiller.recipe, runtime.world, kind=data.kind)
    seeded(seed, "init", "teacher")
    name = model if isinstance(model, str) else type(model).__name__
    built = build(
        model,
        checkpoint=config.checkpoint,
        num_classes=data.num_classes,
        in_chans=data.in_chans,
        pretrained=config.pretrained,
        resolution=data.resolution,
        new_head=True,
    )
    network = built.module
    check_inputs(network, data)
    config = config.settled(pretrained=built.trained, texts=data.tokens is not None)
    given = data
    if built.trained and built.normalisation is not None:
        mean, std = (fitting(values, data.in_chans) for values in built.normalisation)
        data = data if mean is None or std is None else data.normalised(mean, std)
    run = Run.of(run)
    for note in built.notes:
        log_message(run, f"teacher: {note}")
    stage = None
    if run is not None:
        facts = {"start": weights_hash(network), "data": data.fingerprint, "seed": seed} | data.augmentation
        facts |= {"precision": runtime.precision}
        facts |= {"teacher.freeze_norms": True} if config.freeze_norms else {}
        stage = run.stage("teacher", facts | config.record(*LOADED, *ELSEWHERE) | {"teacher.model": name})
    if stage is None or not stage.done:
        only_logits = answer_logits(network)  # of the user's own, which may have auxiliary heads in training
        if built.heads and (stage is None or not (stage.folder / LAST).exists()):
            place(network, runtime)
            log_message(run, f"teacher: {begin_heads(network, built.heads, data, runtime)}")
        with kept_norms(network, bool(config.freeze_norms)):
            train_network(
                network,
                data,
                config,
                distiller=distiller,
                source=None,
                stage=stage,
                name="teacher",
                seed=seed,
                runtime=runtime,
            )
        only_logits.remove()
        if stage is not None:
            save_weights(network, stage.folder / "weights.safetensors", mean=data.mean, std=data.std)
            stage.finish({"model": name, "fingerprint": weights_hash(network)})
    else:
        load_weights(network, stage.folder / "weights.safetensors", stage.facts.get("fingerprint"))
    teacher = seal(
        network,
        name,
        num_classes=data.num_classes,
        in_chans=data.in_chans,
        mean=data.mean,
        std=data.std,
        stages=config.stages,
    )
    return teacher.bind(given)
