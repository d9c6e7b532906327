"""What a user would have done without a search: the teacher cut by hand or by a library, and ready-made models."""

from __future__ import annotations

import math
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, cast

from torch import nn

from nas_kd.config.measures import measure_named
from nas_kd.derive.cost import whole_cost
from nas_kd.derive.even import EvenCut, EvenCuts
from nas_kd.derive.supernet import TeacherSupernet
from nas_kd.derive.taylor import taylor_cut
from nas_kd.errors import SettingError
from nas_kd.nn.cutting import CutPlan, cut_to
from nas_kd.pipeline.candidates import ArchStudent, ModuleStudent, Student
from nas_kd.pipeline.hub_rival import hub_rival, is_hub
from nas_kd.pipeline.ready_made import is_tree, named_rivals, of_texts, ready_made
from nas_kd.pipeline.text_rivals import OF_TEXTS
from nas_kd.pipeline.tree_rival import soft_tree
from nas_kd.runs.progress import Progress
from nas_kd.space import Cost
from nas_kd.supernet import Supernet, calibrate
from nas_kd.train.many import TrainingSetup, train_many
from nas_kd.train.repair import repair_units
from nas_kd.train.repair_student import WEIGHTS, repair_student
from nas_kd.train.weights import load_weights, save_weights, weights_hash

if TYPE_CHECKING:
    from nas_kd.pipeline.pipeline import Pipeline

SIZES = 32  # parts of the images' height that smaller ones are tried in
NONE = "none is within the budget"
IMAGES = 1024  # training images of gradients and of norms


def rivals(pipeline: Pipeline, setup: TrainingSetup) -> list[Student]:
    """Make the rivals that the settings name.

    Args:
        pipeline: the run, searched.
        setup: what trainings have in common.

    Returns:
        Those that exist within the budget; the log names the others, and why they do not.
    """
    names = named_rivals(pipeline)
    own: dict[str, Callable[[Pipeline, TrainingSetup], Student | str]] = {
        "new_weights": _new_weights,
        "even_width": lambda pipeline, _: _even("even_width", pipeline, _cuts(pipeline).width()) or NONE,
        "even_depth": lambda pipeline, _: _even("even_depth", pipeline, _cuts(pipeline).depth()) or NONE,
        "even_both": _even_both,
        "even_both_repaired": _even_both_repaired,
        "taylor": _taylor,
        "small_images": _small_images,
    }
    found: list[Student] = []
    for name in names:
        rival: Student | str
        if is_tree(name):
            rival = soft_tree(pipeline, name)
        elif is_hub(name):
            rival = hub_rival(pipeline, name)
        elif name.partition("=")[0] in OF_TEXTS:
            rival = of_texts(pipeline, name)
        else:
            rival = own[name](pipeline, setup) if name in own else ready_made(pipeline, name)
        if not isinstance(rival, str) and (latency := pipeline.config.search.max_latency_ms) is not None:
            taken = _latency(rival, pipeline)
            if taken is None:
                rival = f"its latency is not in {pipeline.config.search.latency_table}"
            elif taken > latency:
                rival = f"it takes {taken:.3g} ms, search.max_latency_ms is {latency:g}"
        if isinstance(rival, str):
            pipeline.run.log_message(f"no rival {name}: {rival}")
        else:
            found.append(rival)
    return found


def _latency(rival: Student, pipeline: Pipeline) -> float | None:
    """Return a rival's latency, measured here or from the table of another device; None where that lacks it."""
    if pipeline.timing is None:
        timed_by = pipeline.config.search.latency_runtime
        return rival.latency(pipeline.images, pipeline.runtime.device, timed_by)
    if not isinstance(rival, ArchStudent) or rival.space != pipeline.space:
        return None
    found = pipeline.budget.latency(rival.arch)
    return found if found < math.inf else None


def _within(pipeline: Pipeline) -> Callable[[Cost], bool]:
    return pipeline.budget.affords


def _cuts(pipeline: Pipeline) -> EvenCuts:
    return pipeline.whole_space.even_cuts(_within(pipeline), _shape(pipeline))


def _shape(pipeline: Pipeline) -> dict[str, int]:
    data = pipeline.images
    return {"resolution": data.resolution, "in_chans": data.in_chans, "num_classes": data.num_classes}


def _even(role: str, pipeline: Pipeline, cut: EvenCut | None) -> ArchStudent | None:
    if cut is None:
        return None
    return ArchStudent(role, cut.arch, cut.space, cut.space.cost(cut.arch, **_shape(pipeline)), Supernet(cut.space))


def _even_both(pipeline: Pipeline, setup: TrainingSetup) -> ArchStudent | str:
    """Return the best of a few even cuts of depth and width: by short trainings, on the select split."""
    made = [_even("even_both", pipeline, cut) for cut in _cuts(pipeline).both()]
    tried = [student for student in made if student is not None]
    if len(tried) < 2:
        return next(iter(tried), NONE)
    settings = pipeline.short_settings
    seed = pipeline.config.seed
    trainings = [
        student.training(setup, seed, f"{pipeline.search_folder}/even/{student.key}", settings) for student in tried
    ]
    with Progress("even cuts", len(trainings), unit="students", run=pipeline.run) as progress:
        found = train_many(trainings, progress, workers=setup.processes(pipeline.config.workers))
    measure = measure_named(setup.task.measure)
    best = max(range(len(tried)), key=lambda place: measure.sign * found[place][f"select_{measure.name}"])
    return tried[best]


def _even_both_repaired(pipeline: Pipeline, setup: TrainingSetup) -> ArchStudent | str:
    """Return that cut, repaired as the found network is, which tells the search from the repair."""
    cut = _even_both(pipeline, setup)
    how = pipeline.config.repair
    if isinstance(cut, str):
        return cut
    if not how.any:
        return "nothing is repaired (repair.epochs=0, repair.student_epochs=0)"
    assert cut.net is not None  # it begins with the teacher's weights
    net = repair_units(
        cut.net,
        pipeline.unmatched,
        pipeline.data,
        how,
        run=pipeline.run.path / pipeline.search_folder / "even" / "repaired",
        seed=pipeline.config.seed,
        runtime=pipeline.runtime,
    )
    return repaired(pipeline, replace(cut, role="even_both_repaired", net=net, suffix="-repaired"))


def repaired(pipeline: Pipeline, student: ArchStudent) -> ArchStudent:
    """Repair a student that was cut from the teacher, unit by unit on its own inputs, if the settings say so."""
    how = pipeline.config.repair
    if not (isinstance(student.net, TeacherSupernet) and how.student_epochs):
        return student
    folder = f"retrain/{student.key}/repaired"
    repair_student(
        student.net,
        student.arch,
        pipeline.unmatched,
        pipeline.data,
        how,
        run=pipeline.run,
        folder=folder,
        seed=pipeline.config.seed,
        runtime=pipeline.runtime,
    )
    weights = pipeline.run.path / folder / WEIGHTS
    return replace(student, weights=weights) if weights.exists() else student


def _new_weights(pipeline: Pipeline, _: TrainingSetup) -> ArchStudent | str:
    if pipeline.config.init == "scratch":
        return "all students begin with new weights (retrain.init=scratch)"
    best = pipeline.result.best
    cost = pipeline.space.cost(best, **pipeline.cost)
    return ArchStudent("new_weights", best, pipeline.space, cost, suffix="-new")


def _small_images(pipeline: Pipeline, _: TrainingSetup) -> ArchStudent | str:
    """Return the whole teacher at the largest input that is within the budget."""
    fits = _within(pipeline)
    size = pipeline.images.resolution
    shape = {name: value for name, value in _shape(pipeline).items() if name != "resolution"}
    for height in sorted({round(size * part / SIZES) for part in range(SIZES // 4, SIZES)}, reverse=True):
        try:
            home = pipeline.whole_space.offering((), depth=False, resolutions=(height,))
        except SettingError as error:  # a size that the teacher does not take
            return str(error)
        arch = next(arch for arch in home if arch.resolution == height and arch.stages == home.largest().stages)
        if fits(cost := home.cost(arch, **shape)):
            return ArchStudent("small_images", arch, home, cost, Supernet(home))
    return NONE


def _taylor(pipeline: Pipeline, _: TrainingSetup) -> ModuleStudent | str:
    """Return the teacher as torch-pruning cuts it, which the run keeps."""
    limits = {name: list(pair) for name, pair in pipeline.budget.limits.items()}
    facts = {"teacher": pipeline.unmatched.fingerprint, "data": pipeline.data.fingerprint, "budget": limits}
    stage = pipeline.run.stage(f"{pipeline.search_folder}/taylor", facts)
    weights = stage.folder / "weights.safetensors"
    if not stage.done:
        made = _pruned(pipeline)
        if isinstance(made, str):
            stage.finish({"refused": made})
        else:
            save_weights(made, weights)
            plan = cast(CutPlan, made.cut_plan).to_dict()
            stage.finish({"cut": plan, "fingerprint": weights_hash(made)})
    if "refused" in stage.facts:
        return str(stage.facts["refused"])
    network = cut_to(deepcopy(pipeline.unmatched.network), CutPlan.from_dict(stage.facts["cut"]))
    load_weights(network, weights, stage.facts["fingerprint"])
    network = network.eval().requires_grad_(True)
    cost = whole_cost(network, pipeline.images.in_chans, pipeline.images.resolution)
    key = f"taylor-{weights_hash(network, measured=False)}"
    label = f"{cost.macs:,} MACs left by torch-pruning"
    return ModuleStudent("taylor", key, label, cost, partial(_copied, network), inherited=True)


def _pruned(pipeline: Pipeline) -> nn.Module | str:
    """Prune the teacher, inside the blocks alone where the whole cannot be; or say why not."""
    teacher = pipeline.unmatched
    batches = [(teacher.normalised(b.x), b.y) for b in pipeline.data.train.clean(256, limit=IMAGES)]
    inside = [group.root for unit in pipeline.whole_space.derived.units for group in unit.groups]
    refused = ""
    for layers in ((), inside) if inside else ((),):
        try:
            found = taylor_cut(teacher.network, batches, _within(pipeline), layers, kind=pipeline.data.kind)
        except SettingError as error:
            refused = str(error)
        else:
            calibrate(found, [images for images, _ in batches])
            return found
    return refused


def _copied(network: nn.Module, seed: int) -> nn.Module:
    return deepcopy(network)
