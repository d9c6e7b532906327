"""The command line: one command a verb, settings from a config file and from dotted options."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from nas_kd.config.options import FLAGS, OPEN, split_options
from nas_kd.config.paths import GONE, working_folder
from nas_kd.errors import SettingError, nearest
from nas_kd.runtime.device import PASSIVE_THREADS
from nas_kd.runtime.ranks import forget_launcher, launched, peer_lost
from nas_kd.runtime.stop import Stop, Stopped
from nas_kd.runtime.terminal import broken, prepare, say
from nas_kd.version import __version__

if TYPE_CHECKING:
    from nas_kd.pipeline.config import Config

# what a training of any kind takes besides its own settings
MACHINE = ("space", "run", "seed", "device", "precision", "threads", "workers", "on_nan", "max_hours", "log", "plan")
BUDGET = ("search.max_macs", "search.max_params", "search.min_macs", "search.min_params")
MOST_USED = (
    *("space", "run", "seed", "device", "workers", "max_hours"),
    *("data.train", "data.test", "data.resolution"),
    *("teacher.model", "teacher.checkpoint", "teacher.pretrained", "teacher.epochs"),
    *("repair.epochs", "supernet.epochs", "blockwise.epochs"),
    *("search.engine", "search.max_macs", "search.trials"),
    *("retrain.method", "retrain.epochs", "retrain.batch_size", "retrain.lr", "retrain.seeds", "retrain.init"),
)


class Command(NamedTuple):
    """A command of the command line.

    Args:
        function: of ``nas_kd.pipeline.commands``.
        teaches: whether it needs a teacher with weights.
        help: what it does.
        shown: settings and sections that its help shows.
    """

    function: str
    teaches: bool
    help: str
    shown: tuple[str, ...]


COMMANDS = {
    "init": Command("", False, "write a config for your data, teacher and time, with epochs that fit", MOST_USED),
    "run": Command("run_pipeline", True, "do everything in order, skipping what is done", MOST_USED),
    "describe": Command(
        "stage_describe",
        False,
        "print the space's size and costs and whether the budget is feasible",
        ("space", "teacher.model", "derive", "data.train", "data.test", "data.resolution", *BUDGET),
    ),
    "teacher": Command("stage_teacher", True, "train or fine-tune the teacher", ("run", "teacher")),
    "supernet": Command(
        "stage_supernet", False, "train the supernet with in-place distillation", ("space", "run", "supernet")
    ),
    "blockwise": Command(
        "stage_blockwise", True, "rate every candidate of every stage against the teacher", ("run", "blockwise")
    ),
    "search": Command("stage_search", True, "find the best architecture within the budget", ("run", "search")),
    "retrain": Command(
        "stage_retrain", True, "retrain the found student and those it is compared with", ("run", "workers", "retrain")
    ),
    "rank": Command(
        "stage_rank",
        True,
        "train a sample of archs and say how well each score ranks them",
        ("space", "run", "workers", "rank"),
    ),
    "export": Command(
        "",
        False,
        "write a student as ONNX, torch.export, TorchScript, one Python file or for timm, and check it",
        (
            *("to", "path", "normalise", "softmax", "tolerance", "latency", "batch_sizes", "threads", "factory"),
            *("int8", "calibration", "data.train", "data.test"),
        ),
    ),
    "report": Command("", False, "write the HTML report of a run", ("run",)),
    "compare": Command("", False, "put several runs side by side: settings that differ, students, time", ()),
    "status": Command("", False, "tell where a run stands and who works in it", ("run",)),
    "methods": Command("", False, "list the distillation methods: what each does, needs and costs", ()),
}
JOINS = {"search": "join_search", "rank": "join_rank"}  # functions of nas_kd.pipeline.join that --worker calls
TOGETHER = ("run", "supernet")  # commands that torchrun may start several times at once
# commands that end in students take --method and --method.SETTING for the long names
STUDENTS = {"method": "retrain.method", "method.": "retrain.method_settings."}
SHORT = {"run": STUDENTS, "retrain": STUDENTS, "blockwise": {"stage": "blockwise.stage"}}
READERS = ("status", "report")  # commands that read a run folder and need no torch


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: arguments after the program's name; None takes the process's own.

    Returns:
        The exit code: 0; 2 after a mistake in the settings; 1 when a training diverged or the machine failed; 130
        after Ctrl-C, 143 after SIGTERM and 124 at the end of ``max_hours``, with everything saved; 141 where nobody
        reads what is printed.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    for name, value in PASSIVE_THREADS.items():  # before torch is imported
        os.environ.setdefault(name, value)
    prepare()
    try:
        code = _command(arguments)
        sys.stdout.flush()
        return code
    except SettingError as error:
        return _fail(2, str(error))
    except BrokenPipeError:
        return broken()
    except MemoryError:
        return _fail(1, "out of memory; the same command continues from here")
    except (FloatingPointError, ConnectionAbortedError) as error:  # they say what to do; the second is an OSError too
        return _fail(1, str(error))
    except OSError as error:  # of the machine: no file descriptors left, a disk that fails, a folder that is gone
        return _fail(1, f"{error}{_hint_of(error)}; the same command continues from here")
    except Stopped as stop:
        return _fail(stop.code, str(stop))
    except RuntimeError as error:
        if launched()[1] == 1 or not peer_lost(error):
            raise
        return _fail(1, "another process has stopped; see its message. The same command continues from here")
    except KeyboardInterrupt:
        return _fail(130, "stopped; the same command continues from here")


def _fail(code: int, message: str) -> int:
    try:
        rank = launched()[0]
    except SettingError:  # which is the message
        rank = 0
    say(f"nas-kd{f' (rank {rank})' if rank else ''}: {message}")
    return code


def _hint_of(error: OSError) -> str:
    """Return what may mend an error of the machine; empty where its own text says enough."""
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return " (ulimit -n raises the limit; workers=1 needs the fewest)"
    return ""


def _command(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_help())
        return 0
    if arguments[0] == "--version":
        from nas_kd.runtime.device import describe_device

        print(f"nas-kd {__version__}, {describe_device()}")
        return 0
    if arguments[0] == "--completion":
        print(_completion(), end="")
        return 0
    name, *rest = arguments
    if name not in COMMANDS:
        raise SettingError("command", name, ", ".join(COMMANDS), nearest(name, COMMANDS))
    if name == "methods":
        if rest and rest[0] not in FLAGS:
            raise SettingError("setting", rest[0], "nothing: `nas-kd methods` lists them all", "leave it out")
        if rest:
            print(_help_of(name))
            return 0
        from nas_kd.distill import describe_methods

        print("\n".join(describe_methods()))
        return 0
    if name == "export":
        from nas_kd.pipeline.export_command import export_command, read_export

        if any(flag in rest for flag in ("--help", "-h", "--help_all")):
            print(_help_of(name, "--help_all" in rest))
        elif (asked := read_export(rest)) is not None:
            export_command(asked)
        return 0
    if name == "init":
        from nas_kd.pipeline.init_command import init_command, read_init

        if any(flag in rest for flag in FLAGS):
            print(_help_of(name, "--help_all" in rest))
        else:
            init_command(*read_init(rest))
        return 0
    if name == "compare":
        from nas_kd.pipeline.compare_command import compare_command, read_compare

        if any(flag in rest for flag in FLAGS):
            print(_help_of(name))
        else:
            compare_command(*read_compare(rest))
        return 0
    if worker := name in JOINS and "--worker" in rest:
        rest = [token for token in rest if token != "--worker"]
        forget_launcher()  # `srun -n 4 nas-kd search RUN --worker` starts four
    rank, world = launched()
    if world > 1 and name not in TOGETHER:
        expected = f"{' or '.join(TOGETHER)} with {world} processes: the others use one"
        raise SettingError("command", name, expected, "start it without torchrun or srun")
    if working_folder() == GONE:
        raise SettingError("working folder", GONE, "a folder that exists", "cd to another one")
    config = read_config(rest, command=name)
    if config is None:
        return 0
    if world > 1 and config.derived:
        expected = f"a named space with {world} processes, which train its supernet together"
        hint = "start it without torchrun or srun: nothing is trained by several where the space is the teacher"
        raise SettingError("space", None, expected, hint)
    command = COMMANDS[name]
    if name == "status":
        from nas_kd.runs.status import status

        print(status(str(config.run)))
        return 0
    if name == "report":
        from nas_kd.analyse import report

        print(f"report: {report(str(config.run))}")
        return 0
    if command.teaches:
        config.teacher.need_weights()
    from nas_kd.pipeline.places import check_places

    check_places(config)
    if name != "describe":
        from nas_kd.pipeline.named import keep_named
        from nas_kd.runs.run import check_folder

        check_folder(Path(str(config.run)))
        if rank == 0:
            keep_named(config)
    # the other processes of torchrun wait for the first, deaf to Python's handlers: the system ends them
    with Stop(at_once=True, hours=config.max_hours) if rank == 0 else nullcontext():
        from nas_kd.pipeline import commands, join  # torch and timm come with them

        if worker:
            getattr(join, JOINS[name])(config)
        else:
            getattr(commands, command.function if rank == 0 else "follow")(config)
    return 0


def _completion() -> str:
    from nas_kd.export.config import ExportConfig
    from nas_kd.pipeline.completion import completion
    from nas_kd.pipeline.config import Config

    return completion(COMMANDS, (("export", ExportConfig), ("*", Config)))


def _help() -> str:
    width = max(map(len, COMMANDS))
    commands = "\n".join(f"  {name:{width}}  {command.help}" for name, command in COMMANDS.items())
    return f"""usage: nas-kd COMMAND [CONFIG.yaml] [--run DIR] [--SETTING VALUE ...]

Find, retrain and explain the student network that a fixed teacher teaches best within a budget.

commands:
{commands}

`nas-kd COMMAND --help` lists its settings, `--help_all` all there are, `--print_config` prints them as YAML.
`nas-kd export STUDENT` takes a student folder in the place of CONFIG.yaml.
`nas-kd search RUN --worker` and `nas-kd rank RUN --worker` help a run that is going with one more process.
`nas-kd --completion` prints what completes all of this in bash and zsh, `--version` the versions.
The same command again goes on where the last one stopped."""


def _help_of(command: str, everything: bool = False) -> str:
    from nas_kd.config.help import listed, settings_help
    from nas_kd.config.settings import fields_of
    from nas_kd.export.config import ExportConfig
    from nas_kd.pipeline.config import Config

    shown = COMMANDS[command].shown
    lines = [f"usage: nas-kd {command} [CONFIG.yaml] [--run DIR] [--SETTING VALUE ...]", "", COMMANDS[command].help]
    if command == "methods":
        return "\n".join(["usage: nas-kd methods", *lines[1:]])
    if command == "init":
        lines[0] = "usage: nas-kd init [FILE.yaml] [--time 2h] [--SETTING VALUE ...]"
    if command == "compare":
        lines[0] = "usage: nas-kd compare RUN RUN ... [--out DIR]"
        return "\n".join([*lines, "", "compare.csv, settings.csv and compare.svg are written to DIR (compare)."])
    if command in READERS:
        lines[0] = f"usage: nas-kd {command} RUN"
    if command == "export":
        lines[0] = "usage: nas-kd export STUDENT [--to FORMAT] [--SETTING VALUE ...]"
    lines += settings_help(ExportConfig if command == "export" else Config, () if everything else shown)
    if command == "export":
        return "\n".join([*lines, "", "Defaults stand in brackets. `--help_all` lists all settings of the images."])
    if command in READERS:
        return "\n".join(lines)
    lines += ["", "Defaults stand in brackets. `--print_config` prints all settings as YAML."]
    if not everything:
        sections = [f"{name}.*" for name, info in fields_of(Config).items() if "default_factory" in repr(info)]
        others = [name for name in (*MACHINE, *sections) if name.removesuffix(".*") not in shown]
        lines += [listed([f"Also there, see `nas-kd {command} --help_all`: {others[0]}", *others[1:]])]
    return "\n".join(lines)


def read_config(arguments: Sequence[str], command: str = "run") -> Config | None:
    """Read settings from a config file and options; options win.

    Args:
        arguments: ``[CONFIG.yaml] [--config CONFIG.yaml] [--run DIR] [--SETTING VALUE ...]``; a run folder in
            the place of CONFIG.yaml stands for its own config.yaml and run.
        command: the command, for the help.

    Returns:
        The settings, ``run`` filled in; None when help or the configuration was printed.

    Raises:
        SettingError: a setting is unknown or has a value it cannot take.
    """
    from nas_kd.config.file import read_file, read_value
    from nas_kd.config.settings import build, settings_of
    from nas_kd.pipeline.config import Config
    from nas_kd.pipeline.named import check_named, run_of

    known = settings_of(Config)
    source, options = split_options(arguments, SHORT.get(command, {}), known)
    folder = None
    if source is not None and os.path.isdir(source):
        own = Path(source) / "config.yaml"
        if command not in READERS and not own.is_file():
            expected = "a config file, or a run folder, which holds config.yaml"
            raise SettingError("config", source, expected, "give a YAML file, or name the folder by --run")
        folder = source
        source = str(own) if own.exists() else None
    if any(flag in options for flag in ("--help", "-h", "--help_all")):
        print(_help_of(command, "--help_all" in options))
        return None
    if source is not None and command in READERS and not os.path.exists(source):
        hint = f"check the path; the working folder is {os.getcwd()}"
        raise SettingError("run", source, "an existing run folder", hint)
    values = {} if source is None else read_file(Path(source), Config)
    theirs = dict(values)  # of the file, where the command line does not say otherwise
    for option in options:
        name, _, text = option.removeprefix("--").partition("=")
        if name.startswith(f"{OPEN}."):
            key = name.removeprefix(f"{OPEN}.")
            values[OPEN] = {**values.get(OPEN, {}), key: read_value(*known[OPEN], text)}
            theirs[OPEN] = {each: value for each, value in theirs.get(OPEN, {}).items() if each != key}
        elif option not in FLAGS:
            values[name] = read_value(*known[name], text)
            theirs.pop(name, None)
    owner = Path(folder) if folder is not None else None if source is None else run_of(Path(source))
    if owner is not None and command not in READERS and "--print_config" not in options:
        check_named(theirs, owner)
    config = build(Config, values)
    if "--print_config" in options:
        print(config.to_yaml(), end="")
        return None
    if config.run == "":
        raise SettingError("run", "", "the path of a folder", "write --run runs/NAME, or leave it out")
    if config.run is None or folder is not None:
        name = Path(source or config.space or config.teacher.model or "run").stem
        config = replace(config, run=folder or f"runs/{name}")
    return config
