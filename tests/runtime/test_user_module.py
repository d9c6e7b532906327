"""Modules of the working folder: only those that a user names, last on the path, and only then in workers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from nas_kd.runtime import user_module
from nas_kd.runtime.user_module import folders_of_user, import_of_user

SCRIPT = """
import importlib.util
import os
import sys
sys.path[:] = [path for path in sys.path if path not in ("", os.getcwd())]
from nas_kd.runtime.jobs import run_jobs
from nas_kd.runtime.user_module import import_of_user

def main():
    for name in sys.argv[1:]:
        import_of_user(name)
    jobs = [{"name": "beside"}] * 2
    print([found is not None for found in run_jobs(importlib.util.find_spec, jobs, workers=2)])

if __name__ == "__main__":
    main()
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("named_by_user", "beside"):
        (tmp_path / f"{name}.py").write_text("")
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(user_module, "_used", [])
    return tmp_path


def test_the_path_stays_in_its_order(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = [*sys.path]
    import_of_user("named_by_user")
    assert sys.path == before and folders_of_user() == (str(here),)
    monkeypatch.syspath_prepend(here)
    before = [*sys.path]
    import_of_user("beside")
    assert sys.path == before and before[0] == str(here)


def test_an_installed_module_brings_no_folder(here: Path) -> None:
    import_of_user("yaml")
    assert folders_of_user() == ()
    with pytest.raises(ImportError):
        import_of_user("nowhere_at_all")
    assert folders_of_user() == () and str(here) not in sys.path


@pytest.mark.parametrize("named", [pytest.param((), marks=pytest.mark.slow), ("named_by_user",)])
def test_workers_see_the_folder_if_the_user_named_a_module_of_it(named: tuple[str, ...], here: Path) -> None:
    script = here.parent / f"{here.name}_script"
    script.mkdir()
    (script / "script.py").write_text(SCRIPT)
    done = subprocess.run([sys.executable, script / "script.py", *named], capture_output=True, text=True, cwd=here)
    assert done.stdout.strip() == f"{[bool(named)] * 2}", done.stderr
