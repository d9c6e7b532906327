"""The command line: one command a verb, settings from a config file and from dotted options."""

from __future__ import annotations

import os
import re
import sys
import typing
from argparse import ArgumentError
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import is_dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas_kd.config import Config
from nas_kd.config.file import read_file
from nas_kd.config.places import check_places
from nas_kd.config.typed import fits, hints_of, worded
from nas_kd.errors import SettingError, nearest, nearest_setting
from nas_kd.runtime.device import CALM_THREADS
from nas_kd.runtime.ranks import forget_launcher, launched, peer_lost
from nas_kd.runtime.stop import Stop, Stopped
from nas_kd.version import __version__

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

# command -> (function of nas_kd.pipeline.commands, whether it needs a teacher with weights, help)
COMMANDS = {
    "run": ("run_pipeline", True, "do everything in order, skipping what is done"),
    "describe": (
        "stage_describe",
        False,
        "print the space's size and costs and whether the budget is feasible",
    ),
    "teacher": ("stage_teacher", True, "train or fine-tune the teacher"),
    "supernet": ("stage_supernet", False, "train the supernet with in-place distillation"),
    "blockwise": ("stage_blockwise", True, "rate every candidate of every stage against the teacher"),
    "search": ("stage_search", True, "find the best architecture within the budget"),
    "retrain": ("stage_retrain", True, "retrain the found student and those it is compared with"),
    "rank": ("stage_rank", True, "train a sample of archs and say how well each score ranks them"),
    "report": ("", False, "write the HTML report of a run"),
    "status": ("", False, "tell where a run stands and who works in it"),
    "methods": ("", False, "list the distillation methods: what each does, needs and costs"),
}
JOINS = {"search": "join_search", "rank": "join_rank"}  # functions of nas_kd.pipeline.join that --worker calls
TOGETHER = ("run", "supernet")  # commands that torchrun may start several times at once
FLAGS = ("--help", "-h", "--print_config")
# commands that end in students take --method and --method.SETTING for the long names
STUDENTS = {"method": "retrain.method", "method.": "retrain.method_settings."}
SHORT = {"run": STUDENTS, "retrain": STUDENTS, "blockwise": {"stage": "blockwise.stage"}}
SETTINGS = r"retrain\.method_settings\.\w+"  # which there are depends on the method
READERS = ("status", "report")  # commands that read a run folder and need no torch


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: arguments after the program's name; None takes the process's own.

    Returns:
        The exit code: 0; 2 after a mistake in the settings; 1 when a training diverged; 130 after Ctrl-C, 143
        after SIGTERM and 124 at the end of ``max_hours``, with everything saved.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    for name, value in CALM_THREADS.items():  # before torch is imported
        os.environ.setdefault(name, value)
    try:
        return _command(arguments)
    except SettingError as error:
        return _fail(2, str(error))
    except (FloatingPointError, ConnectionAbortedError) as error:  # a training that diverged says what to lower
        return _fail(1, str(error))
    except Stopped as stop:
        return _fail(stop.code, str(stop))
    except RuntimeError as error:
        if launched()[1] == 1 or not peer_lost(error):
            raise
        return _fail(1, "another process has stopped; see its message. The same command continues from here")
    except KeyboardInterrupt:
        return _fail(130, "stopped; the same command continues from here")


def _fail(code: int, message: str) -> int:
    rank = launched()[0]
    print(f"nas-kd{f' (rank {rank})' if rank else ''}: {message}", file=sys.stderr)
    return code


def _command(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_help())
        return 0
    if arguments[0] == "--version":
        print(__version__)
        return 0
    name, *rest = arguments
    if name not in COMMANDS:
        raise SettingError("command", name, ", ".join(COMMANDS), nearest(name, COMMANDS))
    if name == "methods":
        if rest and rest[0] not in FLAGS:
            raise SettingError("setting", rest[0], "nothing: `nas-kd methods` lists them all", "leave it out")
        from nas_kd.distill import describe_methods

        print("\n".join(describe_methods()))
        return 0
    if worker := name in JOINS and "--worker" in rest:
        rest = [token for token in rest if token != "--worker"]
        forget_launcher()  # `srun -n 4 nas-kd search RUN --worker` starts four
    rank, world = launched()
    if world > 1 and name not in TOGETHER:
        legal = f"{' or '.join(TOGETHER)} with {world} processes: the others use one"
        raise SettingError("command", name, legal, "start it without torchrun or srun")
    config = read_config(rest, command=name)
    if config is None:
        return 0
    function, teaches, _ = COMMANDS[name]
    if name == "status":
        from nas_kd.runs.status import status

        print(status(str(config.run)))
        return 0
    if name == "report":
        from nas_kd.analyse import report

        print(f"report: {report(str(config.run))}")
        return 0
    if teaches:
        config.teacher.need_weights()
    check_places(config)
    if name != "describe":
        from nas_kd.runs.run import check_folder

        check_folder(Path(str(config.run)))
    # the other processes of torchrun wait for the first, deaf to Python's handlers: the system ends them
    with Stop(at_once=True, hours=config.max_hours) if rank == 0 else nullcontext():
        from nas_kd.pipeline import commands, join  # torch and timm come with them

        if worker:
            getattr(join, JOINS[name])(config)
        else:
            getattr(commands, function if rank == 0 else "follow")(config)
    return 0


def _help() -> str:
    width = max(map(len, COMMANDS))
    commands = "\n".join(f"  {name:{width}}  {text}" for name, (_, _, text) in COMMANDS.items())
    return f"""usage: nas-kd COMMAND [CONFIG.yaml] [--run DIR] [--SETTING VALUE ...]

Find, retrain and explain the student network that a fixed teacher teaches best within a budget.

commands:
{commands}

`nas-kd COMMAND --help` lists all settings, `--print_config` prints them as YAML.
`nas-kd search RUN --worker` and `nas-kd rank RUN --worker` help a run that is going with one more process.
The same command again goes on where the last one stopped."""


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
    source, options = _split(arguments, SHORT.get(command, {}))
    folder = None
    if source is not None and os.path.isdir(source):
        own = Path(source) / "config.yaml"
        if command not in READERS and not own.is_file():
            legal = "a config file, or a run folder, which holds config.yaml"
            raise SettingError("config", source, legal, "give a YAML file, or name the folder by --run")
        folder = source
        source = str(own) if own.exists() else None
    given = [] if source is None else ["--config", source]
    if source is not None:
        read_file(Path(source))
    parser = _parser(command)
    try:
        namespace = parser.parse_args([*given, *options])
    except ArgumentError as error:
        raise _type_error(str(error)) from error
    except SystemExit as stop:
        if stop.code:
            raise
        return None
    settings = namespace.as_dict()
    settings.pop("config", None)
    config: Config = _build(Config, settings)
    if config.run == "":
        raise SettingError("run", "", "the path of a folder", "write --run runs/NAME, or leave it out")
    if config.run is None or folder is not None:
        name = Path(source).stem if source is not None else Path(config.space).stem
        config = replace(config, run=folder or f"runs/{name}")
    return config


def _split(arguments: Sequence[str], short: Mapping[str, str]) -> tuple[str | None, list[str]]:
    """Part the config file from the options, so that options win wherever the file stands; write short names out."""
    known = ["config", *hints_of(Config)]
    source = None
    options = []
    rest = list(arguments)
    while rest:
        token = rest.pop(0)
        option, equals, value = token.partition("=")
        if option in FLAGS:
            options.append(token)
            continue
        if not option.startswith("--"):
            if source is not None:
                raise SettingError("CONFIG.yaml", token, f"one config file, {source} is given", "leave one out")
            source = token
            continue
        name, dot, setting = option[2:].partition(".")
        if name + dot in short:
            option = f"--{short[name + dot]}{setting}"
        if option[2:] not in known and not re.fullmatch(SETTINGS, option[2:]):
            raise nearest_setting(option[2:], known)
        if not equals:
            if not rest:
                raise SettingError(option[2:], None, "a value", f"write {option} VALUE")
            value = rest.pop(0)
        if option == "--config":
            source = value
        else:
            options.append(f"{option}={value}")
    return source, options


def _parser(command: str) -> ArgumentParser:
    """Build the parser of a command; every command takes all settings."""
    from jsonargparse import ActionConfigFile, ArgumentParser, set_parsing_settings

    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    parser = ArgumentParser(
        prog=f"nas-kd {command}",
        usage=f"nas-kd {command} [CONFIG.yaml] [--run DIR] [--SETTING VALUE ...]",
        description=COMMANDS[command][2],
        exit_on_error=False,
    )
    parser.add_argument("--config", action=ActionConfigFile, help="YAML file of settings, the same as CONFIG.yaml")
    parser.add_class_arguments(Config)
    return parser


def _type_error(text: str) -> SettingError:
    """Turn jsonargparse's message about a type into ours."""
    key = re.search(r'key "([^"]+)"', text)
    value = re.search(r"(?:Got value|value): (.*)", text)
    hint = hints_of(Config).get(key[1].partition(".")[0] if key and key[1] == "run" else key[1]) if key else None
    if key is None or hint is None:
        return SettingError("setting", " ".join(text.split())[:300], "what the help lists", "see `nas-kd run --help`")
    return SettingError(key[1], value[1] if value else None, worded(hint), "see `nas-kd run --help`, or leave it out")


def _build(kind: type, settings: Mapping[str, Any], prefix: str = "") -> Any:
    """Make the dataclasses, which check themselves, from nested dicts of values of their types."""
    hints = typing.get_type_hints(kind)
    made = {}
    for name, value in settings.items():
        if is_dataclass(hints[name]):
            made[name] = _build(hints[name], value, f"{name}.")
        elif fits(value, hints[name]):
            made[name] = value
        else:  # jsonargparse takes null and true for numbers
            mend = "see `nas-kd run --help`, or leave it out"
            raise SettingError(prefix + name, value, worded(hints[name]), mend)
    return kind(**made)
