"""One worker of a search in a process of its own: slow evaluations that leave a line when they begin and end."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import numpy as np

from nas_kd.solve import refine
from nas_kd.solve.shared import Team

SIZES = [9, 12, 15]
TRIALS = 40
SECONDS = 0.1  # an evaluation takes


def kl(point: tuple[int, ...]) -> float:
    rng = np.random.default_rng(list(point))
    return sum((i / n - 0.4) ** 2 for i, n in zip(point, SIZES, strict=True)) + 0.02 * float(rng.random())


def search(folder: Path, team: Team | None, name: str, seconds: float = SECONDS, trials: int = TRIALS) -> list[dict]:
    """Search as worker ``name``; the first of them keeps its rows as a run does."""
    kept = folder / "rows.jsonl"
    done = [json.loads(line) for line in kept.read_text().splitlines()] if kept.exists() else []

    def evaluate(point: tuple[int, ...]) -> dict[str, float]:
        note(folder, name, "begin", point)
        time.sleep(seconds)
        note(folder, name, "end", point)
        return {"kl": kl(point), "accuracy": 1 - kl(point)}

    def record(row: dict) -> None:
        if name == "first":
            with open(kept, "a") as file:
                file.write(json.dumps(row) + "\n")

    return refine(
        SIZES, evaluate, constraints=lambda p: {"macs": sum(p) - 18}, warm=[(4, 5, 6), (1, 1, 1)], trials=trials,
        seed=3, done=done if name == "first" else (), record=record, team=team,
    )  # fmt: skip


def note(folder: Path, name: str, what: str, point: tuple[int, ...]) -> None:
    """Add a line that no other process tears."""
    line = json.dumps({"worker": name, "pid": os.getpid(), "what": what, "point": list(point)})
    handle = os.open(folder / "calls.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(handle, f"{line}\n".encode())
    os.close(handle)


def kept_rows(folder: Path) -> list[dict]:
    kept = folder / "rows.jsonl"
    return [json.loads(line) for line in kept.read_text().splitlines()] if kept.exists() else []


def team_of(folder: Path, url: str | None, name: str) -> Team:
    joins = name != "first"
    return Team(folder, url, "study", {"supernet": "abc", "seed": 3}, joins, lambda: kept_rows(folder))


if __name__ == "__main__":
    place, given, who, pause = sys.argv[1:]
    rows = search(Path(place), team_of(Path(place), given or None, who), who, float(pause))
    (Path(place) / f"{who}.json").write_text(json.dumps(rows))
