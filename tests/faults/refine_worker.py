"""One worker of a search in a process of its own: evaluations leave a line when they begin and end."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from nas_kd.searcher.optuna import refine
from nas_kd.searcher.shared import WorkerGroup

SIZES = [9, 12, 15]
NAMES = ("stage1.width", "stage1.depth", "stage2.depth")
TRIALS = 24
LIMIT = 120.0  # seconds until a machine counts as stuck


def kl(point: tuple[int, ...]) -> float:
    rng = np.random.default_rng(list(point))
    return sum((i / n - 0.4) ** 2 for i, n in zip(point, SIZES, strict=True)) + 0.02 * float(rng.random())


def search(
    folder: Path, group: WorkerGroup | None, name: str, *, together: int = 1, hangs: int = 0, trials: int = TRIALS
) -> list[dict]:
    """Search as worker ``name``; the first of them keeps its rows as a run does.

    Args:
        folder: where everything lies.
        group: where they meet.
        name: the worker.
        together: nobody goes on before so many workers have come, so that each has a share on any machine.
        hangs: the number of the evaluation that never ends, so that a kill surely meets it; 0 for none.
        trials: evaluations in all.
    """
    kept = folder / "rows.jsonl"
    done = [json.loads(line) for line in kept.read_text().splitlines()] if kept.exists() else []

    mine: list[tuple[int, ...]] = []

    def evaluate(point: tuple[int, ...]) -> dict[str, float]:
        mine.append(point)
        note(folder, name, "begin", point)
        if len(mine) == hangs:
            time.sleep(LIMIT)
        if name == "first" and len(mine) == 1 and together > 1:
            assert group is not None  # it has the lock now, so that the others wait for it, not it for their calls
            until(lambda: len(group.leases.rows()) == together)
        else:
            until(lambda: len({call["worker"] for call in calls(folder)}) >= together)
        note(folder, name, "end", point)
        return {"kl": kl(point), "accuracy": 1 - kl(point)}

    def record(row: dict) -> None:
        if name == "first":
            with open(kept, "a") as file:
                file.write(json.dumps(row) + "\n")

    return refine(
        dict(zip(NAMES, SIZES, strict=True)),
        evaluate,
        constraints=lambda p: {"macs": sum(p) - 18},
        warm=[(4, 5, 6), (1, 1, 1)],
        trials=trials,
        seed=3,
        done=done if name == "first" else (),
        record=record,
        group=group,
    )


def note(folder: Path, name: str, what: str, point: tuple[int, ...]) -> None:
    """Add a line that no other process tears."""
    line = json.dumps({"worker": name, "pid": os.getpid(), "what": what, "point": list(point)})
    handle = os.open(folder / "calls.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(handle, f"{line}\n".encode())
    os.close(handle)


def calls(folder: Path) -> list[dict]:
    path = folder / "calls.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def until(reached: Callable[[], bool]) -> None:
    """Wait for other processes."""
    end = time.monotonic() + LIMIT
    while not reached():
        assert time.monotonic() < end
        time.sleep(0.02)


def kept_rows(folder: Path) -> list[dict]:
    kept = folder / "rows.jsonl"
    return [json.loads(line) for line in kept.read_text().splitlines()] if kept.exists() else []


def group_of(folder: Path, url: str | None, name: str) -> WorkerGroup:
    joins = name != "first"
    return WorkerGroup(folder, url, "study", {"supernet": "abc", "seed": 3}, joins, lambda: kept_rows(folder))


if __name__ == "__main__":
    place, given, who, count, hang = sys.argv[1:]
    group = group_of(Path(place), given or None, who)
    rows = search(Path(place), group, who, together=int(count), hangs=int(hang))
    (Path(place) / f"{who}.json").write_text(json.dumps(rows))
