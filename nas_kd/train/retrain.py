"""The verb retrain: train one network with distillation and hand it over as a student folder."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from nas_kd.data import Data
from nas_kd.distill import Classification, Distiller, LiveTeacher, Method, TargetSource, target_source
from nas_kd.errors import SettingError
from nas_kd.export import load_student, save_student
from nas_kd.export.handover import factory_of, student_info
from nas_kd.nn import StaticNet, resized
from nas_kd.runs.progress import Progress
from nas_kd.runs.run import Run
from nas_kd.runtime.device import Runtime
from nas_kd.runtime.seeds import seeded
from nas_kd.space import Arch, ElasticSpace
from nas_kd.supernet import Supernet
from nas_kd.teacher import Teacher, ViewCache
from nas_kd.teacher.answers import answers_bytes, cache_path
from nas_kd.teacher.bind import bind_all
from nas_kd.train.assistants import taught_in_between
from nas_kd.train.loop import check_epochs
from nas_kd.train.manner import Manner
from nas_kd.train.network import measure, train_network
from nas_kd.train.weights import check_hash, weights_hash

_log = logging.getLogger(__name__)
Teachers = Teacher | ViewCache | TargetSource | Sequence[Teacher | ViewCache | TargetSource] | None


def retrain(
    model: nn.Module | Arch,
    teacher: Teachers,
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
    task: Classification | None = None,
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
        teacher: a teacher, a cache of its views, a list of these, any other source of targets, or None with
            ``ce``.
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
    if needs_teacher and teacher is None:
        raise SettingError("teacher", None, "a teacher for this method", "pass teacher= or method='ce'")
    generations = distiller.recipe.generations
    if method == "takd" and not assistants:
        legal = "networks between teacher and student, for method='takd'"
        raise SettingError("assistants", list(assistants), legal, "pass assistants=[...], or use kd")
    if assistants or generations > 1:
        name = key or (arch.key if arch is not None else type(network).__name__)
        teacher = taught_in_between(
            retrain,
            model,
            teacher,
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
    if manner.mixes and needs_teacher:
        teacher = live(teacher, run)
    asked = epochs if needs_teacher and not manner.mixes else 0
    bind_all(teacher, data, asked)
    features = distiller.recipe.needs_target_features and needs_teacher
    if isinstance(teacher, Teacher) and not (features or distiller.recipe.live or unlabelled or manner.mixes):
        teacher = stored_answers(teacher, data, run, epochs=asked)
    source = target_source(teacher, features=features) if needs_teacher else None
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
            "smoothing": task.smoothing,
            "test": test,
        } | manner.chosen
        facts: dict[str, Any] = {
            "network": key,
            "start": weights_hash(network),
            "data": data.fingerprint,
            "seed": seed,
            "teacher": fingerprint(source) if needs_teacher else None,
            "precision": runtime.precision,
        }
        facts |= {f"retrain.{name}": value for name, value in settings.items()}
        facts |= {f"retrain.method.{name}": value for name, value in (method_settings or {}).items()}
        facts |= data.augmentation | dict(inputs or {})
        facts |= {} if unlabelled is None else {"unlabelled": unlabelled.fingerprint}
        stage = run.stage(folder or f"retrain/{key}/seed_{seed}", facts)
        if stage.done:
            student = load_student(stage.folder / "student", factory=factory)
            check_hash(student, stage.folder / "student" / "weights.safetensors", stage.facts.get("fingerprint"))
            return student
    size = arch.resolution if arch is not None else None
    trainee = resized(network, size) if isinstance(network, StaticNet) else network
    train_network(
        trainee,
        data,
        distiller=distiller,
        source=source,
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
        teacher_logits=teacher_logits(teacher, "rate", data, runtime),
        unlabelled=unlabelled,
        manner=manner,
    )
    trainee.eval()
    metrics: dict[str, float] = {}
    for name in ("select", "test") if test else ("select",):
        logits = teacher_logits(teacher, name, data, runtime)
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


def checked_method(
    method: Method, task: Classification, classes: int, settings: Mapping[str, Any] | None = None
) -> Distiller:
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


def stored_answers(
    teacher: Teacher | ViewCache, data: Data, run: Run | None, *, epochs: int = 0, folder: str | Path | None = None
) -> Teacher | ViewCache:
    """Return a teacher's answers on every view, computed once for all trainings; else the teacher itself.

    Args:
        teacher: the teacher, or its cache.
        data: the data.
        run: keeps the answers in ``teacher/cache``; None keeps nothing, so the teacher answers live.
        epochs: epochs whose answers are computed now, as processes without the teacher need; the others are
            computed when a training first asks for them.
        folder: keeps the answers instead, for several runs.

    Returns:
        The cache, or the teacher where the augmentation has no views that can be numbered.
    """
    if isinstance(teacher, ViewCache):
        teacher.bind(data, epochs)
        todo = 0 if data.train.views is None else teacher.missing(data.train.views, epochs)
        if todo:
            with Progress("teacher's answers", todo, unit="images", run=run) as progress:
                teacher.fill(epochs, progress)
        return teacher
    teacher.bind(data)
    if run is None:
        return teacher
    if data.train.views is None:
        run.say("the teacher answers live: this augmentation has no fixed views to cache")
        return teacher
    folder = Path(folder or run.path / "teacher" / "cache").expanduser()
    if not cache_path(folder, teacher, data).is_dir():
        size = f"{answers_bytes(data) / 1e6:,.1f} MB"
        run.say(f"teacher's answers: {len(data.train.views)} views of {len(data.train):,} images, {size} in {folder}")
    todo = ViewCache.todo(folder, teacher, data, epochs)
    with Progress("teacher's answers", todo, unit="images", run=run) as progress:
        return ViewCache.open(folder, teacher, data, epochs=epochs, progress=progress)


def live(teacher: Any, run: Run | None) -> Any:
    """Return what runs in the place of stored answers, and say so: mixed images are in no cache.

    Args:
        teacher: a teacher, a cache, a list of these, or any other source.
        run: the run, whose log is told; None tells Python's.

    Returns:
        The same with the teacher behind each cache.

    Raises:
        SettingError: a cache was opened without its teacher.
    """
    each = list(teacher) if isinstance(teacher, list | tuple) else [teacher]
    if run is not None or any(isinstance(item, ViewCache) for item in each):
        (_log.warning if run is None else run.say)("the teacher answers live: mixed images are in no cache")
    for place, item in enumerate(each):
        if isinstance(item, ViewCache):
            if item.teacher is None:
                legal = "0 with stored answers alone, which know no mixed images"
                raise SettingError("retrain.mixup", "on", legal, "pass the teacher itself")
            each[place] = item.teacher
    return each if isinstance(teacher, list | tuple) else each[0]


def fingerprint(teacher: object) -> str:
    """Name a source of targets for the run's record: its own fingerprint, else its type."""
    return str(getattr(teacher, "fingerprint", type(teacher).__name__))


def teacher_logits(teacher: object, split: str, data: Data, runtime: Runtime) -> Tensor | None:
    """Return a teacher's (N, C) logits on a whole split, or None when the source cannot give them."""
    if isinstance(teacher, ViewCache):
        return teacher.split_logits(split)
    if isinstance(teacher, list | tuple):  # the mean of their probabilities, as TeacherEnsemble gives
        each = [teacher_logits(item, split, data, runtime) for item in teacher]
        known = [logits.log_softmax(1) for logits in each if logits is not None]
        return torch.logsumexp(torch.stack(known), 0) if known and len(known) == len(each) else None
    if isinstance(teacher, LiveTeacher):
        teacher = teacher.teacher
    if isinstance(teacher, Teacher):
        return torch.cat([teacher(batch.x).float().cpu() for batch in getattr(data, split).clean(512)])
    return None
