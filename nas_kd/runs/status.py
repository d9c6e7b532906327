"""The state of a run and its workers, read from its files only: other processes may be running it."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from nas_kd.config.reading import TABLE, read_text
from nas_kd.errors import SettingError, escaped
from nas_kd.runs.files import read_json
from nas_kd.runs.leases import PATIENCE, FileLeases, Lease
from nas_kd.runs.progress import format_seconds
from nas_kd.runs.shape import as_written
from nas_kd.runs.state import State, state_of

ROWS = 12  # stages that are shown one by one
SHOWN = 4  # workers
WIDTH = 80  # characters of a stage's line
AGAIN = "the same command goes on"


def status(run: str | Path) -> str:
    """Describe the state of a run and its workers in fewer than 20 lines, without writing anything.

    Returns:
        Whether it is finished, running, stopped or lost, a table of stages with their last row of metrics, then the
        workers of searches and of the ranking with their jobs. Workers that share a database are not listed.

    Raises:
        SettingError: the folder is not a run.
    """
    path = Path(run)
    if not (path / "env.json").is_file():
        raise SettingError("run", str(path), "a folder that nas_kd created", "pass the --run of an earlier command")
    stages = _stages(path)
    state = state_of(path, bool(stages) and all(done for _, done, _ in stages))
    rows = [*_shown(stages), *_ranking(path)]
    workers = _workers(path)
    more = [f"and {len(workers) - SHOWN} more workers"] if len(workers) > SHOWN else []
    lines = _aligned(rows) or ["no stage has started"]
    with as_written(path / "status.json", f"delete {path / 'status.json'}"):
        said = _said(state)
    return escaped("\n".join([said, *map(_cut, lines), *_aligned(workers[:SHOWN]), *more]), lines=True)


def _aligned(rows: list[tuple[str, ...]]) -> list[str]:
    """Format rows as lines with aligned columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _cut(line: str) -> str:
    """Leave out the last values of a line that is too long."""
    while len(line) > WIDTH and "  " in line:
        line = line[: line.rindex("  ")].rstrip()
    return line


def _stages(path: Path) -> list[tuple[str, bool, Path]]:
    """Return the stages' names, whether they are done, and their folders, in the order in which they were worked on."""
    found = (file for file in path.glob("**/stage.json") if path / "rank" not in file.parents)
    return [
        (str(file.parent.relative_to(path)), bool(read_json(file, ("done",))["done"]), file.parent)
        for file in sorted(found, key=lambda file: file.stat().st_mtime)
    ]


def _shown(stages: list[tuple[str, bool, Path]]) -> list[tuple[str, ...]]:
    """Return a row a stage, those of many students together, and fewer where there are too many."""
    for parts in (3, 2, 1):
        groups: dict[str, list[tuple[str, bool, Path]]] = {}
        for stage in stages:
            groups.setdefault(_group(stage[0], parts), []).append(stage)
        if len(groups) <= ROWS:
            break
    rows: list[tuple[str, ...]] = []
    for name, group in groups.items():
        done = sum(each[1] for each in group)
        state = ("done" if done else "begun") if len(group) == 1 else f"{done} of {len(group)} done"
        rows.append((name, state, _last(group[-1][2] / "metrics.csv")))
    return rows[-ROWS:]


def _group(name: str, parts: int) -> str:
    """Return what a stage is shown as: trainings of archs and seeds are those of their folder."""
    names = name.split("/")
    if names[0] == "retrain":
        return "retrain"
    for at, each in enumerate(names[:-1]):
        if each in ("short", "tuned"):  # folders of archs
            names = names[: at + 1]
            break
    return "/".join(names[:parts])


def _ranking(path: Path) -> Iterator[tuple[str, ...]]:
    """Count the trainings of a ranking; the folder does not hold the number of seeds."""
    trainings, archs = (_rows(path / "rank" / name) for name in ("truth.csv", "archs.csv"))
    if archs:
        state = "done" if (path / "rank" / "summary.csv").exists() else "begun"
        yield "rank", state, f"trainings={len(trainings)}  archs={len(archs)}"


def _workers(path: Path) -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = []
    for folder in sorted(one for one in path.glob("**/leases") if one.is_dir()):
        place = folder.parent
        for row in FileLeases(folder).rows():
            prefix = row.job.replace(" ", "_")
            doing = [_last(file) for file in place.glob(f"trainings/{prefix}.*/metrics.csv")] if row.job else []
            parts = (_lost(row), row.job or "idle", *doing)
            who = f"process {row.pid} of {row.host}"
            found.append((str(place.relative_to(path)), f"worker {row.worker}", who, "  ".join(filter(None, parts))))
    return found


def _lost(row: Lease) -> str:
    """Return why a worker counts as lost; empty if it does not."""
    silent = time.time() - row.heartbeat / 1e9
    if row.dead():
        return "lost (its process has ended):"
    return f"lost (silent for {format_seconds(silent)}):" if silent > PATIENCE else ""


def _rows(path: Path) -> list[dict[str, str]]:
    """Read the complete lines of a table that another process may be appending to, or deleting."""
    try:
        text = read_text(path, TABLE, hint=f"delete {path}")
    except FileNotFoundError:
        return []
    try:
        return list(csv.DictReader(io.StringIO(text[: text.rfind("\n") + 1], newline="")))
    except csv.Error as error:  # a cell of 131,072 characters
        raise SettingError("run", str(path), f"the table that nas_kd wrote ({error})", f"delete {path}") from error


def _last(path: Path) -> str:
    """Format the last row of a table: measures of the images first, then the whole loss, then the rest."""
    rows = _rows(path)
    last = rows[-1] if rows else {}
    # cells without a column, and columns without a cell, are those of a damaged table
    shown = [(name, value) for name, value in last.items() if value and isinstance(value, str)]
    shown.sort(key=lambda each: _weight(each[0]))  # stable
    return "  ".join(f"{key}={_short(value)}" for key, value in shown)


def _weight(name: str) -> int:
    if name == "epoch":
        return 0
    if name == "lr":
        return 4
    return 2 if name == "loss" else 1 if "accuracy" in name or name.startswith("rate_") else 3


def _short(cell: str) -> str:
    try:
        return f"{float(cell):.4g}"
    except ValueError:
        return cell


def _said(state: State) -> str:
    """Say the state in one line."""
    now = state.now
    ago = f", {format_seconds(max(0.0, time.time() - now['updated']))} ago" if "updated" in now else ""
    command = f" (nas-kd {now['command']})" if now.get("command") else ""
    who = f" (process {state.holder.pid} of {state.holder.host})" if state.holder is not None else ""
    doing = f" in {_doing(now)}" if now else ""
    if state.word == "finished":
        return f"finished{command}{ago}"
    if state.word == "stopped":
        return f"stopped{command}{doing}{ago}; {AGAIN}"
    if state.word == "lost":
        return f"lost: its process{who} has ended without a word{doing}{ago}; {AGAIN}"
    return f"running{who}" + (f": {_doing(now)}{ago}" if now else "")


def _doing(state: Mapping[str, Any]) -> str:
    last = " ".join(f"{name}={value:.4g}" for name, value in state["last"].items() if value is not None)
    text = f"{state['stage']} {state['done']}/{state['total']} {state['unit']}"
    if "steps" in state:
        text += f", step {state['step']}/{state['steps']}"
    if state.get("state") == "running":
        if state["done"] < state["total"] and state.get("eta_seconds") is not None:
            text += f", ETA {format_seconds(state['eta_seconds'])}"
        if state.get("total_eta_seconds") is not None:
            text += f", all stages {format_seconds(state['total_eta_seconds'])}"
    if "stages" in state:
        text = f"[{state['number']}/{state['stages']}] {text}"
    return text + (f": {last}" if last else "")
