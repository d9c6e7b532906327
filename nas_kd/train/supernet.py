"""Training of a supernet with any rule."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from nas_kd.config.keywords import takes
from nas_kd.config.kinds import checked
from nas_kd.config.measures import measure_named
from nas_kd.data import Batch, Data
from nas_kd.distill import Task, drawn, task_of
from nas_kd.errors import SettingError
from nas_kd.runs.files import atomic_json
from nas_kd.runs.log import log_message
from nas_kd.runs.run import Run
from nas_kd.runs.stage import Stage
from nas_kd.runtime.device import Runtime, place
from nas_kd.runtime.ranks import broadcast
from nas_kd.runtime.reduce import check_same, mean_over_ranks
from nas_kd.runtime.seeds import alone
from nas_kd.space import Arch
from nas_kd.space.rows import sizes_said
from nas_kd.supernet import Supernet, sort_channels
from nas_kd.teacher.sources import TeacherLike, as_targets
from nas_kd.train.attentive import WARM, Attentive
from nas_kd.train.compiled import compiled_forward
from nas_kd.train.cream import BOARD, Cream
from nas_kd.train.evaluate import calibrated, evaluate_archs
from nas_kd.train.loop import SYNC_EVERY, StepInfo, fit
from nas_kd.train.matching import EVERY
from nas_kd.train.optim import Schedule, sgd
from nas_kd.train.options import divergence_of, make_rule
from nas_kd.train.plan import Plan, check_epochs
from nas_kd.train.rules import SubnetTarget
from nas_kd.train.sandwich import Images, subnet_forward, summary, teach
from nas_kd.train.shrinking import FullNet, Shrinking
from nas_kd.train.supernet_config import SupernetConfig, SupernetSettings
from nas_kd.train.supernet_weights import check_normalisation, checkpoint_hash, load_supernet
from nas_kd.train.weights import load_weights, save_weights, weights_hash

if TYPE_CHECKING:
    from typing_extensions import Unpack


@takes(SupernetConfig)
@checked
@alone
def train_supernet(
    net: Supernet,
    data: Data,
    config: SupernetConfig | None = None,
    *,
    run: Run | str | Path | None = None,
    task: Task | None = None,
    teacher: TeacherLike = None,
    seed: int = 0,
    runtime: Runtime | None = None,
    inputs: dict[str, Any] | None = None,
    **settings: Unpack[SupernetSettings],
) -> Supernet:
    """Train a supernet, by default with the sandwich rule and in-place distillation.

    Args:
        net: the supernet, trained in place, from ``checkpoint`` if one is given. With ``rule="shrinking"`` build it
            with ``kernel_transform=True`` for all of OFA.
        data: images are resized for archs that choose an input size, once per size and step.
        config: the settings; keywords replace some of them.
        run: run folder; calling again resumes where it stopped.
        task: label loss and metric; None is that of the data, with the label smoothing in the settings.
        teacher: a teacher, a list of teachers or a TargetSource, used when ``teacher_weight`` is above 0.
        seed: seed of order, augmentation and archs.
        runtime: device and precision; default: chosen automatically.
        inputs: further facts that determine the result, recorded in the run.

    Returns:
        ``net``.

    Raises:
        SettingError: a setting is out of range, or the run used other settings.

    Source: BigNAS (Yu et al. 2020), AlphaNet and AttentiveNAS (Wang et al. 2021), OFA (Cai et al. 2020),
        SPOS (Guo et al. 2019), FairNAS (Chu et al. 2019), Cream (Peng et al. 2020).
    """
    config = SupernetConfig.of(config, settings)
    if config.kernel_transform and not net.kernel_transform:
        expected = "false for a supernet without it"
        raise SettingError("supernet.kernel_transform", True, expected, "build Supernet(space, kernel_transform=True)")
    task = task or task_of(data, smoothing=config.smoothing)
    config = replace(config, kernel_transform=net.kernel_transform)
    runtime = runtime or Runtime()
    config = config.fitted(len(data.train), config.accumulate * runtime.world)
    if config.epochs:
        check_epochs("supernet", config.epochs, config.batch_size, data.train, config.accumulate, runtime.world)
    net.check_data(data.in_chans, data.num_classes)
    if not net.space.resolutions:
        net.space.check_resolution(data.resolution)
    elif data.resolution not in net.space.resolutions and runtime.rank == 0:
        log_message(Run.of(run), sizes_said(net.space, data.resolution))
    source = as_targets(teacher)
    uses_teacher = config.teacher_weight > 0.0
    if uses_teacher and source is None:
        raise SettingError("supernet.teacher_weight", config.teacher_weight, "0 without a teacher", "pass teacher=")
    if source is not None:
        source.bind(data, config.epochs if uses_teacher else 0)
    source = source if uses_teacher else None
    steps = data.train.steps(config.batch_size)
    rule = (
        make_rule(net, config, steps=steps, resolution=data.resolution, seed=seed, task=task) if config.epochs else None
    )
    if config.checkpoint is not None:
        check_normalisation(config.checkpoint, data)
        load_supernet(net, config.checkpoint, new_classifier=config.epochs > 0)
    run = Run.of(run) if runtime.rank == 0 else None  # only the first process writes files
    stage = None
    if run is not None:
        facts: dict[str, Any] = {"space": net.space.hash, "data": data.fingerprint, "seed": seed}
        facts |= {"start": weights_hash(net), "precision": runtime.precision}
        facts |= data.augmentation | (inputs or {})
        if source is not None:
            facts["teacher"] = source.fingerprint
        if config.checkpoint is not None:  # wherever it is stored
            facts["supernet.checkpoint"] = checkpoint_hash(config.checkpoint)
        # runs recorded before these were settings lack them
        own = [] if config.rule == "cream" else ["board"]
        own += [] if config.matching == "meta" else ["matching"]
        own += [] if config.chooser == "predictor" else ["chooser"]
        facts |= config.record("checkpoint", "smoothing", *own) | {
            f"supernet.{name}": value for name, value in task.facts.items()
        }
        stage = run.stage("supernet", facts)
        if stage.done:
            load_weights(net, stage.folder / "weights.safetensors", stage.facts.get("fingerprint"))
    done = stage is not None and stage.done
    if runtime.world > 1 and (done := broadcast(done)):
        net.load_state_dict(broadcast({name: value.cpu() for name, value in net.state_dict().items()}))
    if done:
        return net
    if rule is None:
        return _finished(place(net, runtime), stage, epochs=0)
    rates = rule.rates(Schedule(config.lr, config.warmup_epochs, config.schedule, config.final_lr))
    data = data.to(runtime.device)
    place(net, runtime).train()
    optimizer = sgd([net], momentum=config.momentum, weight_decay=config.weight_decay)
    soft_loss = divergence_of(config, task)
    forward = compiled_forward(net) if config.compile else subnet_forward(net)
    shrinking = rule if isinstance(rule, Shrinking) else None
    full = FullNet(net) if shrinking is not None and shrinking.frozen else None
    cream = rule if isinstance(rule, Cream) else None
    more: dict[str, nn.Module] = {} if full is None else {"full": full}
    more |= {} if cream is None else {"board": cream.board}
    matcher = None if cream is None else cream.matcher
    more |= {} if matcher is None else {"matcher": matcher.to(runtime.device)}
    chooser = rule.chooser if isinstance(rule, Attentive) else None
    more |= {} if chooser is None else {"chooser": chooser}
    losses_of: dict[tuple[int, int], list[tuple[Arch, Tensor]]] = {}  # (epoch, step) -> losses, since the last check

    def note(info: StepInfo, subnet_targets: Sequence[SubnetTarget], losses: Sequence[Tensor]) -> None:
        now = info.epoch, info.step
        if info.step % SYNC_EVERY == 0 and now not in losses_of:
            losses_of.clear()
        losses_of.setdefault(now, []).extend(zip((subnet.arch for subnet in subnet_targets), losses, strict=True))

    def answer_to(batch: Batch) -> Callable[[Arch, slice], Tensor]:
        def answer(arch: Arch, rows: slice) -> Tensor:
            with runtime.autocast():
                return net(Images(batch.x[rows]).at(arch.resolution), arch).float()

        return answer

    def taught_by_paths(batch: Batch, images: Images, info: StepInfo) -> dict[str, Tensor]:
        assert cream is not None

        @torch.no_grad()
        def answers(archs: Sequence[Arch]) -> Tensor:
            with runtime.autocast():
                return torch.stack([net(images.at(arch.resolution), arch).float() for arch in archs])

        def quality(logits: Tensor) -> float:
            return measure_named(task.measure).sign * task.metric(logits.cpu(), batch.y.cpu())

        mean = mean_over_ranks if runtime.world > 1 else (lambda values: values)
        if matcher is not None and (info.epoch * steps + info.step) % EVERY == 0:
            parameters, rate = list(net.parameters()), float(optimizer.param_groups[0]["lr"])
            cream.lesson(info, answer_to(batch), batch.y, parameters, task.loss, soft_loss, rate, mean)
        taught = cream.taught(info, answers, quality, mean, task.divergence)
        share = 1.0 / len(taught) if config.reduction == "mean" else 1.0
        losses = [
            teach(
                net,
                images,
                batch.y,
                [subnet],
                task=task,
                divergence=soft_loss,
                target=target,
                dropout=config.dropout,
                drop_path=config.drop_path,
                autocast=runtime.autocast(),
                forward=forward,
                scale=share,
            )[0]
            for subnet, target in taught
        ]
        note(info, [subnet for subnet, _ in taught], losses)
        return summary(losses, config.reduction, rule.has_largest)

    def step(batch: Batch, info: StepInfo) -> dict[str, Tensor]:
        images = Images(batch.x)

        @torch.no_grad()
        def score(archs: Sequence[Arch]) -> Tensor:
            with runtime.autocast():
                losses = [task.loss(net(images.at(arch.resolution), arch), batch.y) for arch in archs]
            return mean_over_ranks(torch.stack(losses)) if runtime.world > 1 else torch.stack(losses)

        if cream is not None:
            return taught_by_paths(batch, images, info)
        subnet_targets = rule.subnet_targets(info, score)
        if runtime.world > 1:
            check_same("archs", ",".join(subnet.arch.key for subnet in subnet_targets))
        target: Tensor | None = None
        if any(subnet.soft > 0.0 and not subnet.inplace for subnet in subnet_targets):
            if full is not None and shrinking is not None and shrinking.phase(info.epoch).start > 0:
                with runtime.autocast():
                    target = full(batch.x)
            elif source is not None:
                target = source.logits(batch)
        losses = teach(
            net,
            images,
            batch.y,
            subnet_targets,
            task=task,
            divergence=soft_loss,
            target=target,
            reduction=config.reduction,
            dropout=config.dropout,
            drop_path=config.drop_path,
            autocast=runtime.autocast(),
            forward=forward,
        )
        note(info, subnet_targets, losses)
        return summary(losses, config.reduction, rule.has_largest)

    def describe(info: StepInfo) -> str:
        pairs = losses_of[info.epoch, info.step]
        bad = [arch for arch, loss in pairs if not loss.isfinite()]
        named = dict.fromkeys(bad or [arch for arch, _ in pairs])  # all if the loss was that of another process
        return "archs " + "; ".join(f"{arch.key} {arch.label}" for arch in named)

    def after_epoch(done: int) -> None:
        if chooser is not None and chooser.predictor is None and WARM * done >= config.epochs:
            qualities = evaluate_archs(net, chooser.archs, data, task)
            predictor = chooser.learn([measure_named(task.measure).sign * quality for quality in qualities])
            if runtime.rank == 0:
                log_message(run, predictor.words)
        if shrinking is None or (number := shrinking.starting(done)) is None:
            return
        if full is not None and number == 1:
            full.take(net, calibrated(net, [full.arch], data)[0])
        if shrinking.phases[number].sorts:
            sort_channels(net, shrinking.phases[number - 1].space)
        optimizer.state.clear()  # a phase is a separate training, and moments are not sorted with the channels

    # older runs called every measure accuracy
    older = stage is not None and "accuracy_largest" in stage.metrics.columns
    measured = "accuracy" if older else task.measure

    def evaluate() -> dict[str, float]:
        ends = [net.space.largest(), net.space.smallest()]
        names = (f"{measured}_largest", f"{measured}_smallest")
        return dict(zip(names, evaluate_archs(net, ends, data, task), strict=True))

    plan = Plan(
        schedule=rates,
        epochs=config.epochs,
        batch_size=config.batch_size,
        accumulate=config.accumulate,
        clip=config.clip_grad,
        ema=config.ema,
    )
    fit(
        step,
        plan,
        name="supernet",
        modules={"net": net} | more,
        split=drawn(data),
        optimizer=optimizer,
        seed=seed,
        runtime=runtime,
        stage=stage,
        evaluate=evaluate,
        after_epoch=after_epoch,
        describe=describe,
    )
    if stage is not None and cream is not None:
        atomic_json(stage.folder / BOARD, {"paths": cream.board.get_extra_state()})
    return _finished(net, stage, config.epochs)


def _finished(net: Supernet, stage: Stage | None, epochs: int) -> Supernet:
    """Store the weights and mark the stage done."""
    if stage is not None:
        save_weights(net, stage.folder / "weights.safetensors")
        stage.finish({"epochs": epochs, "fingerprint": weights_hash(net)})
    return net
