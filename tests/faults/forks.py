"""Forks `nas-kd` commands from one process that has everything imported, and breaks them where a test says.

One line of JSON in, one out: ``{"argv": [...], "log": path, "fault": null or arguments of faults.arm, "env": {...},
"cwd": null or a folder, "after": null or seconds of its processor time until a SIGKILL}`` gives the exit code, -9 after
a kill. With ``"beside": true`` it gives the process's number at once, and ``{"ended": number}`` later its exit code, or
null while it runs.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from typing import Any

from faults import arm, cpu_seconds


def command(argv: list[str], log: str, fault: dict[str, Any] | None, env: dict[str, str], cwd: str | None) -> int:
    """Run one command in this process, its output in a file."""
    os.environ.update(env)
    if cwd is not None:
        os.chdir(cwd)
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(handle, stream)
    if fault is not None:
        arm(**fault)
    from nas_kd.cli import main

    return main(argv)


def serve() -> None:
    """Answer until the input ends."""
    import lightning_fabric  # noqa: F401
    import optuna.storages  # noqa: F401
    import rich.table  # noqa: F401
    import scipy.optimize  # noqa: F401
    import sklearn.datasets  # noqa: F401
    import torch

    import nas_kd.analyse
    import nas_kd.pipeline.pipeline  # noqa: F401

    torch.set_num_threads(1)  # threads do not live on in a fork
    for line in sys.stdin:
        job = json.loads(line)
        if "ended" in job:
            done, status = os.waitpid(job["ended"], os.WNOHANG)
            print(os.waitstatus_to_exitcode(status) if done else "null", flush=True)
            continue
        after, beside = job.pop("after", None), job.pop("beside", False)
        child = os.fork()
        if child == 0:
            code = 1  # what a traceback gives
            try:
                code = command(**job)
            except BaseException:
                import traceback

                traceback.print_exc()
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
        if beside:
            print(child, flush=True)
            continue
        done, status = os.waitpid(child, 0 if after is None else os.WNOHANG)
        while not done:
            if cpu_seconds(child) > after:
                os.kill(child, signal.SIGKILL)
            time.sleep(0.002)
            done, status = os.waitpid(child, os.WNOHANG)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    serve()
