"""How the processes of one search share its trials, and checks of a process that joins a running one."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nas_kd.config.measures import COSTS, MEASURES
from nas_kd.config.reading import TABLE, read_text
from nas_kd.errors import SettingError
from nas_kd.runs.files import plain, read_json
from nas_kd.runs.lock import file_locks
from nas_kd.runs.run import Run
from nas_kd.searcher.config import GROWS
from nas_kd.searcher.engine import SearchEngine
from nas_kd.searcher.engines import ENGINES
from nas_kd.searcher.objectives import FURTHER
from nas_kd.searcher.shared import WorkerGroup
from nas_kd.searcher.trials import SCORES


def worker_group(
    run: Run, folder: Path, facts: Mapping[str, Any], engine: SearchEngine, storage: str | None, worker: bool
) -> WorkerGroup | None:
    """Return the group of workers of a search; None where no other process can join.

    Args:
        run: its log names the workers.
        folder: the search's folder in it.
        facts: everything that determines the search; a process that joins must have the same.
        storage: URL of a database, or None for the journal in the folder.
        worker: this process joins a running search.

    Raises:
        SettingError: there is no such search to join, or its settings differ.
    """
    given = json.loads(json.dumps(plain(facts)))
    names = list(facts["search.objectives"])
    alone = set(FURTHER) & set(names)
    if alone and (worker or storage is not None):
        expected = f"kl or accuracy with workers: one process measures {', '.join(sorted(alone))}"
        raise SettingError("search.objectives", names, expected, "search in one process, without search.storage")
    if worker:
        check_running(folder, storage)
        _check_same(folder, given, engine)
    if not engine.shared and storage is not None:
        raise SettingError("search.storage", "a database", f"None with engine {engine.name}: one process searches")
    if alone or not engine.shared or (storage is None and not file_locks()):
        return None
    if storage is not None:
        _check_untimed(given)
    fixed = {name: value for name, value in given.items() if name.removeprefix("search.") not in GROWS}
    name = f"{given['space']}-{hashlib.sha256(json.dumps(fixed, sort_keys=True).encode()).hexdigest()[:12]}"
    return WorkerGroup(folder, storage, name, given, worker, lambda: _kept_rows(folder / "trials.csv"), run.log_message)


def check_running(folder: Path, storage: str | None) -> None:
    """Check that a search can be joined.

    Args:
        folder: the search's folder in the run.
        storage: URL of a database, which may have a search whose folder is on another machine.

    Raises:
        SettingError: it has not started, or has finished.
    """
    file = folder / "stage.json"
    if not file.exists() and storage is None:
        hint = "run the same command without --worker first, and wait until its search starts"
        raise SettingError("run", str(folder), "a run whose search has started, or search.storage of one", hint)
    if file.exists() and read_json(file, ("done",))["done"]:
        raise SettingError("run", str(folder), "a running search; this one has finished", "there is nothing left to do")


def _check_same(folder: Path, facts: Mapping[str, Any], engine: SearchEngine) -> None:
    """Check that the search has the same settings, and that its engine can be shared."""
    if not engine.shared:
        shared = [name for name, kind in ENGINES.items() if kind.shared]
        expected = f"{', '.join(shared)}: {engine.name} runs in one process"
        raise SettingError("search.engine", engine.name, expected)
    _check_untimed(facts)
    file = folder / "stage.json"
    if not file.exists():
        return  # another machine's folder: the study in the database has the facts
    old = read_json(file, ("inputs",))["inputs"]
    changed = [name for name in {**old, **facts} if old.get(name) != facts.get(name)]
    if changed:
        was, now = (", ".join(f"{name}={made.get(name)!r}" for name in changed) for made in (old, facts))
        hint = "use the settings of the running search"
        raise SettingError("search", now, f"the settings that {folder} was started with: {was}", hint)


def _check_untimed(facts: Mapping[str, Any]) -> None:
    """Check that a search with several processes measures no latencies."""
    why = "latency is measured on one otherwise idle machine"
    hint = "search in one process, without search.storage"
    if "search.latency_table" in facts:
        return
    limit = facts["search.max_latency_ms"]
    names = facts.get("search.objectives", ())
    if limit is not None:
        raise SettingError("search.max_latency_ms", limit, f"null with workers: {why}", hint)
    if "latency_ms" in names:
        raise SettingError("search.objectives", names, f"macs and params as costs, with workers: {why}", hint)


def _kept_rows(path: Path) -> list[dict[str, Any]]:
    """Read the proposals in trials.csv; a row that another process is just writing is skipped."""
    text = read_text(path, TABLE) if path.exists() else ""
    whole = csv.DictReader(io.StringIO(text[: text.rfind("\n") + 1], newline=""))
    return [_proposal(row) for row in whole if row["kind"] != "control"]


def _proposal(row: Mapping[str, str]) -> dict[str, Any]:
    point = {name: int(cell) for name, cell in row.items() if name.startswith("i_")}
    scores = {
        name: float(row[name] or "nan") for name in (*SCORES, *MEASURES, *COSTS) if name in row
    }  # any may be an objective
    return {"number": int(row["number"]), "kind": row["kind"], "feasible": row["feasible"] == "True"} | point | scores
