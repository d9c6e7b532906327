"""One of two gloo processes: the first works longer than anyone waits for silence, then the second falls silent."""

from __future__ import annotations

import os
import signal
import time
from datetime import timedelta

from nas_kd.runtime import device, ranks

ranks.PATIENCE = timedelta(seconds=4)
device.PATIENCE = ranks.PATIENCE
ranks.HEARTBEAT = 0.5

if __name__ == "__main__":
    together = device.Runtime("cpu")
    began = time.monotonic()
    with ranks.rank_zero_first():
        if together.rank == 0:
            time.sleep(10)
    assert time.monotonic() - began > 9
    assert ranks.all_gather(together.rank) == [0, 1]
    if together.rank == 1:
        os.kill(os.getpid(), signal.SIGSTOP)
    try:
        ranks.barrier()
    except RuntimeError as error:
        # at once: threads of gloo that still wait for the other may abort an interpreter that ends in order
        os._exit(3 if ranks.peer_lost(error) else 4)
