"""Every mistake that can be found before the first epoch of a run."""

from __future__ import annotations

from nas_kd.analyse.choice import few_images
from nas_kd.config.measures import measure_named
from nas_kd.distill.tasks import unscaled
from nas_kd.distill.texts import check_for_texts
from nas_kd.errors import SettingError
from nas_kd.export.ensemble import check_member
from nas_kd.export.onnx_timed import need_runtime
from nas_kd.pipeline.context import RunContext
from nas_kd.pipeline.ready_made import check_rivals
from nas_kd.runtime.jobs import allow_files
from nas_kd.searcher.further import need_images
from nas_kd.space.rows import check_size, sizes_said
from nas_kd.train.mixing import check_mixing
from nas_kd.train.optim import check_optimizer
from nas_kd.train.options import divergence_of
from nas_kd.train.plan import check_epochs
from nas_kd.train.retrain import checked_method
from nas_kd.train.supernet_weights import check_checkpoint

FLAT = 1e-3  # standard deviation of images, of 1, below which they are of one colour
NOT_HERE = {  # methods that a command cannot give what they need: what that is, and where it can be had
    "takd": ("assistants", "use nas_kd.retrain"),
    "soft_tree": ("a tree as its student", "--retrain.rivals '[soft_tree]' trains one beside the found student"),
}


def check_pipeline(pipeline: RunContext, say: bool) -> None:
    """Look at settings, data and budget, and raise for the first mistake.

    Args:
        pipeline: whose stages would begin.
        say: log what is no mistake but worth knowing.

    Raises:
        SettingError: naming it.
    """
    _check_method(pipeline)
    _check_data(pipeline, say)
    allow_files(pipeline.config.workers)
    _check_systems(pipeline)
    _check_trainings(pipeline)
    if not pipeline.config.derived:
        _check_supernet(pipeline)
    _check_search(pipeline, say)
    check_rivals(pipeline, pipeline.recipe)


def _check_method(pipeline: RunContext) -> None:
    method = pipeline.method
    _ = pipeline.task  # data are opened here, so that a mistake of theirs is not taken for one of the method
    try:
        recipe = pipeline.recipe
    except SettingError as error:
        setting = error.field.removeprefix(f"{method}.")
        own = setting in pipeline.config.retrain.method_settings
        field = f"retrain.method_settings.{setting}" if own else "retrain.method"
        raise SettingError(field, error.value if own else method, error.expected, error.hint) from error
    if not pipeline.taught and recipe.needs_teacher:
        hint = "give teacher.model, or retrain.method=ce"
        raise SettingError("retrain.method", method, "ce or a method without a teacher", hint)
    if isinstance(method, str) and method in NOT_HERE:
        lacks, hint = NOT_HERE[method]
        raise SettingError("retrain.method", method, f"a method without {lacks}", hint)
    others = list(pipeline.config.teacher.others or ())
    if method == "multi_teacher" and not others:
        hint = "name more teachers: --teacher.others '[resnet18=FILE, runs/other/student]'"
        raise SettingError("teacher.others", others, "one or more, which multi_teacher averages", hint)
    if others and method != "multi_teacher":
        expected = "retrain.method=multi_teacher, which learns from several"
        raise SettingError("teacher.others", others, expected, "omit the others, or take that method")
    if pipeline.data.tokens is not None:
        check_for_texts(recipe, pipeline.config.retrain.mixes)
    _ = pipeline.further  # a wrong name is refused now


def _check_data(pipeline: RunContext, say: bool) -> None:
    if far := unscaled(pipeline.data):
        each = ", ".join(f"{name} {spread:.3g}" for name, spread in far.items())
        pipeline.run.log_message(
            f"labels have standard deviations far from 1 ({each}): divide them, or trainings may fail"
        )
    if say and (few := few_images(len(pipeline.data.select), measure_named(pipeline.task.measure))):
        pipeline.run.log_message(pipeline.data.spoken(few))
    if max(pipeline.data.std) <= FLAT:
        expected = "images with something on them: all pixels of all training images have one value"
        raise SettingError("data.train", str(pipeline.config.data.train), expected, "look at the files")


def _check_systems(pipeline: RunContext) -> None:
    """Look for methods that join search and distillation where they have no meaning."""
    ensemble = pipeline.config.retrain.ensemble
    if (rounds := pipeline.config.search.rounds_of_teachers) > 1 and pipeline.config.derived:
        expected = "1 where the space is the teacher: its units are rated in the teacher itself"
        raise SettingError("search.rounds_of_teachers", rounds, expected, "name a space, or use search.steps")
    need_images(pipeline.config.search.objectives or (), pipeline.data)
    if ensemble and (pipeline.data.kind != "classes" or pipeline.data.tokens is not None):
        what = "texts" if pipeline.data.tokens is not None else f"labels that are {pipeline.data.kind}"
        expected = f"0 with {what}: images of one class each have ensembles"
        raise SettingError("retrain.ensemble", ensemble, expected, "omit it")
    if ensemble and pipeline.config.derived:
        _check_ensemble_of_cuts(pipeline)
    if ensemble and {*pipeline.outline.resolutions} - {pipeline.data.resolution}:
        expected = f"0 where archs choose an input size of {pipeline.outline.resolutions}: members share their input"
        raise SettingError("retrain.ensemble", ensemble, expected, "omit it, or the input sizes")


def _check_ensemble_of_cuts(pipeline: RunContext) -> None:
    """Refuse an ensemble of cuts that its folder could not rebuild: it runs no function, and no class of a file."""
    try:
        check_member(pipeline.outlined.network, pipeline.data)
    except SettingError as error:
        expected = f"0 with cuts of {pipeline.config.teacher.model}: {error.expected}"
        raise SettingError("retrain.ensemble", pipeline.config.retrain.ensemble, expected, "omit it") from error


def _check_trainings(pipeline: RunContext) -> None:
    own = pipeline.config.retrain
    theirs = pipeline.config.teacher
    if own.optimizer is not None:
        check_optimizer("retrain.optimizer", own.optimizer)
    if pipeline.config.rank.optimizer is not None:
        check_optimizer("rank.optimizer", pipeline.config.rank.optimizer)
    spoken = pipeline.data.spoken
    images = len(pipeline.data.train)
    check_mixing(own.fitted(images), pipeline.recipe, kind=pipeline.data.kind)
    if theirs.epochs:
        if theirs.optimizer is not None:
            check_optimizer("teacher.optimizer", theirs.optimizer)
        labels = checked_method("ce", pipeline.task, pipeline.data.num_classes).recipe
        check_mixing(theirs.fitted(images), labels, kind=pipeline.data.kind)
    for name, least in (("rate", 2), ("select", 1)):
        if len(getattr(pipeline.data, name)) < least:
            expected = spoken(f"a share that holds at least {least} images of train")
            given = getattr(pipeline.config.data, name)
            raise SettingError(f"data.{name}", given, expected, f"use data.{name}=0.05")
    trained = ("repair" if pipeline.config.derived else "supernet", "retrain")
    for name in (*trained, "blockwise") if pipeline.taught and not pipeline.config.derived else trained:
        batch = getattr(pipeline.config, name).fitted(images).batch_size
        if batch > images:
            expected = spoken(f"at most {images}, the number of training images")
            raise SettingError(f"{name}.batch_size", batch, expected)


def _check_supernet(pipeline: RunContext) -> None:
    supernet = pipeline.config.supernet
    check_checkpoint(pipeline.outline, supernet, pipeline.data.num_classes, pipeline.data.in_chans)
    divergence_of(supernet, pipeline.task)
    supernet = supernet.fitted(len(pipeline.data.train), supernet.accumulate * pipeline.together.world)
    if supernet.epochs:
        check_epochs(
            "supernet",
            supernet.epochs,
            supernet.batch_size,
            pipeline.data.train,
            supernet.accumulate,
            pipeline.together.world,
        )


def _check_search(pipeline: RunContext, say: bool) -> None:
    if pipeline.guided or pipeline.config.data.resolution is not None:
        check_size(pipeline.outline, pipeline.data.resolution)
    if say and (said := sizes_said(pipeline.outline, pipeline.data.resolution)):
        pipeline.run.log_message(said)
    if pipeline.timing is not None:
        pipeline.timing.check(pipeline.outline, pipeline.cost)
    need_runtime(pipeline.config.search.latency_runtime)
    if pipeline.config.log:
        from nas_kd.pipeline.trackers import TRACKERS  # late: Fabric's loggers take a second and a half to import

        for name in pipeline.config.log:
            TRACKERS[name].need_packages()
    _ = pipeline.lower  # an infeasible budget is refused now, before a teacher is trained
    if not (pipeline.config.derived and (pipeline.config.teacher.epochs or pipeline.config.search.steps > 1)):
        _ = pipeline.budget  # a latency that is too low as well
