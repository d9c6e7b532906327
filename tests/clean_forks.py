"""Processes forked from one that has nothing but imports: threads that other tests have started are not in them."""

from __future__ import annotations

import multiprocessing
from multiprocessing.context import ForkServerContext

LOADED = ("torch", "nas_kd.rate", "nas_kd.ranking.rank")  # what takes seconds to import


def clean_forks() -> ForkServerContext:
    """Return a context whose processes come from a server that all tests of this process share.

    A fork of the test process itself would train only as long as no test before it has made autograd start threads, as
    some exports do.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([*LOADED])
    return context
