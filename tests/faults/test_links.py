"""Links in a run folder: nothing is written, emptied or deleted where they lead."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from small_run import Made, Said

from nas_kd.analyse import report
from nas_kd.errors import SettingError
from nas_kd.export import load_student, save_student
from nas_kd.export.deploy import export
from nas_kd.runs.files import CsvLog, atomic_write
from nas_kd.runs.folder_lock import folder_lock
from nas_kd.runs.links import create, not_through, refuse_links, remove
from nas_kd.runs.lock import held
from nas_kd.runs.log import RunLog
from nas_kd.runs.run import Run
from nas_kd.searcher.shared import persist
from nas_kd.teacher.store import ViewStore, prepare

Main = Callable[..., Said]
VERBS = ("run", "teacher", "supernet", "blockwise", "search", "retrain", "rank", "report")


def content(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Return bytes and time of change of all files below a folder."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


@contextmanager
def led_outside(path: Path, outside: Path) -> Iterator[None]:
    """Move a file or folder of a run outside, with a link in its place."""
    path.rename(outside / "sentinel")
    path.symlink_to(outside / "sentinel")
    before = content(outside)
    try:
        yield
        assert content(outside) == before and path.is_symlink()
    finally:
        path.unlink()
        (outside / "sentinel").rename(path)


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    folder = tmp_path / "outside"
    folder.mkdir()
    return folder


def parts(run: Path) -> list[Path]:
    return sorted(run.rglob("*"))


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_every_file_and_folder_of_a_run(made: Made, copied: Path, outside: Path, nas_kd_main: Main) -> None:
    for number, path in enumerate(parts(copied)):
        with led_outside(path, outside):
            with pytest.raises(SettingError, match="a link to"):
                Run(copied)
            if number % 12:
                continue
            for verb in VERBS:
                given = (copied,) if verb == "report" else (made.config, "--run", copied)
                said = nas_kd_main(verb, *given)
                assert said.code == 2 and f"a link to {outside}" in said.err and "Traceback" not in said.err, path
            for verb in ("search", "rank"):
                assert nas_kd_main(verb, copied, "--worker").code == 2, path
            nas_kd_main("status", copied)  # reads alone


def test_one_of_each_kind(made: Made, copied: Path, outside: Path, nas_kd_main: Main) -> None:
    (copied / ".lock.stage_1").write_text("")
    names = (".lock.all", ".lock", ".lock.stage_1", "log.txt", "status.json", "config.yaml", "timing.csv", "supernet")
    names += ("teacher/cache", "search/study.journal", "search/leases", "retrain", "report", "report/report.html")
    for name in names:
        path = copied / name
        if not path.exists():
            continue
        with led_outside(path, outside):
            verbs = ("report", "run", "blockwise") if name == ".lock.all" else ("report",)
            for verb in verbs:
                given = (copied,) if verb == "report" else (made.config, "--run", copied)
                said = nas_kd_main(verb, *given)
                assert said.code == 2 and f"{path}': expected a file or folder of its own: this is a link" in said.err
            with pytest.raises(SettingError, match="only the run folder itself may be a link"):
                Run(copied)
    os.symlink(outside / "not there", copied / ".status.json.123.tmp")
    with pytest.raises(SettingError, match="not there"):
        report(copied)
    assert not list(outside.iterdir())


def test_pipes_are_not_waited_for(tmp_path: Path) -> None:
    run = Run(tmp_path / "a").path
    os.mkfifo(run / "pipe")
    with pytest.raises(SettingError, match="a pipe, socket or device"):
        Run(run)


def test_the_folder_itself_may_be_a_link(tmp_path: Path, outside: Path) -> None:
    (tmp_path / "run").symlink_to(outside)
    run = Run(tmp_path / "run")
    with run.locked():
        run.log_message("hello")
        run.stage("teacher", {}).finish({})
    assert "hello" in (outside / "log.txt").read_text() and (tmp_path / "run").is_symlink()
    assert report(tmp_path / "run").is_file()


def test_no_writer_follows_a_link_by_itself(tmp_path: Path, outside: Path) -> None:
    """Where nothing looked at the whole folder before."""
    victim = outside / "victim"
    victim.write_text("a\n1\n")
    before = content(outside)
    link = tmp_path / "x"

    def journal() -> None:
        import optuna

        persist(optuna.create_study(), link, "x")

    def lock() -> None:
        with held(link, wait=True):
            pass

    def whole_lock() -> None:
        with folder_lock(tmp_path, None, print):
            pass

    writers: dict[str, Callable[[], object]] = {
        "x": lambda: CsvLog(link).append({"a": 1}),
        "x ": lambda: os.close(not_through(link, os.O_WRONLY | os.O_TRUNC)),
        "x  ": journal,
        "x   ": lock,
        "log.txt": lambda: RunLog(tmp_path).log_message("x"),
        ".lock": whole_lock,
        ".lock.all": whole_lock,
    }
    for name, write in writers.items():
        place = tmp_path / name.strip()
        place.symlink_to(victim)
        with pytest.raises(SettingError, match="a link to"):
            write()
        assert content(outside) == before
        place.unlink()
    replaced: tuple[Callable[[Path], object], ...] = (
        lambda path: atomic_write(path, "x"),
        lambda path: create(path).close(),
        remove,
    )
    for act in replaced:  # they put something in the place of the link
        link.symlink_to(victim)
        act(link)
        assert content(outside) == before and not link.is_symlink()
        link.unlink(missing_ok=True)
    link.symlink_to(outside)
    remove(link)
    assert content(outside) == before and not link.exists()


def test_a_store_of_answers(tmp_path: Path, outside: Path) -> None:
    folder = prepare(tmp_path / "cache", {"teacher": "x"}, 4, 2, {"views": (3,)}, "")
    with led_outside(folder / "views.npy", outside):
        with pytest.raises(SettingError, match="a link to"):
            ViewStore.open(folder, writable=True)
        ViewStore.open(folder, writable=False)
    assert ViewStore.open(folder, writable=True)


def test_students_replace_students_alone(tmp_path: Path, outside: Path) -> None:
    from test_pickles import tiny

    student = load_student(tiny(tmp_path / "one"))
    (tmp_path / "link").symlink_to(tiny(outside / "two"))
    save_student(student, tmp_path / "link")
    assert (tmp_path / "link").is_symlink() and load_student(outside / "two")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "one", "outside"]
    (outside / "two/notes.txt").write_text("mine")
    with pytest.raises(SettingError, match=r"this holds notes\.txt"):
        save_student(student, outside / "two")
    assert (outside / "two/notes.txt").read_text() == "mine"
    with pytest.raises(SettingError, match="this is a file"):
        save_student(student, outside / "two/arch.json")


def test_exports_stay_in_the_student_folder(tmp_path: Path, outside: Path) -> None:
    from test_pickles import tiny

    folder = tiny(tmp_path / "one")
    (folder / "export").symlink_to(outside)
    with pytest.raises(SettingError, match="a link to"):
        export(folder, to="torchscript")
    assert not list(outside.iterdir())
    (folder / "export").unlink()
    assert export(folder, to="torchscript").path.is_file()


def test_refuse_links_looks_everywhere(tmp_path: Path) -> None:
    deep = tmp_path / "a/b/c"
    deep.mkdir(parents=True)
    (deep / "file").write_text("x")
    refuse_links(tmp_path)
    (deep / "link").symlink_to(deep)  # a circle
    with pytest.raises(SettingError, match="a/b/c/link"):
        refuse_links(tmp_path)
    shutil.rmtree(tmp_path / "a")
    refuse_links(tmp_path / "nothing")
