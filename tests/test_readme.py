"""The READMEs: short, their links lead somewhere, and the examples of the package run as they stand."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import nas_kd
from nas_kd.distill.methods import METHODS

TOP = Path(nas_kd.__file__).parents[1]
READMES = sorted(path for path in TOP.glob("**/README.md") if not {".venv", "runs", "build"} & set(path.parts))
LINK = re.compile(r"\]\(([^)#]+)(?:#[^)]*)?\)")


def test_the_first_readme_is_short() -> None:
    assert len((TOP / "README.md").read_text().splitlines()) < 200


@pytest.mark.parametrize(
    ("readme", "pattern"),
    [
        ("README.md", r"\*\*Method\.\*\* (\d+) methods"),
        ("nas_kd/distill/README.md", r"`nas-kd methods` lists all (\d+)"),
    ],
)
def test_readmes_count_the_methods_right(readme: str, pattern: str) -> None:
    assert [int(count) for count in re.findall(pattern, (TOP / readme).read_text())] == [len(METHODS)]


@pytest.mark.parametrize("path", READMES, ids=lambda path: str(path.relative_to(TOP)))
def test_links_lead_somewhere(path: Path) -> None:
    for link in LINK.findall(path.read_text()):
        if "://" not in link:
            assert (path.parent / link).exists(), f"{path}: {link}"


def test_what_is_added_runs_as_the_readme_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", (TOP / "nas_kd" / "README.md").read_text(), re.DOTALL)
    assert len(blocks) >= 6
    program = "\n".join(blocks)
    exec(compile(program, "nas_kd/README.md", "exec"), {"__name__": "readme"})
