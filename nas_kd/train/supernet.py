"""Training of a supernet by any rule."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from nas_kd.config import check_supernet
from nas_kd.data import Batch, Data
from nas_kd.distill import Classification, Task
from nas_kd.errors import SettingError
from nas_kd.runs.run import Run
from nas_kd.runtime.device import Runtime, place
from nas_kd.runtime.ranks import broadcast
from nas_kd.runtime.reduce import check_same, mean_over_ranks
from nas_kd.space import Arch
from nas_kd.supernet import Supernet, sort_channels
from nas_kd.teacher.as_targets import Teaches, as_targets
from nas_kd.train.compiled import compiled_forward
from nas_kd.train.evaluate import calibrated, evaluate_archs
from nas_kd.train.loop import LOOK_EVERY, Moment, check_epochs, fit
from nas_kd.train.optim import Schedule, sgd
from nas_kd.train.options import divergence_of, make_rule
from nas_kd.train.sandwich import Images, subnet_forward, summary, teach
from nas_kd.train.shrinking import FullNet, Shrinking
from nas_kd.train.weights import load_weights, save_weights, weights_hash


def train_supernet(
    net: Supernet,
    data: Data,
    *,
    run: Run | str | Path | None = None,
    task: Task | None = None,
    teacher: Teaches = None,
    teacher_weight: float = 0.0,
    rule: str = "sandwich",
    epochs: int = 30,
    batch_size: int = 64,
    lr: float = 0.1,
    momentum: float = 0.9,
    weight_decay: float = 5e-4,
    warmup_epochs: float = 1.0,
    schedule: str = "cosine",
    final_lr: float = 0.0,
    random_subnets: int | None = None,
    order: str = "smallest_second",
    candidates: int = 3,
    kd_ratio: float = 1.0,
    full_teacher: str = "frozen",
    divergence: str | None = None,
    alpha: float | None = None,
    choose: str = "clipped",
    reduction: str = "sum",
    dropout: float = 0.0,
    drop_path: float = 0.0,
    ema: float = 0.0,
    clip_grad: float = 1.0,
    accumulate: int = 1,
    compile: bool = False,
    seed: int = 0,
    runtime: Runtime | None = None,
    inputs: dict[str, Any] | None = None,
) -> Supernet:
    """Train a supernet, by default with the sandwich rule and in-place distillation.

    Args:
        net: the supernet; trained in place.
        data: the data; archs that choose an input size get the images resized, once a size and step.
        run: run folder; the same call again goes on where it stopped.
        task: label loss and metric; default ``Classification(smoothing=0.1)``.
        teacher: a teacher, a list of teachers or a TargetSource, used when ``teacher_weight`` is above 0.
        teacher_weight: share of the label loss that it takes over, 0 to 1; with a largest in every step, of
            the largest's.
        rule: which subnets a step trains, and what they learn from.
            ``sandwich``: largest, smallest and random ones; the largest learns from labels, the others from it.
            ``bestup``, ``worstup``: the same, each random one the best or worst of some of equal MACs.
            ``shrinking``: the largest first, then more and more choices, with labels and the full network's
            logits. Build the supernet with ``kernel_transform=True`` to have all of OFA.
            ``uniform``: one random subnet with labels. ``fair``: several that use every choice equally often.
        epochs: passes over the training images.
        batch_size: images a step, of all processes together.
        lr: peak learning rate of SGD; later phases of ``shrinking`` have the published share of it.
        momentum: Nesterov momentum.
        weight_decay: decay of weights; norms and biases are not decayed.
        warmup_epochs: epochs of linear warm-up.
        schedule: ``cosine`` or ``exponential``, for each phase.
        final_lr: share of the peak at which the rate ends.
        random_subnets: random subnets a step (of ``sandwich``, ``bestup`` and ``worstup`` besides the largest
            and the smallest); None is the rule's own: 2 for these, 1 for ``uniform``, one a choice of a layer
            and at most 4 for ``fair``, the published 1, 2 and 4 by phase for ``shrinking``.
        order: ``smallest_second`` or ``smallest_last`` among the subnets of a sandwich.
        candidates: archs that each random subnet of ``bestup`` and ``worstup`` is chosen from.
        kd_ratio: weight of the soft loss beside the labels in ``shrinking``.
        full_teacher: what teaches in ``shrinking``: ``frozen``, the largest as it is after the first phase, in
            evaluation mode with calibrated norms, or ``inplace``, the largest of every step.
        divergence: soft loss: ``alpha``, ``kl``, ``reverse_kl`` or ``js``; None is ``alpha``, and ``kl`` for
            ``shrinking``, as published.
        alpha: a fixed order of the alpha-divergence; None is AlphaNet's adaptive pair of -1 and 1.
        choose: which values that pair compares, ``clipped`` or ``unclipped``.
        reduction: ``sum`` or ``mean`` of the subnets' losses.
        dropout: dropout of the subnets that learn from labels.
        drop_path: their stochastic depth.
        ema: decay of the weights' moving average, 0 for none.
        clip_grad: clip every gradient entry to this magnitude, 0 for none.
        accumulate: parts that a process's images of a step are cut into, to need less memory.
        compile: run the largest and the smallest through torch.compile; gradients agree up to rounding.
        seed: seed of order, augmentation and archs.
        runtime: device and precision; default: what the machine has.
        inputs: more facts that determine the result, for the run's record.

    Returns:
        ``net``.

    Raises:
        SettingError: a setting is out of range, or the run was made with others.

    Source: BigNAS (Yu et al. 2020), AlphaNet and AttentiveNAS (Wang et al. 2021), OFA (Cai et al. 2020),
        SPOS (Guo et al. 2019), FairNAS (Chu et al. 2019).
    """
    task = task or Classification(smoothing=0.1)
    if divergence is None:
        divergence = "kl" if rule == "shrinking" else "alpha"
    settings = {
        "rule": rule,
        "epochs": epochs,
        "batch_size": batch_size,
        "lr": lr,
        "momentum": momentum,
        "weight_decay": weight_decay,
        "warmup_epochs": warmup_epochs,
        "schedule": schedule,
        "final_lr": final_lr,
        "random_subnets": random_subnets,
        "order": order,
        "candidates": candidates,
        "kd_ratio": kd_ratio,
        "full_teacher": full_teacher,
        "divergence": divergence,
        "alpha": alpha,
        "choose": choose,
        "reduction": reduction,
        "teacher_weight": teacher_weight,
        "dropout": dropout,
        "drop_path": drop_path,
        "ema": ema,
        "clip_grad": clip_grad,
        "accumulate": accumulate,
        "compile": compile,
        "kernel_transform": net.kernel_transform,
    } | dict(task.facts)
    check_supernet(SimpleNamespace(**{"smoothing": 0.0} | settings))  # a task may have none
    runtime = runtime or Runtime()
    check_epochs("supernet", epochs, batch_size, data.train, accumulate, runtime.world)
    net.check_data(data.in_chans, data.num_classes)
    if not net.space.resolutions:
        net.space.check_resolution(data.resolution)
    source = as_targets(teacher)
    if teacher_weight > 0.0 and source is None:
        raise SettingError("supernet.teacher_weight", teacher_weight, "0 without a teacher", "pass teacher=")
    if source is not None:
        source.bind(data, epochs if teacher_weight > 0.0 else 0)
    source = source if teacher_weight > 0.0 else None
    made = make_rule(
        rule,
        net,
        seed=seed,
        epochs=epochs,
        steps=data.train.steps(batch_size),
        warmup_epochs=warmup_epochs,
        resolution=data.resolution,
        random_subnets=random_subnets,
        order=order,
        teacher_weight=teacher_weight,
        candidates=candidates,
        kd_ratio=kd_ratio,
        full_teacher=full_teacher,
    )
    plan = made.rates(Schedule(lr, warmup_epochs, schedule, final_lr))
    run = Run.of(run) if runtime.rank == 0 else None  # the first process alone keeps files
    stage = None
    if run is not None:
        facts: dict[str, Any] = {"space": net.space.hash, "data": data.fingerprint, "seed": seed}
        facts |= {"start": weights_hash(net), "precision": runtime.precision}
        facts |= data.augmentation | (inputs or {})
        if source is not None:
            facts["teacher"] = source.fingerprint
        stage = run.stage("supernet", facts | {f"supernet.{key}": value for key, value in settings.items()})
        if stage.done:
            load_weights(net, stage.folder / "weights.safetensors", stage.facts.get("fingerprint"))
    done = stage is not None and stage.done
    if runtime.world > 1 and (done := broadcast(done)):
        net.load_state_dict(broadcast({name: value.cpu() for name, value in net.state_dict().items()}))
    if done:
        return net
    data = data.to(runtime.device)
    place(net, runtime).train()
    optimizer = sgd([net], momentum=momentum, weight_decay=weight_decay)
    soft_loss = divergence_of(divergence, choose, alpha)
    forward = compiled_forward(net) if compile else subnet_forward(net)
    shrinking = made if isinstance(made, Shrinking) else None
    full = FullNet(net) if shrinking is not None and shrinking.frozen else None
    taught: dict[tuple[int, int], list[tuple[Arch, Tensor]]] = {}  # epoch and step -> losses, since the last look

    def step(batch: Batch, moment: Moment) -> dict[str, Tensor]:
        images = Images(batch.x)

        @torch.no_grad()
        def score(archs: Sequence[Arch]) -> Tensor:
            with runtime.autocast():
                losses = [task.loss(net(images.at(arch.resolution), arch), batch.y) for arch in archs]
            return mean_over_ranks(torch.stack(losses)) if runtime.world > 1 else torch.stack(losses)

        lessons = made.lessons(moment, score)
        if runtime.world > 1:
            check_same("archs", ",".join(lesson.arch.key for lesson in lessons))
        target: Tensor | None = None
        if any(lesson.soft > 0.0 and not lesson.inplace for lesson in lessons):
            if full is not None and shrinking is not None and shrinking.phase(moment.epoch).start > 0:
                with runtime.autocast():
                    target = full(batch.x)
            elif source is not None:
                target = source.logits(batch)
        losses = teach(
            net,
            images,
            batch.y,
            lessons,
            task=task,
            divergence=soft_loss,
            target=target,
            reduction=reduction,
            dropout=dropout,
            drop_path=drop_path,
            autocast=runtime.autocast(),
            forward=forward,
        )
        now = moment.epoch, moment.step
        if moment.step % LOOK_EVERY == 0 and now not in taught:
            taught.clear()
        taught.setdefault(now, []).extend(zip((lesson.arch for lesson in lessons), losses, strict=True))
        return summary(losses, reduction, made.has_largest)

    def describe(moment: Moment) -> str:
        pairs = taught[moment.epoch, moment.step]
        bad = [arch for arch, loss in pairs if not loss.isfinite()]
        named = dict.fromkeys(bad or [arch for arch, _ in pairs])  # all when the loss was another process's
        return "archs " + "; ".join(f"{arch.key} {arch.label}" for arch in named)

    def after_epoch(done: int) -> None:
        if shrinking is None or (number := shrinking.starting(done)) is None:
            return
        if full is not None and number == 1:
            full.take(net, calibrated(net, [full.arch], data)[0])
        if shrinking.phases[number].sorts:
            sort_channels(net, shrinking.phases[number - 1].space)
        optimizer.state.clear()  # a phase is a training of its own, and moments would not follow the channels

    def evaluate() -> dict[str, float]:
        ends = [net.space.largest(), net.space.smallest()]
        return dict(zip(("accuracy_largest", "accuracy_smallest"), evaluate_archs(net, ends, data, task), strict=True))

    fit(
        step,
        name="supernet",
        modules={"net": net} | ({} if full is None else {"full": full}),
        split=data.train,
        schedule=plan,
        batch_size=batch_size,
        optimizer=optimizer,
        epochs=epochs,
        seed=seed,
        runtime=runtime,
        stage=stage,
        evaluate=evaluate,
        clip=clip_grad,
        ema=ema,
        after_epoch=after_epoch,
        accumulate=accumulate,
        describe=describe,
    )
    if stage is not None:
        save_weights(net, stage.folder / "weights.safetensors")
        stage.finish({"epochs": epochs, "fingerprint": weights_hash(net)})
    return net
