"""Independent jobs in single-threaded worker processes."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any

from nas_kd.errors import SettingError
from nas_kd.runtime.device import PASSIVE_THREADS
from nas_kd.runtime.main_module import main_unseen, needs_main
from nas_kd.runtime.ranks import forget_launcher
from nas_kd.runtime.stop import Stop
from nas_kd.runtime.user_module import folders_of_user

FILES = 64  # that a process with torch and a run has open, with some to spare
FILES_OF_WORKER = 16  # pipes, and tensors on their way


def run_jobs(
    function: Callable[..., Any],
    jobs: Sequence[Mapping[str, Any]],
    workers: int = 2,
    advance: Callable[[], None] | None = None,
) -> Iterator[Any]:
    """Call a function once per job in single-threaded processes and yield the results in the order of the jobs.

    Args:
        function: a module-level function; a worker imports it by name.
        jobs: keyword arguments, one mapping per call; they are pickled.
        workers: number of processes; 1 runs in this process and keeps its threads.
        advance: called once for every finished job.

    Raises:
        SettingError: `workers` is below 1, or the system allows too few open files for them. An
            error in a job is raised here, and jobs not yet started are dropped.
        Stopped: a signal requested a stop; trainings in the workers have finished their step and saved it.
    """
    if workers < 1:
        raise SettingError("workers", workers, "an integer of at least 1", "use workers=1")
    if workers == 1 or len(jobs) < 2:
        for job in jobs:
            result = function(**job)
            if advance is not None:
                advance()
            yield result
        return
    allow_files(workers)
    others = set(multiprocessing.active_children())
    context = multiprocessing.get_context("spawn")
    needed = needs_main((function, list(jobs)))
    count = min(workers, len(jobs))
    pool = ProcessPoolExecutor(count, mp_context=context, initializer=_start_worker, initargs=(folders_of_user(),))
    try:
        with main_unseen(needed=needed), _environ({"OMP_NUM_THREADS": "1", **PASSIVE_THREADS}):
            # processes start while jobs are submitted
            futures = [pool.submit(function, **job) for job in jobs]
        if advance is not None:
            for future in futures:
                future.add_done_callback(lambda done: None if done.cancelled() else advance())
        for future in futures:
            with Stop(at_once=True):  # even if the caller does not handle SIGTERM
                result = future.result()
            yield result
    except BrokenProcessPool as error:
        expected = "1, or memory for each worker" + (
            ", and a script with its calls under `if __name__ == '__main__':`, as jobs use what it defines" * needed
        )
        raise SettingError("workers", workers, expected, "use workers=1") from error
    except BaseException:
        # an error or Ctrl-C does not wait for running jobs: they finish their step, save it, and resume next time
        mine = set(multiprocessing.active_children()) - others
        pool.shutdown(wait=False, cancel_futures=True)
        try:
            while any([process.is_alive() for process in mine]):
                for process in mine:  # repeatedly: after a stopped job the next one in the queue may start
                    process.terminate()
                    process.join(0.2)
        except BaseException:  # a second signal
            for process in mine:
                process.kill()
            raise
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def allow_files(workers: int) -> None:
    """Let this process open as many files as its workers need; pipes that fail print tracebacks.

    Args:
        workers: processes; one is this process itself.

    Raises:
        SettingError: the system allows fewer.
    """
    try:
        import resource
    except ImportError:  # not Unix
        return
    if workers == 1:
        return
    need = FILES + FILES_OF_WORKER * workers
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= need:
        return
    if hard != resource.RLIM_INFINITY and hard < need:
        expected = f"1, or a limit of at least {need} open files; it is {hard}"
        raise SettingError("workers", workers, expected, f"ulimit -n {need}, or use workers=1")
    resource.setrlimit(resource.RLIMIT_NOFILE, (need, hard))


def _start_worker(folders: Sequence[str]) -> None:
    """Limit a worker to one thread and end it with its parent: an orphan would keep writing to the run.

    Args:
        folders: of modules that a user has named; a job may hold a network of theirs.
    """
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; only the parent reacts
    forget_launcher()  # a job is not one of torchrun's processes
    torch.set_num_threads(1)
    sys.path.extend(folders)  # last, as in `import_of_user`
    parent = multiprocessing.parent_process()

    def follow() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


@contextmanager
def _environ(values: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables for the processes started inside."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
