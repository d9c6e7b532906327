"""`retrain`: train one network with distillation and save it as a student folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from nas_kd.config.keywords import takes
from nas_kd.config.kinds import checked
from nas_kd.data import Data
from nas_kd.distill import Distiller, Method, Task, form_of, task_of
from nas_kd.distill.texts import check_for_texts
from nas_kd.errors import SettingError
from nas_kd.export import load_student, save_student
from nas_kd.export.about import Student, as_student
from nas_kd.export.handover import factory_of, student_info
from nas_kd.export.text import save_text_student
from nas_kd.nn import StaticNet, resized
from nas_kd.runs.log import timed
from nas_kd.runs.run import Run
from nas_kd.runtime.device import Runtime
from nas_kd.runtime.seeds import alone
from nas_kd.space import Arch, ElasticSpace
from nas_kd.supernet import Supernet
from nas_kd.teacher import TargetSource
from nas_kd.teacher.prepare import prepared
from nas_kd.teacher.sources import TeacherLike, as_targets
from nas_kd.train.assistants import train_intermediate
from nas_kd.train.config import GROWS, RetrainConfig, RetrainSettings
from nas_kd.train.disagreements import DISAGREEMENTS, disagreements
from nas_kd.train.measured import by_image, by_output, measure
from nas_kd.train.mixing import check_mixing
from nas_kd.train.network import train_network
from nas_kd.train.optim import check_optimizer
from nas_kd.train.plan import check_epochs
from nas_kd.train.start import starting_network
from nas_kd.train.weights import check_hash, weights_hash

if TYPE_CHECKING:
    from typing_extensions import Unpack

NAMED = 50  # classes, or labels, whose own measures are metrics of a student; a file of the stage has those of all
OF_THE_COMMAND = (*GROWS, "init", "band", "ensemble")


@takes(RetrainConfig)
@checked
@alone
def retrain(
    model: nn.Module | Arch,
    teacher: TeacherLike,
    data: Data,
    config: RetrainConfig | None = None,
    *,
    space: ElasticSpace | None = None,
    supernet: Supernet | str | Path | None = None,
    run: Run | str | Path | None = None,
    folder: str | None = None,
    factory: str | tuple[str, Mapping[str, Any]] | None = None,
    task: Task | None = None,
    assistants: Sequence[nn.Module | Arch] = (),
    unlabelled: Data | None = None,
    seed: int = 0,
    runtime: Runtime | None = None,
    **settings: Unpack[RetrainSettings],
) -> Student:
    """Train a network with distillation and save it as a student folder.

    Args:
        model: any module (trained in place from its weights), or an arch of ``space`` (new weights).
        teacher: a teacher, a list of teachers, any other source of targets, or None with ``ce``.
        data: ``test`` is read once, after the last epoch, and only if the settings say so.
        config: the settings, of which seeds, init, rivals, random_students and band are for
            ``nas-kd retrain``; keywords replace some of them.
        space: the space of the arch.
        supernet: start an arch from these shared weights instead of new ones, or from a .safetensors file of its own,
            such as `repair_student` leaves in a run.
        run: run folder.
        folder: stage folder in the run, for the student too; default ``retrain/NAME/seed_N``, where NAME is
            the key of the arch or the class of the module.
        factory: ``package.module:callable`` that rebuilds a module outside a space, optionally with its keyword
            arguments: ``("package.module:callable", {"width": 8})``.
        task: label loss, metric, agreement; None is that of the data.
        assistants: networks between teacher and student, largest first, which are trained one after the
            other with the same method and settings, and then teach (``takd``).
        unlabelled: data whose training images are added to every batch without their labels; the method may use
            labels only in ``ce``.
        seed: seed of weights, order and augmentation.
        runtime: device and precision.

    Returns:
        The trained network in evaluation mode with ``.info``.

    Raises:
        SettingError: a setting is out of range, or the run used other settings.
    """
    source = as_targets(teacher)
    inherits = supernet is not None and space is not None and space.pretrained
    config = RetrainConfig.of(config, settings)
    config = config.settled(
        taught=source is not None,
        inherited=inherits,
        texts=data.tokens is not None,
    )
    method = config.method
    assert method is not None  # it is settled
    runtime = runtime or Runtime()
    task = task or task_of(data)
    run = Run.of(run)
    config = config.fitted(len(data.train), runtime.world)
    check_epochs("retrain", config.epochs, config.batch_size, data.train)
    distiller = checked_method(method, task, data.num_classes, config.method_settings)
    if data.tokens is not None:
        check_for_texts(distiller.recipe, config.mixes)
    check_optimizer("retrain.optimizer", str(config.optimizer))
    check_mixing(config, distiller.recipe, runtime.world, unlabelled is not None, task.kind)
    check_members(source, task)
    arch = model if isinstance(model, Arch) else None
    if isinstance(model, Arch):
        if space is None:
            raise SettingError("space", None, "the space of the arch", "pass space=result.space")
        network: nn.Module = starting_network(model, space, data, seed, supernet)
    else:
        network = model
    named, arguments = factory if isinstance(factory, tuple) else (factory, None)
    named, arguments = factory_of(network, data, named, arguments, needed=run is not None)
    name = arch.key if arch is not None else type(network).__name__
    folder = folder or f"retrain/{name}/seed_{seed}"
    needs_teacher = distiller.recipe.needs_teacher
    if needs_teacher and source is None:
        raise SettingError("teacher", None, "a teacher for this method", "pass teacher= or method='ce'")
    generations = distiller.recipe.generations
    if method == "takd" and not assistants:
        expected = "networks between teacher and student, for method='takd'"
        raise SettingError("assistants", list(assistants), expected, "pass assistants=[...], or use kd")
    if assistants or generations > 1:
        source = train_intermediate(
            retrain,
            model,
            source,
            data,
            replace(config, method=replace(distiller.recipe, generations=1), method_settings={}, test=False),
            assistants=assistants,
            generations=generations,
            folder=folder,
            seed=seed,
            supernet=supernet,
            others={
                "space": space,
                "run": run,
                "factory": factory,
                "task": task,
                "unlabelled": unlabelled,
                "runtime": runtime,
            },
        )
    if source is not None:  # also if only the agreement is measured
        unseen = distiller.recipe.unseen(mixed=config.mixes, unlabelled=unlabelled is not None)
        features = distiller.recipe.needs_target_features
        needs: dict[str, Any] = (
            {"epochs": config.epochs, "features": features, "unseen": unseen} if needs_teacher else {}
        )
        source = prepared(source, data, run, **needs)
    stage = None
    if run is not None:
        facts: dict[str, Any] = {
            "network": name,
            "start": weights_hash(network, measured=False),
            "data": data.fingerprint,
            "seed": seed,
            "teacher": source.fingerprint if needs_teacher and source is not None else None,
            "precision": runtime.precision,
        }
        facts |= config.record(*OF_THE_COMMAND) | {
            "retrain.method": method if isinstance(method, str) else repr(method)
        }
        if form := form_of(method, config.method_settings):
            facts["retrain.method_form"] = form
        facts |= data.augmentation | {f"retrain.{name}": value for name, value in task.facts.items()}
        facts |= {} if unlabelled is None else {"unlabelled": unlabelled.fingerprint}
        stage = run.stage(folder, facts)
        if stage.done:
            own = network.kinds.values() if isinstance(network, StaticNet) else ()
            made = load_student(stage.folder / "student", factory=named, blocks=own)
            check_hash(made, stage.folder / "student" / "weights.safetensors", stage.facts.get("fingerprint"))
            return made
    size = arch.resolution if arch is not None else None
    trained = resized(network, size)
    train_network(
        trained,
        data,
        config,
        distiller=distiller,
        source=source if needs_teacher else None,
        stage=stage,
        name="retrain",
        seed=seed,
        runtime=runtime,
        teacher_logits=None if source is None else source.split_logits("rate", data),
        unlabelled=unlabelled,
    )
    trained.eval()
    metrics: dict[str, float] = {}
    splits = ("select", "test") if config.test else ("select",)
    for split in splits:
        logits = None if source is None else source.split_logits(split, data)
        with timed(run, folder, "measuring"):
            found, answered = measure(trained, getattr(data, split), task, runtime, logits)
        each = by_output(task, answered, getattr(data, split), data.classes)
        found |= each.main if len(data.classes) <= NAMED else {}
        metrics |= {f"{split}_{what}": value for what, value in found.items()}
        if stage is not None:  # one row per image, in the order of data.csv: networks are compared image by image
            stage.write_frame(f"{split}.csv", by_image(task, answered, getattr(data, split)))
            stage.write_frame(f"{split}_classes.csv", each.table)
            if split == "test" and logits is not None and len(rows := disagreements(task, data, answered, logits)):
                stage.write_frame(DISAGREEMENTS, rows)
    info = student_info(network, data, arch=arch, metrics=metrics, factory=named, factory_kwargs=arguments)
    info["made"] = {
        "teacher": _names_of(source),
        "method": method if isinstance(method, str) else "a recipe of one's own",
        "epochs": config.epochs,
        "seed": seed,
        "data": data.fingerprint,
        "train_images": len(data.train),
        "images": {split: len(getattr(data, split)) for split in splits},
    }
    student = as_student(network, info)
    if stage is not None:
        save_student(network, stage.folder / "student", info=info)
        if data.tokens is not None:
            why = save_text_student(network, stage.folder / "student", data.tokens.tokenizer, data.classes)
            if why is not None:
                stage.run.log_message(f"{folder}: no folder for transformers: {why}; load_student opens the student")
        facts = {"network": name, "seed": seed, "params": info["params"], "fingerprint": weights_hash(network)}
        stage.finish(metrics | facts)
        stage.forget()
    return student


def _names_of(source: TargetSource | None) -> str | None:
    """Return the names of what teaches, for the card of a student; None where nothing does, or it has none."""
    names = [str(member.name) for member in source.members if hasattr(member, "name")] if source is not None else []
    return ", ".join(names) or None


def check_members(source: TargetSource | None, task: Task) -> None:
    """Refuse several teachers where labels are no classes: what they average is the probabilities of classes."""
    if source is not None and len(source.members) > 1 and task.kind != "classes":
        expected = f"one teacher with {task.kind} labels: several are averaged as probabilities of classes"
        raise SettingError("teacher", len(source.members), expected, "pass one of them")


def checked_method(method: Method, task: Task, classes: int, settings: Mapping[str, Any] | None = None) -> Distiller:
    """Return the loss of a method, checked against the number of classes.

    Args:
        method: name, list or recipe.
        settings: settings of a named method, or None.

    Raises:
        SettingError: the method is unknown, or standardises the logits of two classes, which are then constant.
    """
    distiller = Distiller(method, task, **(settings or {}))
    names = {term.name for term in distiller.recipe.terms}
    for name in sorted(names):
        if classes == 2 and name.endswith("_ls"):
            expected = "a method for two classes: two standardised logits are always +1 and -1"
            raise SettingError("retrain.method", name, expected, "use retrain.method=kd")
    return distiller
