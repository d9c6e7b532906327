"""One of two gloo processes: the first works longer than anyone waits for silence, then the second falls silent."""

from __future__ import annotations

import os
import signal
import sys
import time
from datetime import timedelta

from nas_kd import runtime
from nas_kd.runtime import ranks as processes

processes.PATIENCE = runtime.PATIENCE = timedelta(seconds=4)
processes.BEAT = 0.5

if __name__ == "__main__":
    together = runtime.Runtime("cpu")
    began = time.monotonic()
    with processes.in_turn():
        if together.rank == 0:
            time.sleep(10)
    assert time.monotonic() - began > 9
    assert processes.everyone(together.rank) == [0, 1]
    if together.rank == 1:
        os.kill(os.getpid(), signal.SIGSTOP)
    try:
        processes.wait()
    except RuntimeError as error:
        sys.exit(3 if processes.peer_lost(error) else 4)
