"""A database that goes away in the middle of a search: one message, nothing finished is lost, and it goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import database
import pandas as pd
import pytest
import refine_worker
from beside import until
from database import Server, programs, server
from small_run import Made, environment

from nas_kd.errors import SettingError
from nas_kd.runs.workers import Worker
from nas_kd.searcher.lease_table import TableLeases, engine_settings
from nas_kd.searcher.shared import SharedStudy, WorkerGroup

pytestmark = pytest.mark.skipif(programs() is None, reason="PostgreSQL or its driver psycopg is not installed")
Fork = Callable[..., tuple[int, str]]
BUDGET = ("--search.max_macs", "124358", "--search.trials", "20")


@pytest.fixture(scope="module")
def running() -> Iterator[Server]:
    with server() as found:
        yield found


def group_of(folder: Path, url: str, study: str) -> WorkerGroup:
    """A place to meet where a lease that could not be dropped is soon nobody's."""
    return replace(refine_worker.group_of(folder, url, "first"), study=study, heartbeat=0.05, patience=0.5)


def before(place: type, name: str, nth: int, do: Callable[[], None], patch: pytest.MonkeyPatch) -> None:
    """Do something right before the nth call of a method in the main thread."""
    real, calls = getattr(place, name), []

    def called(*given: object, **more: object) -> object:
        if threading.current_thread() is threading.main_thread():
            calls.append(name)
            if len(calls) == nth:
                do()
        return real(*given, **more)

    patch.setattr(place, name, called)


@pytest.mark.parametrize(
    ("place", "name", "nth"),
    [
        (TableLeases, "lock", 6),
        pytest.param(TableLeases, "rows", 6, marks=pytest.mark.slow),
        pytest.param(TableLeases, "put", 4, marks=pytest.mark.slow),
        pytest.param(SharedStudy, "trials", 4, marks=pytest.mark.slow),
        (SharedStudy, "add", 3),
        (SharedStudy, "finish", 3),
    ],
)
def test_a_server_that_stops_is_named_and_the_search_goes_on(
    running: Server, place: type, name: str, nth: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = running.url("nas_kd:secret")
    (tmp_path / "alone").mkdir()
    alone = refine_worker.search(tmp_path / "alone", None, "first", trials=8)
    group = group_of(tmp_path, url, f"stopped at {name}")
    with monkeypatch.context() as patch:
        before(place, name, nth, running.stop, patch)
        try:
            gone = r"search.storage='postgresql://nas_kd@.*a database that responds"
            with pytest.raises(SettingError, match=gone) as no:
                refine_worker.search(tmp_path, group, "first", trials=8)
        finally:
            running.start()
    assert "secret" not in str(no.value) and "same command again" in no.value.hint and "\n" not in str(no.value)
    again = group_of(tmp_path, url, f"stopped at {name}")
    assert refine_worker.search(tmp_path, again, "first", trials=8) == alone == refine_worker.kept_rows(tmp_path)


def test_rights_that_are_taken_away(running: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    running.execute("CREATE ROLE guest LOGIN")
    running.execute("CREATE DATABASE theirs")
    url = running.url("guest", "theirs")
    running.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC", "theirs")
    with pytest.raises(SettingError, match=r"may create, read and write \(permission denied for schema public\)"):
        refine_worker.search(tmp_path, group_of(tmp_path, url, "new"), "first")
    running.execute("GRANT CREATE ON SCHEMA public TO guest", "theirs")
    for nth, table in enumerate(("nas_kd_lease", "trials"), 1):
        with monkeypatch.context() as patch:
            what = f"REVOKE ALL ON {table} FROM guest"
            before(SharedStudy, "add", 2 + nth, lambda what=what: running.execute(what, "theirs"), patch)
            with pytest.raises(SettingError, match=rf"read and write \(permission denied for table {table}\)"):
                refine_worker.search(tmp_path, group_of(tmp_path, url, f"study {nth}"), "first")
        running.execute(f"GRANT ALL ON {table} TO guest", "theirs")


def test_tables_that_are_taken_away(running: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before(SharedStudy, "add", 3, lambda: running.execute("ALTER TABLE nas_kd_lease RENAME TO other"), monkeypatch)
    try:
        with pytest.raises(SettingError, match='no other program changes.*relation "nas_kd_lease" does not exist'):
            refine_worker.search(tmp_path, group_of(tmp_path, running.url(), "renamed"), "first")
    finally:
        running.execute("ALTER TABLE other RENAME TO nas_kd_lease")


def test_a_lease_is_renewed_again_when_the_server_is_back(running: Server) -> None:
    said: list[str] = []
    store = TableLeases(running.url("nas_kd:secret"), "renewed")
    with Worker(store, heartbeat=0.02, patience=0.2, log=said.append) as worker:
        with store.lock():
            assert worker.claim(["trial 3"])
        running.stop()
        try:
            until(lambda: bool(said))
            time.sleep(0.3)
        finally:
            running.start()
        (row,) = store.rows()
        until(lambda: store.rows()[0].heartbeat > row.heartbeat + 1)
        assert worker.holds("trial 3")
    (line,) = said
    assert line.startswith("warning: ") and "has not renewed its lease for " in line and "secret" not in line
    assert store.rows() == []


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_command_ends_with_one_message(made: Made, copied: Path, running: Server, fork: Fork) -> None:
    command = ("search", made.config, "--run", copied, *BUDGET, "--search.storage", running.url("nas_kd:secret"))
    search = copied / "search" / "macs_124358"

    def rows() -> int:
        file = search / "trials.csv"
        return file.read_text().count("\n") if file.exists() else 0

    def stop() -> None:
        until(lambda: rows() > 5)
        running.stop()

    stopping = threading.Thread(target=stop)
    stopping.start()
    try:
        code, text = fork(*command)
    finally:
        stopping.join()
        running.start()
    assert code == 2 and "Traceback" not in text and "secret" not in text, text
    (line,) = [line for line in text.splitlines() if line.startswith("nas-kd: ")]
    assert line == text.splitlines()[-1] and "a database that responds" in line
    kept = pd.read_csv(search / "trials.csv", dtype=str)
    assert 5 <= len(kept) < 20
    code, text = fork(*command)
    assert code == 0, text
    trials = pd.read_csv(search / "trials.csv", dtype=str)
    assert trials.head(len(kept)).fillna("").to_dict("records") == kept.fillna("").to_dict("records")
    assert trials["kind"].isin(["warm", "trial", "random"]).sum() == 20


def test_waits_of_the_url_count() -> None:
    given = engine_settings("postgresql://me@host/base?connect_timeout=3")["connect_args"]
    assert "connect_timeout" not in given and given["keepalives_idle"] == 30
    assert engine_settings("sqlite:///file.db")["connect_args"] == {}


def test_a_server_ends_with_the_test_process() -> None:
    """Whatever ends that process, and whether or not it could say so."""
    script = (
        "import sys, time\n"
        f"sys.path.insert(0, {str(Path(database.__file__).parent)!r})\n"
        "from database import server\n"
        "with server() as found:\n"
        "    print(found.folder, flush=True)\n"
        "    time.sleep(600)\n"
    )
    command = [sys.executable, "-c", script]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment(), start_new_session=True)
    assert process.stdout is not None
    folder = Path(process.stdout.readline().strip())
    pid = int((folder / "data" / "postmaster.pid").read_text().splitlines()[0])
    assert Path(f"/proc/{pid}").exists()
    os.killpg(process.pid, signal.SIGKILL)  # the whole group, as from a terminal or a runner
    process.wait()
    until(lambda: not folder.exists() and not Path(f"/proc/{pid}").exists())
