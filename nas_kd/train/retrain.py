"""The verb retrain: train one network with distillation and hand it over as a student folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
from torch import nn

from nas_kd.data import Data
from nas_kd.distill import Classification, Distiller, Method, Task
from nas_kd.errors import SettingError
from nas_kd.export import load_student, save_student
from nas_kd.export.handover import factory_of, student_info
from nas_kd.nn import StaticNet, resized
from nas_kd.runs.run import Run
from nas_kd.runtime.device import Runtime
from nas_kd.runtime.seeds import seeded
from nas_kd.space import Arch, ElasticSpace
from nas_kd.supernet import Supernet
from nas_kd.teacher.as_targets import Teaches, as_targets
from nas_kd.teacher.prepare import prepared
from nas_kd.train.assistants import taught_in_between
from nas_kd.train.loop import check_epochs
from nas_kd.train.manner import Manner
from nas_kd.train.network import measure, train_network
from nas_kd.train.weights import check_hash, weights_hash


def retrain(
    model: nn.Module | Arch,
    teacher: Teaches,
    data: Data,
    *,
    space: ElasticSpace | None = None,
    supernet: Supernet | None = None,
    run: Run | str | Path | None = None,
    method: Method = "kd_ls",
    method_settings: Mapping[str, Any] | None = None,
    seed: int = 0,
    epochs: int = 30,
    batch_size: int = 128,
    lr: float = 0.1,
    momentum: float = 0.9,
    weight_decay: float = 5e-4,
    warmup_epochs: float = 1.0,
    clip_grad: float = 0.0,
    test: bool = True,
    key: str | None = None,
    folder: str | None = None,
    factory: str | None = None,
    factory_kwargs: Mapping[str, Any] | None = None,
    runtime: Runtime | None = None,
    task: Task | None = None,
    inputs: Mapping[str, Any] | None = None,
    assistants: Sequence[nn.Module | Arch] = (),
    unlabelled: Data | None = None,
    optimizer: str = "sgd",
    schedule: str = "cosine",
    milestones: Sequence[float] | None = None,
    factor: float = 0.1,
    ema: float = 0.0,
    mixup: float = 0.0,
    cutmix: float = 0.0,
) -> nn.Module:
    """Train a network with distillation and save it as a student folder.

    Args:
        model: any module (trained in place from its weights), or an arch of ``space`` (new weights).
        teacher: a teacher, a list of teachers, any other source of targets, or None with ``ce``.
        data: the data; ``test`` is read once, after the last epoch, and only when ``test=True``.
        space: the space of the arch.
        supernet: start an arch from these shared weights instead of new ones.
        run: run folder; the student goes to ``retrain/KEY/seed_N/student`` in it.
        method: name of a method, list of (name, weight), or a recipe.
        method_settings: settings of a named method, such as ``{"temperature": 4.0}``.
        seed: seed of weights, order and augmentation.
        epochs: passes over the training images.
        batch_size: images a step.
        lr: peak learning rate.
        momentum: momentum, of optimisers that have one.
        weight_decay: decay of weights; norms and biases are not decayed.
        warmup_epochs: epochs of linear warm-up.
        clip_grad: clip every gradient entry to this magnitude, 0 for none.
        test: whether to measure the test split at the end.
        key: name of the network in the run; default: the arch's key, or a hash of the weights.
        folder: stage folder in the run instead of ``retrain/KEY/seed_N``.
        factory: ``package.module:callable`` that rebuilds a module that is not of a space.
        factory_kwargs: its keyword arguments.
        runtime: device and precision.
        task: label loss, metric, agreement; default ``Classification()``.
        inputs: more facts that determine the result, for the run's record.
        assistants: networks between teacher and student, the largest first, which are trained one after the
            other by the same method and settings, and then teach (``takd``).
        unlabelled: data whose training images join every batch without their labels; the method may use
            labels in ``ce`` alone.
        optimizer: ``sgd`` (Nesterov momentum), or the name of one of timm's, such as ``adamw`` or ``lamb``.
        schedule: ``cosine`` to zero or ``step``.
        milestones: epochs after which ``step`` lowers the rate; None is 5/8, 3/4 and 7/8 of all.
        factor: what it multiplies the rate by.
        ema: decay of an average of the weights that takes their place in the end, 0 for none.
        mixup: parameter of mixup's beta distribution, 0 for none; the teacher then runs live, and the method may
            use labels in ``ce`` alone.
        cutmix: likewise of CutMix.

    Returns:
        The trained network in evaluation mode with ``.info``.

    Raises:
        SettingError: a setting is out of range, or the run was made with others.
    """
    source = as_targets(teacher)
    runtime = runtime or Runtime()
    task = task or Classification(smoothing=0.0)
    run = Run.of(run)
    check_epochs("retrain", epochs, batch_size, data.train)
    distiller = checked_method(method, task, data.num_classes, method_settings)
    manner = Manner(optimizer, schedule, milestones, factor, ema, mixup, cutmix)
    manner.check(
        "retrain",
        distiller.recipe,
        epochs=epochs,
        batch_size=batch_size // runtime.world,
        unlabelled=unlabelled is not None,
    )
    arch = model if isinstance(model, Arch) else None
    if isinstance(model, Arch):
        if space is None:
            raise SettingError("space", None, "the space of the arch", "pass space=result.space")
        seeded(seed, "init", model.key)
        network: nn.Module = space.build(model, data.num_classes, data.in_chans)
        if supernet is not None:
            network = supernet.extract(model)
    else:
        network = model
        factory, factory_kwargs = factory_of(network, data, factory, factory_kwargs, needed=run is not None)
    needs_teacher = distiller.recipe.needs_teacher
    if needs_teacher and source is None:
        raise SettingError("teacher", None, "a teacher for this method", "pass teacher= or method='ce'")
    generations = distiller.recipe.generations
    if method == "takd" and not assistants:
        legal = "networks between teacher and student, for method='takd'"
        raise SettingError("assistants", list(assistants), legal, "pass assistants=[...], or use kd")
    if assistants or generations > 1:
        name = key or (arch.key if arch is not None else type(network).__name__)
        source = taught_in_between(
            retrain,
            model,
            source,
            data,
            assistants=assistants,
            generations=generations,
            seed=seed,
            folder=folder or f"retrain/{name}/seed_{seed}",
            supernet=supernet,
            settings={
                "space": space,
                "run": run,
                "method": replace(distiller.recipe, generations=1),
                "epochs": epochs,
                "batch_size": batch_size,
                "lr": lr,
                "momentum": momentum,
                "weight_decay": weight_decay,
                "warmup_epochs": warmup_epochs,
                "clip_grad": clip_grad,
                "factory": factory,
                "factory_kwargs": factory_kwargs,
                "runtime": runtime,
                "task": task,
                "unlabelled": unlabelled,
            }
            | manner.chosen,
        )
    if source is not None:  # without a need it only measures the agreement
        unseen = distiller.recipe.unseen(mixed=manner.mixes, unlabelled=unlabelled is not None)
        features = distiller.recipe.needs_target_features
        wanted: dict[str, Any] = {"epochs": epochs, "features": features, "unseen": unseen} if needs_teacher else {}
        source = prepared(source, data, run, **wanted)
    stage = None
    if run is not None:
        key = key or (arch.key if arch is not None else type(network).__name__)
        settings = {
            "method": repr(method) if not isinstance(method, str) else method,
            "epochs": epochs,
            "batch_size": batch_size,
            "lr": lr,
            "momentum": momentum,
            "weight_decay": weight_decay,
            "warmup_epochs": warmup_epochs,
            "clip_grad": clip_grad,
            "test": test,
        }
        settings |= dict(task.facts) | manner.chosen
        facts: dict[str, Any] = {
            "network": key,
            "start": weights_hash(network),
            "data": data.fingerprint,
            "seed": seed,
            "teacher": source.fingerprint if needs_teacher and source is not None else None,
            "precision": runtime.precision,
        }
        facts |= {f"retrain.{name}": value for name, value in settings.items()}
        facts |= {f"retrain.method.{name}": value for name, value in (method_settings or {}).items()}
        facts |= data.augmentation | dict(inputs or {})
        facts |= {} if unlabelled is None else {"unlabelled": unlabelled.fingerprint}
        stage = run.stage(folder or f"retrain/{key}/seed_{seed}", facts)
        if stage.done:
            own = network.kinds.values() if isinstance(network, StaticNet) else ()
            student = load_student(stage.folder / "student", factory=factory, blocks=own)
            check_hash(student, stage.folder / "student" / "weights.safetensors", stage.facts.get("fingerprint"))
            return student
    size = arch.resolution if arch is not None else None
    trainee = resized(network, size) if isinstance(network, StaticNet) else network
    train_network(
        trainee,
        data,
        distiller=distiller,
        source=source if needs_teacher else None,
        stage=stage,
        name="retrain",
        epochs=epochs,
        batch_size=batch_size,
        lr=lr,
        momentum=momentum,
        weight_decay=weight_decay,
        warmup_epochs=warmup_epochs,
        clip_grad=clip_grad,
        seed=seed,
        runtime=runtime,
        teacher_logits=None if source is None else source.split_logits("rate", data),
        unlabelled=unlabelled,
        manner=manner,
    )
    trainee.eval()
    metrics: dict[str, float] = {}
    for name in ("select", "test") if test else ("select",):
        logits = None if source is None else source.split_logits(name, data)
        found, scores = measure(trainee, getattr(data, name), task, runtime, logits)
        metrics |= {f"{name}_{what}": value for what, value in found.items()}
        if stage is not None:  # one row an image, in the order of data.csv: networks are compared image by image
            stage.write_frame(f"{name}.csv", pd.DataFrame({"score": scores.numpy()}))
    info = student_info(network, data, arch=arch, metrics=metrics, factory=factory, factory_kwargs=factory_kwargs)
    network.info = info  # type: ignore[assignment]
    if stage is not None:
        save_student(network, stage.folder / "student", info=info)
        facts = {"network": key, "seed": seed, "params": info["params"], "fingerprint": weights_hash(network)}
        stage.finish(metrics | facts)
        stage.forget()
    return network


def checked_method(method: Method, task: Task, classes: int, settings: Mapping[str, Any] | None = None) -> Distiller:
    """Make a method's loss and refuse what cannot teach these classes.

    Args:
        method: name, list or recipe.
        task: gives the label loss.
        classes: number of classes.
        settings: settings of a named method, or None.

    Returns:
        The loss.

    Raises:
        SettingError: the method is unknown, or standardises logits of two classes: those are always the same.
    """
    distiller = Distiller(method, task, **(settings or {}))
    names = {term.name for term in distiller.recipe.terms}
    for name in sorted(names):
        if classes == 2 and name.endswith("_ls"):
            legal = "a method that teaches two classes; two standardised logits are always +1 and -1"
            raise SettingError("retrain.method", name, legal, "use retrain.method=kd")
    return distiller
