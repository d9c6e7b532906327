"""Train or fine-tune a teacher on the user's data, by the same loop as every other network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import nn

from nas_kd.data import Data
from nas_kd.distill import Classification, Distiller
from nas_kd.runs.run import Run
from nas_kd.runtime.device import Runtime
from nas_kd.runtime.seeds import seeded
from nas_kd.teacher import Teacher, build_model, save_weights
from nas_kd.train.loop import check_epochs
from nas_kd.train.manner import Manner
from nas_kd.train.network import train_network
from nas_kd.train.weights import load_weights, weights_hash


def train_teacher(
    model: str | nn.Module,
    data: Data,
    *,
    run: Run | str | Path | None = None,
    epochs: int = 20,
    batch_size: int = 64,
    lr: float = 0.05,
    momentum: float = 0.9,
    weight_decay: float = 5e-4,
    warmup_epochs: float = 1.0,
    smoothing: float = 0.0,
    checkpoint: str | None = None,
    pretrained: bool = False,
    stages: list[str] | None = None,
    seed: int = 0,
    runtime: Runtime | None = None,
    optimizer: str = "sgd",
    schedule: str = "cosine",
    milestones: Sequence[float] | None = None,
    factor: float = 0.1,
    ema: float = 0.0,
    mixup: float = 0.0,
    cutmix: float = 0.0,
) -> Teacher:
    """Train or fine-tune a teacher on the user's data.

    Args:
        model: a timm name, one of this project's CIFAR networks, ``package.module:factory`` or a module.
        data: the data.
        run: run folder; weights go to ``teacher/weights.safetensors`` in it.
        epochs: passes over the training images.
        batch_size: images a step.
        lr: peak learning rate.
        momentum: momentum, of optimisers that have one.
        weight_decay: decay of weights; norms and biases are not decayed.
        warmup_epochs: epochs of linear warm-up.
        smoothing: label smoothing, 0 to 1.
        checkpoint: weights to start from; a classifier of another class count is replaced by a new one.
        pretrained: start from timm's published weights.
        stages: module paths of the teacher's stages instead of the default choice.
        seed: seed of weights, order and augmentation.
        runtime: device and precision.
        optimizer: see `Manner`, as the following.
        schedule: ``cosine`` or ``step``.
        milestones: epochs of the steps.
        factor: what a step multiplies the rate by.
        ema: decay of an average of the weights.
        mixup: parameter of mixup.
        cutmix: parameter of CutMix.

    Returns:
        The sealed teacher, bound to the data.

    Raises:
        SettingError: a setting is out of range, or the run was made with others.
    """
    runtime = runtime or Runtime()
    check_epochs("teacher", epochs, batch_size, data.train)
    distiller = Distiller("ce", Classification(smoothing=smoothing))
    manner = Manner(optimizer, schedule, milestones, factor, ema, mixup, cutmix)
    manner.check("teacher", distiller.recipe, epochs=epochs, batch_size=batch_size // runtime.world)
    seeded(seed, "init", "teacher")
    name = model if isinstance(model, str) else type(model).__name__
    network = build_model(
        model,
        checkpoint=checkpoint,
        num_classes=data.num_classes,
        in_chans=data.in_chans,
        pretrained=pretrained,
        resolution=data.resolution,
    )
    run = Run.of(run)
    stage = None
    if run is not None:
        settings = {
            "model": name,
            "epochs": epochs,
            "batch_size": batch_size,
            "lr": lr,
            "momentum": momentum,
            "weight_decay": weight_decay,
            "warmup_epochs": warmup_epochs,
            "smoothing": smoothing,
        } | manner.chosen
        facts = {"start": weights_hash(network), "data": data.fingerprint, "seed": seed} | data.augmentation
        facts |= {"precision": runtime.precision}
        stage = run.stage("teacher", facts | {f"teacher.{key}": value for key, value in settings.items()})
    if stage is None or not stage.done:
        train_network(
            network,
            data,
            distiller=distiller,
            source=None,
            stage=stage,
            name="teacher",
            epochs=epochs,
            batch_size=batch_size,
            lr=lr,
            momentum=momentum,
            weight_decay=weight_decay,
            warmup_epochs=warmup_epochs,
            clip_grad=0.0,
            seed=seed,
            runtime=runtime,
            manner=manner,
        )
        if stage is not None:
            save_weights(network, stage.folder / "weights.safetensors", mean=data.mean, std=data.std)
            stage.finish({"model": name, "fingerprint": weights_hash(network)})
    else:
        load_weights(network, stage.folder / "weights.safetensors", stage.facts.get("fingerprint"))
    teacher = Teacher(
        network,
        name,
        num_classes=data.num_classes,
        in_chans=data.in_chans,
        mean=data.mean,
        std=data.std,
        stages=stages,
    )
    return teacher.bind(data)
