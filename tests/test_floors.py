"""The lowest versions that pyproject.toml allows are those that the tests run with."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pytest brings it

TOP = Path(__file__).parents[1]
PROJECT: dict[str, Any] = tomllib.loads((TOP / "pyproject.toml").read_text())["project"]
CHECKS = {"ruff", "mypy", "pandas-stubs", "scipy-stubs", "types-PyYAML"}  # these read code, they do not run it


def floors(lines: list[str]) -> dict[str, str]:
    """Return the one lower bound of each requirement."""
    found = {}
    for requirement in map(Requirement, lines):
        bounds = [bound.version for bound in requirement.specifier if bound.operator == ">="]
        assert len(bounds) == 1, f"{requirement}: every package that nas_kd imports has a lower bound"
        found[requirement.name] = bounds[0]
    return found


def pinned() -> dict[str, str]:
    """Return what .ci/constraints.txt names."""
    lines = (TOP / ".ci/constraints.txt").read_text().splitlines()
    pairs = [line.split("==") for line in lines if not line.startswith("#")]
    return {name: version for name, version in pairs}


def test_the_lowest_versions_are_the_tested_ones() -> None:
    runners = [line for line in PROJECT["optional-dependencies"]["test"] if Requirement(line).name not in CHECKS]
    assert pinned() == floors(PROJECT["dependencies"]) | floors(runners)


def test_extras_ask_for_nothing_lower() -> None:
    for name, lines in PROJECT["optional-dependencies"].items():
        for package, version in floors([line for line in lines if Requirement(line).name not in CHECKS]).items():
            assert pinned().get(package, version) == version, f"{package} in {name}"


def test_the_lowest_python_is_the_one_asked_for() -> None:
    lowest = PROJECT["requires-python"].split(",")[0].removeprefix(">=")
    assert f"for version in {lowest} " in (TOP / ".ci/run").read_text()
    assert f'target-version = "py{lowest.replace(".", "")}"' in (TOP / "pyproject.toml").read_text()
