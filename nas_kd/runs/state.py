"""Whether a run is finished, running, stopped or lost, from its files only."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from nas_kd.runs.files import read_json
from nas_kd.runs.folder_lock import holder_of
from nas_kd.runs.leases import PATIENCE, FileLeases, Lease

FIELDS = ("stage", "done", "total", "unit", "last")  # of status.json


@dataclass(frozen=True)
class State:
    """The state of a run.

    Args:
        word: ``finished``, ``running``, ``stopped`` (the same command goes on) or ``lost`` (its process ended without
            saying so, as after a kill; the same command goes on as well).
        now: the content of status.json; empty if there is none.
        holder: the process of which this is known; None if there is none.
    """

    word: str
    now: Mapping[str, Any]
    holder: Lease | None = None


def state_of(run: Path, all_done: bool) -> State:
    """Tell the state of a run without writing anything.

    Args:
        run: the run folder.
        all_done: whether every stage that has begun is done, for folders whose status.json does not say more.

    Returns:
        Its state; processes of other machines count as lost when their lease is not renewed.
    """
    file = run / "status.json"
    now: dict[str, Any] = read_json(file, FIELDS, delete=file) if file.exists() else {}
    seen = [*_leases(run)]
    living = [lease for lease, alive in seen if alive]
    if living:
        return State("running", now, living[0])
    holders = [lease for lease in _holders(run) if lease[0] is not None]
    if holders:  # of commands that were killed: others clear their note
        return State("lost", now, holders[0][0])
    word = str(now.get("state", "running"))
    writer = _writer(now)
    if word != "running":
        return State(word, now, writer)
    if writer is None:  # an earlier version, or no work that takes steps
        done = all_done and (not now or now["done"] >= now["total"])
        return State("finished" if done else "lost" if now else "stopped", now)
    return State("lost" if writer.dead() else "running", now, writer)


def _leases(run: Path) -> Iterator[tuple[Lease, bool]]:
    """Yield who holds the folder or works in it, and whether they live."""
    for lease, silent in _holders(run):
        if lease is not None:
            yield lease, not lease.dead() and silent <= PATIENCE
    for folder in sorted(one for one in run.glob("**/leases") if one.is_dir()):
        for lease in FileLeases(folder).rows():
            yield lease, not lease.dead() and time.time() - lease.heartbeat / 1e9 <= PATIENCE


def _holders(run: Path) -> Iterator[tuple[Lease | None, float]]:
    """Yield the holders of the folder's locks, with the seconds since they renewed them."""
    for note in sorted(run.glob(".lock.*")):
        try:
            silent = time.time() - note.stat().st_mtime
        except FileNotFoundError:
            continue
        yield holder_of(note), silent


def _writer(now: Mapping[str, Any]) -> Lease | None:
    """Return the process that wrote status.json, where it says which."""
    process = now.get("process")
    if not isinstance(process, dict) or not process.keys() <= {field.name for field in fields(Lease)}:
        return None
    try:
        return Lease(worker="", **process)
    except TypeError:
        return None
