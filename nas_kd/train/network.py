"""Training of one network from labels and targets, and its evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from nas_kd.data import Batch, Data, Split
from nas_kd.distill import Distiller, Recipe, drawn, pair_of
from nas_kd.distill.game import Player
from nas_kd.distill.sampling import WithUnlabelled
from nas_kd.errors import SettingError
from nas_kd.nn import inputs
from nas_kd.nn.own_input import keep_input
from nas_kd.nn.unmeasured import will_be_measured
from nas_kd.runs.stage import Stage
from nas_kd.runtime.device import Runtime, place
from nas_kd.teacher import TargetSource
from nas_kd.teacher.teacher import OWN
from nas_kd.train.config import TrainingConfig
from nas_kd.train.loop import StepInfo, fit
from nas_kd.train.mixing import mixing
from nas_kd.train.optim import optimizer_of, schedule_of
from nas_kd.train.plan import Plan


@torch.no_grad()
def predict(model: nn.Module, split: Split, runtime: Runtime, batch_size: int = 512) -> Tensor:
    """Return a network's logits (N, C) on a split without augmentation, in float32 on the CPU.

    The network's mode is restored.
    """
    training = model.training
    model.eval()
    logits = []
    for batch in split.clean(batch_size):
        with runtime.autocast():
            logits.append(model(inputs.moved(batch.x, runtime.device)).float().cpu())
    model.train(training)
    return torch.cat(logits)


def train_network(
    model: nn.Module,
    data: Data,
    config: TrainingConfig,
    *,
    distiller: Distiller,
    source: TargetSource | None,
    stage: Stage | None,
    name: str,
    seed: int,
    runtime: Runtime,
    teacher_logits: Tensor | None = None,
    unlabelled: Data | None = None,
) -> None:
    """Train a network in place with any combination of distillation terms.

    Args:
        data: trained on ``train``, validated on ``rate``.
        source: where targets come from; None if the distiller only needs labels.
        stage: where metrics and checkpoints go, or None.
        name: for seeds and messages.
        seed: seed of order and augmentation.
        teacher_logits: (N, C) of the teacher on ``rate``, to measure the agreement with it.
        unlabelled: data whose training images are added to every batch without labels.

    Raises:
        SettingError: the distiller needs features that the source or the network does not have, or does not support
            several processes or skipped steps.
    """
    check_inputs(model, data)
    # a network of the user's may change its images, which others see after it in a step
    with nullcontext() if type(model) in OWN else keep_input(model):
        place(model, runtime)
        will_be_measured(model)
        image = (data.in_chans, data.resolution, data.resolution)
        classes = data.train.labels if data.kind == "classes" else None
        facts = (data.num_classes, len(data.train), seed, classes, data.tokens)
        pair = pair_of(model, distiller.recipe, source, image, *facts)
        distiller.bind(pair)
        if distiller.recipe.start is not None:  # a checkpoint, which is read later, has what came of it
            distiller.recipe.start(pair, data)
        if runtime.world > 1 and any(getattr(part, "single_process", False) for part in distiller.trained.values()):
            expected = "a method without modules that keep state in a single process"
            raise SettingError("method", sorted(distiller.trained), expected, "train on one process, or use kd")
        if runtime.on_nan == "skip" and any(isinstance(part, Player) for part in distiller.trained.modules()):
            expected = "stop with a method whose networks have their own optimisers, whose steps cannot be undone"
            raise SettingError("on_nan", "skip", expected, "use on_nan=stop")
        place(distiller.trained, runtime)
        split = sampled(distiller.recipe, data, unlabelled)
        # the method's own modules are part of checkpoints, never of a student
        modules = {"model": model} | ({"trained": distiller.trained} if len(distiller.trained) else {})

        mixed = mixing(config, data.num_classes)

        # the columns of metrics.csv are the same in all phases of a recipe: terms of other phases are 0
        zeros = {term.name: torch.zeros((), device=runtime.device) for term in distiller.recipe.terms}

        def step(batch: Batch, info: StepInfo) -> Mapping[str, Tensor]:
            return zeros | distiller.step(mixed(batch), info.progress, runtime.autocast())

        def evaluate() -> dict[str, float]:
            logits = predict(model, data.rate, runtime)
            found = {f"rate_{distiller.task.measure}": distiller.task.metric(logits, data.rate.labels)}
            if teacher_logits is not None:
                found["rate_agreement"] = distiller.task.agreement(logits, teacher_logits)
            return found

        optimizer = optimizer_of(
            config.optimizer,
            modules.values(),
            lr=config.lr,
            momentum=config.momentum,
            weight_decay=config.weight_decay,
        )
        fit(
            step,
            Plan(schedule_of(config), config.epochs, config.batch_size, clip=config.clip_grad, ema=config.ema),
            name=name,
            modules=modules,
            split=split,
            optimizer=optimizer,
            seed=seed,
            runtime=runtime,
            stage=stage,
            evaluate=evaluate,
            after_epoch=distiller.after_epoch,
        )
        pair.release()


def check_inputs(model: nn.Module, data: Data) -> None:
    """Refuse a network of texts where the data are images, and the other way round where that is known.

    Raises:
        SettingError: the network takes the other kind.
    """
    name = type(model).__name__
    if data.tokens is None and not inputs.takes_images(model):
        raise SettingError("model", name, "a network of images, as the data are", "give texts: data.tokenizer")
    of_images = hasattr(model, "pretrained_cfg") or any(type(part) in OWN for part in model.modules())
    if data.tokens is not None and of_images:
        raise SettingError("model", name, "a network of texts, as the data are", "give a folder of transformers")


def sampled(recipe: Recipe, data: Data, unlabelled: Data | None) -> Any:
    """Return the training split or the method's sampler.

    Args:
        unlabelled: data whose training images are added to every batch without labels, or None.

    Raises:
        SettingError: the method needs a label for every image, draws its own batches, or the images differ in size.
    """
    if unlabelled is None:
        if data.balance == "sampler" and recipe.sampler is not None:
            expected = "none or class_weights with a method that draws its own batches"
            raise SettingError("data.balance", "sampler", expected, "use data.balance=class_weights")
        return drawn(data) if recipe.sampler is None else recipe.sampler(data.train)
    used = [term for term in recipe.terms if not term.texts and term.name != "ce"]  # of texts a batch says the padding
    known = [term.name for term in used if term.needs & {"labels", "batch"}]
    if known or recipe.sampler is not None:
        expected = "a method that uses labels only in ce and does not draw its own batches"
        raise SettingError("unlabelled", known or "own batches", expected, "use kd, logit_mse, dist, sp, ...")
    theirs, own = ((d.in_chans, d.resolution) for d in (unlabelled, data))
    if theirs != own:
        what, setting = ("channels and pixels", "resolution") if data.tokens is None else ("1 and tokens", "length")
        raise SettingError("unlabelled", theirs, f"{own}, {what} of the data", f"set data.{setting}")
    if data.balance == "sampler":
        raise SettingError(
            "data.balance", "sampler", data.spoken("none or class_weights with unlabelled images"), "omit unlabelled"
        )
    return WithUnlabelled(data.train, unlabelled.train)
