"""The state of a run and its workers, read from its files only: other processes may be running it."""

from __future__ import annotations

import csv
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from nas_kd.errors import SettingError
from nas_kd.runs.files import read_json
from nas_kd.runs.leases import PATIENCE, FileLeases, Lease
from nas_kd.runs.progress import format_seconds


def status(run: str | Path) -> str:
    """Describe the state of a run and its workers, without writing anything.

    Returns:
        A table of stages with their last row of metrics, the current work with its ETA, then the workers of
        searches and of the ranking with their jobs. Workers that share a database are not listed.

    Raises:
        SettingError: the folder is not a run.
    """
    path = Path(run)
    if not (path / "env.json").is_file():
        raise SettingError("run", str(path), "a folder that nas_kd created", "pass the --run of an earlier command")
    rows = [*_stages(path), *_ranking(path)]
    lines = _aligned(rows) or ["no stage has started"]
    now = path / "status.json"
    if now.exists():
        lines.append(_doing(read_json(now, ("stage", "done", "total", "unit", "last"), delete=now)))
    return "\n".join([*lines, *_aligned(list(_workers(path)))])


def _aligned(rows: list[tuple[str, ...]]) -> list[str]:
    """Format rows as lines with aligned columns."""
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
    """Count the trainings of a ranking; the folder does not hold the number of seeds."""
    trainings, archs = (_rows(path / "rank" / name) for name in ("truth.csv", "archs.csv"))
    if archs:
        state = "done" if (path / "rank" / "summary.csv").exists() else "begun"
        yield "rank", state, f"trainings={len(trainings)}  archs={len(archs)}"


def _workers(path: Path) -> Iterator[tuple[str, ...]]:
    for folder in sorted(path.glob("**/leases")):
        place = folder.parent
        for row in FileLeases(folder).rows():
            prefix = row.job.replace(" ", "_")
            doing = [_last(file) for file in place.glob(f"trainings/{prefix}.*/metrics.csv")] if row.job else []
            parts = (_lost(row), row.job or "idle", *doing)
            who = f"process {row.pid} of {row.host}"
            yield str(place.relative_to(path)), f"worker {row.worker}", who, "  ".join(filter(None, parts))


def _lost(row: Lease) -> str:
    """Return why a worker counts as lost; empty if it does not."""
    silent = time.time() - row.heartbeat / 1e9
    if row.dead():
        return "lost (its process has ended):"
    return f"lost (silent for {format_seconds(silent)}):" if silent > PATIENCE else ""


def _rows(path: Path) -> list[dict[str, str]]:
    """Read the complete lines of a table that another process may be appending to, or deleting."""
    try:
        text = path.read_text()
    except FileNotFoundError:
        return []
    return list(csv.DictReader(text[: text.rfind("\n") + 1].splitlines()))


def _last(path: Path) -> str:
    """Format the last row of a table."""
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
    if "steps" in state:
        text += f", step {state['step']}/{state['steps']}"
    if state["done"] < state["total"] and state["eta_seconds"] is not None:
        text += f", ETA {format_seconds(state['eta_seconds'])}"
    if "stages" in state:
        text = f"[{state['number']}/{state['stages']}] {text}"
        if state["total_eta_seconds"] is not None:
            text += f", all stages {format_seconds(state['total_eta_seconds'])}"
    return f"{text}, {format_seconds(time.time() - state['updated'])} ago" + (f": {last}" if last else "")
