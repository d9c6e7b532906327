"""Where a run stands and who works in it, from its files only: it may be working in other processes."""

from __future__ import annotations

import csv
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from nas_kd.errors import SettingError
from nas_kd.runs.files import read_json
from nas_kd.runs.leases import PATIENCE, FileLeases, Lease
from nas_kd.runs.progress import spoken


def status(run: str | Path) -> str:
    """Tell where a run stands and who works in it; nothing is written.

    Args:
        run: the run folder.

    Returns:
        A table of stages with their last row of metrics, what is being done and until when, then the workers of
        its searches and its ranking, with what each has in hand. Those who meet in a database are not seen.

    Raises:
        SettingError: the folder is no run.
    """
    path = Path(run)
    if not (path / "env.json").is_file():
        raise SettingError("run", str(path), "a folder that nas_kd made", "give the --run of a command")
    rows = [*_stages(path), *_ranking(path)]
    lines = _aligned(rows) or ["no stage has begun"]
    now = path / "status.json"
    if now.exists():
        lines.append(_doing(read_json(now, ("stage", "done", "total", "unit", "last"), spoils=now)))
    return "\n".join([*lines, *_aligned(list(_workers(path)))])


def _aligned(rows: list[tuple[str, ...]]) -> list[str]:
    """Write rows as lines, their columns below each other."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _stages(path: Path) -> list[tuple[str, ...]]:
    found = (file for file in path.glob("**/stage.json") if path / "rank" not in file.parents)
    return [
        (
            str(file.parent.relative_to(path)),
            "done" if read_json(file, ("done",))["done"] else "begun",
            _last(file.parent / "metrics.csv"),
        )
        for file in sorted(found, key=lambda file: file.stat().st_mtime)
    ]


def _ranking(path: Path) -> Iterator[tuple[str, ...]]:
    """Count the trainings of a ranking; how many seeds are wanted is not in the folder."""
    truth, archs = (_rows(path / "rank" / name) for name in ("truth.csv", "archs.csv"))
    if archs:
        state = "done" if (path / "rank" / "summary.csv").exists() else "begun"
        yield "rank", state, f"trainings={len(truth)}  archs={len(archs)}"


def _workers(path: Path) -> Iterator[tuple[str, ...]]:
    for folder in sorted(path.glob("**/leases")):
        place = folder.parent
        for row in FileLeases(folder).rows():
            prefix = row.job.replace(" ", "_")
            doing = [_last(file) for file in place.glob(f"trainings/{prefix}.*/metrics.csv")] if row.job else []
            parts = (_lost(row), row.job or "nothing in hand", *doing)
            who = f"process {row.pid} of {row.host}"
            yield str(place.relative_to(path)), f"worker {row.worker}", who, "  ".join(filter(None, parts))


def _lost(row: Lease) -> str:
    """Say why a worker counts as lost; nothing of one that does not."""
    silent = time.time() - row.heartbeat / 1e9
    if row.dead():
        return "lost (its process is gone):"
    return f"lost (silent for {spoken(silent)}):" if silent > PATIENCE else ""


def _rows(path: Path) -> list[dict[str, str]]:
    """Read the whole lines of a table that another process may be adding to, or deleting."""
    try:
        text = path.read_text()
    except FileNotFoundError:
        return []
    return list(csv.DictReader(text[: text.rfind("\n") + 1].splitlines()))


def _last(path: Path) -> str:
    """Write the last row of a table."""
    rows = _rows(path)
    return "  ".join(f"{key}={_short(value)}" for key, value in rows[-1].items() if value) if rows else ""


def _short(cell: str) -> str:
    try:
        return f"{float(cell):.4g}"
    except ValueError:
        return cell


def _doing(state: Mapping[str, Any]) -> str:
    last = " ".join(f"{name}={value:.4g}" for name, value in state["last"].items() if value is not None)
    text = f"{state['stage']} {state['done']}/{state['total']} {state['unit']}"
    if state["done"] < state["total"] and state["eta_seconds"] is not None:
        text += f", ETA {spoken(state['eta_seconds'])}"
    return f"{text}, {spoken(time.time() - state['updated'])} ago" + (f": {last}" if last else "")
