"""Runs many `nas-kd` commands in one process and tells what each gave, one line of JSON a command.

Arguments: a JSON file with a list of argument lists, then ``--torch`` to have torch imported before the first.
A command that is stuck is ended after `LIMIT`.
"""

from __future__ import annotations

import contextlib
import io
import json
import signal
import sys
import traceback
from pathlib import Path
from typing import Any

LIMIT = 200  # seconds until a command counts as stuck; the longest works for one or two


class Late(BaseException):
    """A command that takes too long; no OSError, as TimeoutError is, that anything might catch."""


def tried(argv: list[str], main: Any, processor: float | None = None) -> dict[str, Any]:
    """Run one command.

    Args:
        argv: its arguments.
        main: the command line's function.
        processor: seconds of processor time that it has, in the place of ten by the clock.

    Returns:
        Exit code (None after a traceback or too long a time), what was said, and whether torch is there now.
    """

    def late(*_: object) -> None:
        raise Late(f"more than {processor or LIMIT} s")

    out, err = io.StringIO(), io.StringIO()
    code: int | None = None
    number, timer = (signal.SIGALRM, signal.ITIMER_REAL) if processor is None else (signal.SIGPROF, signal.ITIMER_PROF)
    signal.signal(number, late)
    signal.setitimer(timer, processor or LIMIT)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main(argv)
    except SystemExit as stop:
        err.write(f"SystemExit {stop.code}")
    except BaseException:
        err.write(traceback.format_exc())
    finally:
        signal.setitimer(timer, 0)
    return {"code": code, "out": out.getvalue(), "err": err.getvalue(), "torch": "torch" in sys.modules}


class NoTorch:
    """Refuses to import torch, which no bad configuration needs."""

    def find_spec(self, name: str, *_: object) -> None:
        if name == "torch":
            raise ImportError("torch is imported")


if __name__ == "__main__":
    if "--torch" in sys.argv:
        import timm.data  # noqa: F401

        import nas_kd.pipeline.commands  # noqa: F401
    else:
        sys.meta_path.insert(0, NoTorch())  # type: ignore[arg-type]
    from nas_kd.cli import main

    for arguments in json.loads(Path(sys.argv[1]).read_text()):
        print(json.dumps(tried(arguments, main)), flush=True)
