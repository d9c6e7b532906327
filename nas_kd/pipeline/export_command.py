"""`nas-kd export STUDENT`: read its settings, write the student, print the check and the latencies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas_kd.config.file import read_file, read_value
from nas_kd.config.options import split_options
from nas_kd.config.paths import existing
from nas_kd.config.settings import build, settings_of
from nas_kd.errors import SettingError
from nas_kd.export.config import ExportConfig

if TYPE_CHECKING:
    from torch import nn

    from nas_kd.data import Data
    from nas_kd.export import Exported

SWITCHES = ("normalise", "softmax", "latency", "int8")  # may stand without a value
ABOVE = 6  # folders from a student up to its run: retrain/KEY/METHOD/seed_N/student


def read_export(arguments: Sequence[str]) -> ExportConfig | None:
    """Read the settings of an export.

    Args:
        arguments: ``STUDENT [--SETTING VALUE ...]``; a switch alone is true.

    Returns:
        The settings; None when they were printed.

    Raises:
        SettingError: a setting is unknown, has a value it cannot take, or the folder is no student's.
    """
    known = settings_of(ExportConfig)
    source, options = split_options(_switched(arguments), {}, known)
    given = {name: text for name, _, text in (option[2:].partition("=") for option in options)}
    printed = given.pop("print_config", None) is not None
    own = {name: read_value(*known[name], text) for name, text in given.items()}
    folder = source if source is not None else own.get("student")
    if folder is None:
        hint = "nas-kd export runs/NAME/retrain/KEY/seed_0/student"
        raise SettingError("student", None, "the folder of a student", hint)
    existing("student", str(folder), "an existing student folder")
    images = _images_of_run(Path(str(folder)), own) if own.get("int8") else {}
    config = build(ExportConfig, images | own | {"student": str(folder)})
    if config.int8_epochs and not config.int8:
        raise SettingError("int8_epochs", config.int8_epochs, "0 without --int8", "add --int8")
    if printed:
        import yaml

        print(yaml.safe_dump(asdict(config), sort_keys=False), end="")
        return None
    return config


def export_command(config: ExportConfig) -> None:
    """Write a student in another format and say how it agrees and what it costs."""
    from nas_kd.export import export
    from nas_kd.export.deploy import set_threads

    set_threads(config.threads)
    more: dict[str, Any] = {}
    if config.int8:
        from nas_kd.data import load_data
        from nas_kd.distill.tasks import task_of

        data = load_data(config.data)
        task = task_of(data)
        more = {"int8": data, "calibration": config.calibration, "score": (task.measure, task.metric)}
        if config.int8_epochs:
            more["tuned"] = _tuned(config, data)
    made = export(
        str(config.student),
        config.to,
        config.path,
        normalise=config.normalise,
        softmax=config.softmax,
        tolerance=config.tolerance,
        latency=tuple(config.batch_sizes) if config.latency else (),
        factory=config.factory,
        **more,
    )
    _say(made)


def _tuned(config: ExportConfig, data: Data) -> nn.Module:
    """Return the student, fine-tuned for 8 bits by the teacher of its run; by itself where that is not at hand."""
    from nas_kd.export import load_student
    from nas_kd.pipeline.config import Config
    from nas_kd.pipeline.context import RunContext
    from nas_kd.train.tune_int8 import tune_int8

    teacher = None
    if (run := _run_of(Path(str(config.student)))) is not None:
        values = read_file(run / "config.yaml", Config) | {"run": str(run)}
        values |= {f"data.{name}": value for name, value in asdict(config.data).items()}
        whole = build(Config, values)
        trained = not whole.teacher.epochs or (run / "teacher" / "stage.json").is_file()
        if whole.teacher.model is not None and trained and _named(values, run):
            teacher = RunContext(whole).unmatched
    student = load_student(str(config.student), factory=config.factory)
    who = "the unrounded student" if teacher is None else teacher.name
    print(f"int8: {config.int8_epochs} epochs of fine-tuning, taught by {who}")
    return tune_int8(student, teacher, data, epochs=config.int8_epochs)


def _named(values: dict[str, Any], run: Path) -> bool:
    """Return whether a run's settings name no code, which its user would have to name again."""
    from nas_kd.pipeline.named import check_named

    try:
        check_named({name: value for name, value in values.items() if not name.startswith("data.")}, run)
    except SettingError:
        return False
    return True


def _say(made: Exported) -> None:
    from nas_kd.export.int8 import int8_table
    from nas_kd.export.timed import latency_table

    share = "" if made.agreement is None else f", {100 * made.agreement:g} % of answers equal"
    print(f"{made.to}: {made.path}: outputs differ by at most {made.difference:.2g} from the network's{share}")
    if made.latency:
        print(latency_table(made.latency))
    if made.int8:
        print(int8_table(made.int8))


def _switched(arguments: Sequence[str]) -> list[str]:
    """Write out switches that stand without a value."""
    found = []
    for at, token in enumerate(arguments):
        after = arguments[at + 1 : at + 2]
        alone = token.removeprefix("--") in SWITCHES and token.startswith("--")
        given = bool(after) and after[0].lower() in ("true", "false")
        found.append(f"{token}=true" if alone and not given else token)
    return found


def _images_of_run(student: Path, own: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of the images of the run that a student folder lies in; none where it lies in no run.

    Args:
        student: the folder.
        own: what the command line gives; what the run's file names besides has to be the user's (`check_named`).
    """
    from nas_kd.pipeline.config import Config
    from nas_kd.pipeline.named import check_named

    run = _run_of(student)
    if run is None:
        return {}
    values = read_file(run / "config.yaml", Config)
    images = {name: value for name, value in values.items() if name.startswith("data.")}
    check_named({name: value for name, value in images.items() if name not in own}, run)
    return images


def _run_of(student: Path) -> Path | None:
    """Return the run folder that a student folder lies in."""
    above = list(student.resolve().parents)[:ABOVE]
    return next((path for path in above if (path / "config.yaml").is_file() and (path / "retrain").is_dir()), None)
