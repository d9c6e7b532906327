"""The sandwich rule with in-place distillation: the largest subnet learns from labels, the rest from it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from nas_kd.checks import natural, share, word
from nas_kd.data import Batch, Data
from nas_kd.distill import Classification, target_source
from nas_kd.errors import SettingError
from nas_kd.losses import adaptive_alpha_divergence, kl_divergence
from nas_kd.nn import Output
from nas_kd.run import Run
from nas_kd.runtime import Runtime, place, seed_for
from nas_kd.space import Arch
from nas_kd.supernet import Supernet, calibrate
from nas_kd.train.loop import Moment, check_epochs, fit
from nas_kd.train.optim import Schedule, sgd
from nas_kd.train.weights import load_weights, save_weights, weights_hash

Divergence = Callable[[Tensor, Tensor], Tensor]


def divergence_of(name: str, choose: str = "clipped") -> Divergence:
    """Return the loss of the smaller subnets.

    Args:
        name: ``alpha`` (AlphaNet's adaptive pair) or ``kl``.
        choose: which values the adaptive pair compares, ``clipped`` or ``unclipped``.

    Raises:
        SettingError: a name is unknown.
    """
    word("supernet.divergence", name, ("alpha", "kl"))
    word("supernet.choose", choose, ("clipped", "unclipped"))
    return kl_divergence if name == "kl" else partial(adaptive_alpha_divergence, choose=choose)


def sandwich_step(
    net: Supernet, x: Tensor, y: Tensor, archs: Sequence[Arch], *, task: Classification,
    divergence: Divergence, target: Tensor | None = None, teacher_weight: float = 0.0, reduction: str = "sum",
    dropout: float = 0.0, drop_path: float = 0.0, autocast: AbstractContextManager[Any] | None = None,
) -> dict[str, Tensor]:  # fmt: skip
    """Accumulate the gradients of several subnets on one batch.

    Args:
        net: the supernet, in training mode, gradients cleared.
        x: (B, C, H, W) images.
        y: (B,) labels.
        archs: the largest first; it alone sees the labels and is regularised.
        task: its label loss.
        divergence: loss of the other subnets, from (B, C) logits to the largest's detached logits.
        target: (B, C) logits of an external teacher for the largest, or None.
        teacher_weight: share of the largest's loss that comes from ``target``, 0 to 1.
        reduction: ``sum`` adds the subnets' losses (AlphaNet), ``mean`` divides by their number (mmrazor).
        dropout: dropout before the largest's classifier.
        drop_path: stochastic depth of the largest.
        autocast: precision context.

    Returns:
        ``loss`` (their sum or mean), ``loss_largest`` and ``loss_others`` (mean of the others), detached.

    Source: US-Nets (Yu & Huang 2019); BigNAS (Yu et al. 2020); AlphaNet (Wang et al. 2021).
    """
    share = 1.0 / len(archs) if reduction == "mean" else 1.0
    context = autocast if autocast is not None else nullcontext()
    with context:
        soft = net.forward_stages(x, archs[0], dropout=dropout, drop_path=drop_path).logits
        largest = task.loss(soft, y)
        if target is not None and teacher_weight > 0.0:
            largest = (1.0 - teacher_weight) * largest + teacher_weight * divergence(soft, target)
    (largest * share).backward()  # at once: the memory of one graph at a time
    soft, largest = soft.detach(), largest.detach()
    others = torch.zeros_like(largest)
    for arch in archs[1:]:
        with context:
            loss = divergence(net(x, arch), soft)
        (loss * share).backward()
        others += loss.detach()
    mean = others / max(1, len(archs) - 1)
    return {"loss": (largest + others) * share, "loss_largest": largest, "loss_others": mean}


def sandwich_archs(net: Supernet, random: int, seed: int, moment: Moment) -> list[Arch]:
    """Return the archs of a step: largest, smallest and random ones.

    Args:
        net: the supernet.
        random: number of random archs.
        seed: the run's seed.
        moment: the step; equal seeds and moments give equal archs on every rank and after every resume.

    Returns:
        ``2 + random`` archs.
    """
    space = net.space
    drawn = [space.sample(seed_for(seed, "sandwich", moment.epoch, moment.step, k)) for k in range(random)]
    return [space.largest(), space.smallest(), *drawn]


@torch.no_grad()
def evaluate_archs(
    net: Supernet, archs: Sequence[Arch], data: Data, task: Classification, *, images: int = 1024,
    calibration: int = 1024, batch_size: int = 512,
) -> list[float]:  # fmt: skip
    """Measure subnets on the rating split after calibration.

    Args:
        net: the supernet.
        archs: what to measure.
        data: the data; calibration uses training images, the score uses ``rate``.
        task: gives the metric.
        images: number of rating images.
        calibration: number of training images for the norms.
        batch_size: images a forward pass.

    Returns:
        One metric an arch, 0 to 1.
    """
    device = net.head.fc.weight.device
    images_of = (batch.x.to(device) for batch in data.train.clean(batch_size, limit=calibration))
    norms = calibrate(net, images_of, archs)
    training = net.training
    net.eval()
    hits, seen = [0.0] * len(archs), 0
    for batch in (batch.to(device) for batch in data.rate.clean(batch_size, limit=images)):
        seen += len(batch.y)
        for index, (arch, norm) in enumerate(zip(archs, norms, strict=True)):
            hits[index] += task.metric(net(batch.x, arch, norm), batch.y) * len(batch.y)
    net.train(training)
    return [hit / seen for hit in hits]


def train_supernet(
    net: Supernet, data: Data, *, run: Run | str | None = None, task: Classification | None = None,
    teacher: object = None, teacher_weight: float = 0.0, epochs: int = 30, batch_size: int = 64,
    lr: float = 0.1, momentum: float = 0.9, weight_decay: float = 5e-4, warmup_epochs: float = 1.0,
    schedule: str = "cosine", final_lr: float = 0.0, random_subnets: int = 2, divergence: str = "alpha",
    choose: str = "clipped", reduction: str = "sum", dropout: float = 0.0, drop_path: float = 0.0,
    ema: float = 0.0, clip_grad: float = 1.0, seed: int = 0, runtime: Runtime | None = None,
    inputs: dict[str, Any] | None = None,
) -> Supernet:  # fmt: skip
    """Train a supernet with the sandwich rule and in-place distillation.

    Args:
        net: the supernet; trained in place.
        data: the data.
        run: run folder; the same call again goes on where it stopped.
        task: label loss of the largest subnet and the metric; default ``Classification(smoothing=0.1)``.
        teacher: a teacher, a list of teachers or a TargetSource for the largest subnet, used when
            ``teacher_weight`` is above 0.
        teacher_weight: share of the largest's loss that comes from the teacher, 0 to 1.
        epochs: passes over the training images.
        batch_size: images a step.
        lr: peak learning rate of SGD.
        momentum: Nesterov momentum.
        weight_decay: decay of weights; norms and biases are not decayed.
        warmup_epochs: epochs of linear warm-up.
        schedule: ``cosine`` or ``exponential``.
        final_lr: share of the peak at which the rate ends.
        random_subnets: random archs a step besides the largest and the smallest.
        divergence: ``alpha`` or ``kl``.
        choose: which values the adaptive alpha-divergence compares, ``clipped`` or ``unclipped``.
        reduction: ``sum`` or ``mean`` of the subnets' losses.
        dropout: dropout of the largest.
        drop_path: stochastic depth of the largest.
        ema: decay of the weights' moving average, 0 for none.
        clip_grad: clip every gradient entry to this magnitude, 0 for none.
        seed: seed of order, augmentation and archs.
        runtime: device and precision; default: what the machine has.
        inputs: more facts that determine the result, for the run's record.

    Returns:
        ``net``.

    Raises:
        SettingError: a setting is out of range, or the run was made with others.

    Source: BigNAS (Yu et al. 2020), AlphaNet (Wang et al. 2021).
    """
    task = task or Classification(smoothing=0.1)
    check_epochs("supernet", epochs, batch_size, data.train)
    settings = {
        "epochs": epochs, "batch_size": batch_size, "lr": lr, "momentum": momentum,
        "weight_decay": weight_decay, "warmup_epochs": warmup_epochs, "schedule": schedule,
        "final_lr": final_lr, "random_subnets": random_subnets, "divergence": divergence, "choose": choose,
        "reduction": reduction, "teacher_weight": teacher_weight, "dropout": dropout,
        "drop_path": drop_path, "ema": ema, "clip_grad": clip_grad, "smoothing": task.smoothing,
    }  # fmt: skip
    given = SimpleNamespace(**settings)
    natural("supernet", given, "random_subnets", "weight_decay", "clip_grad")
    share("supernet", given, "momentum", "dropout", "drop_path", "ema")
    word("supernet.reduction", reduction, ("sum", "mean"))
    if not 0.0 <= teacher_weight <= 1.0:
        raise SettingError("supernet.teacher_weight", teacher_weight, "0 to 1")
    if teacher_weight > 0.0 and teacher is None:
        raise SettingError("supernet.teacher_weight", teacher_weight, "0 without a teacher", "pass teacher=")
    source = target_source(teacher) if teacher_weight > 0.0 else None
    loss = divergence_of(divergence, choose)
    plan = Schedule(lr, warmup_epochs, schedule, final_lr)
    run, runtime = Run.of(run), runtime or Runtime()
    stage = None
    if run is not None:
        facts: dict[str, Any] = {"space": net.space.hash, "data": data.fingerprint, "seed": seed}
        facts |= {"start": weights_hash(net), "precision": runtime.precision}
        facts |= data.augmentation | (inputs or {})
        if source is not None:
            facts["teacher"] = str(getattr(source, "fingerprint", type(source).__name__))
        stage = run.stage("supernet", facts | {f"supernet.{key}": value for key, value in settings.items()})
        if stage.done:
            load_weights(net, stage.folder / "weights.safetensors")
            return net
    place(net, runtime).train()

    def step(batch: Batch, moment: Moment) -> dict[str, Tensor]:
        target = source(batch) if source is not None else None
        target = target.logits if isinstance(target, Output) else target
        archs = sandwich_archs(net, random_subnets, seed, moment)
        return sandwich_step(
            net, batch.x, batch.y, archs, task=task, divergence=loss, target=target,
            teacher_weight=teacher_weight, reduction=reduction, dropout=dropout, drop_path=drop_path,
            autocast=runtime.autocast(),
        )  # fmt: skip

    def evaluate() -> dict[str, float]:
        ends = [net.space.largest(), net.space.smallest()]
        return dict(zip(("accuracy_largest", "accuracy_smallest"), evaluate_archs(net, ends, data, task), strict=True))

    fit(
        step, name="supernet", modules={"net": net}, split=data.train, schedule=plan, batch_size=batch_size,
        optimizer=sgd([net], momentum=momentum, weight_decay=weight_decay), epochs=epochs, seed=seed,
        runtime=runtime, stage=stage, evaluate=evaluate, clip=clip_grad, ema=ema,
    )  # fmt: skip
    if stage is not None:
        save_weights(net, stage.folder / "weights.safetensors")
        stage.finish({"epochs": epochs, "fingerprint": weights_hash(net)})
    return net
