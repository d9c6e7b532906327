"""The command line: one command a verb."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

from nas_kd.config.options import FLAGS
from nas_kd.config.paths import GONE, working_folder
from nas_kd.errors import SettingError, nearest
from nas_kd.pipeline.command_help import help_of_command, overview
from nas_kd.pipeline.command_table import COMMANDS, JOINS, TOGETHER
from nas_kd.pipeline.read_config import read_config
from nas_kd.runtime.device import PASSIVE_THREADS
from nas_kd.runtime.ranks import forget_launcher, launched, peer_lost
from nas_kd.runtime.stop import Stop, Stopped
from nas_kd.runtime.terminal import broken, prepare, say
from nas_kd.version import __version__


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
        print(overview())
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
            print(help_of_command(name))
            return 0
        from nas_kd.distill import describe_methods

        print("\n".join(describe_methods()))
        return 0
    if name == "export":
        from nas_kd.pipeline.export_command import export_command, read_export

        if any(flag in rest for flag in ("--help", "-h", "--help_all")):
            print(help_of_command(name, "--help_all" in rest))
        elif (asked := read_export(rest)) is not None:
            export_command(asked)
        return 0
    if name == "init":
        from nas_kd.pipeline.init_command import init_command, read_init

        if any(flag in rest for flag in FLAGS):
            print(help_of_command(name, "--help_all" in rest))
        else:
            init_command(*read_init(rest))
        return 0
    if name == "compare":
        from nas_kd.pipeline.compare_command import compare_command, read_compare

        if any(flag in rest for flag in FLAGS):
            print(help_of_command(name))
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
