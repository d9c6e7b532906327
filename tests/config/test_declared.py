"""A setting has one home: what is declared where, over the whole library."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import nas_kd
from nas_kd.config.names import imported
from nas_kd.config.settings import default_of, settings_of
from nas_kd.errors import SettingError
from nas_kd.pipeline.config import Config

PACKAGE = Path(nas_kd.__file__).parent
TREES = {path: ast.parse(path.read_text()) for path in sorted(PACKAGE.rglob("*.py"))}
MOST = 14  # parameters of a function
OFF = (None, False, 0, 0.0, 1)  # defaults that say nothing: not given, off, one


def declarations(tree: ast.Module) -> set[tuple[str, object]]:
    """Return (name, default) of all parameters and fields that have a constant default."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            places = [*node.args.posonlyargs, *node.args.args]
            found += zip(reversed(places), reversed(node.args.defaults), strict=False)
            found += zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)
        elif isinstance(node, ast.ClassDef):
            found += [(entry.target, entry.value) for entry in node.body if isinstance(entry, ast.AnnAssign)]
    return {
        (getattr(place, "arg", None) or ast.unparse(place), value.value)
        for place, value in found
        if isinstance(value, ast.Constant)
    }


def test_a_setting_is_declared_in_its_class_and_at_most_in_one_file_more() -> None:
    """Classes of several sections may have a setting of one name; what has the name and another default is another."""
    known = {(full.rpartition(".")[2], repr(default_of(*where))) for full, where in settings_of(Config).items()}
    homes = {
        Path(str(__import__(kind.__module__, fromlist=["_"]).__file__)) for kind, _ in settings_of(Config).values()
    }
    files: dict[tuple[str, str], list[str]] = {}
    for path in set(TREES) - homes:
        for name, default in declarations(TREES[path]):
            if (name, repr(default)) in known and default not in OFF:
                files.setdefault((name, repr(default)), []).append(str(path.relative_to(PACKAGE)))
    assert {one: paths for one, paths in files.items() if len(paths) > 1} == {}
    assert len(known) > 90


@pytest.mark.parametrize("path", TREES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_function_has_many_parameters(path: Path) -> None:
    for node in ast.walk(TREES[path]):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            own = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            assert len([one for one in own if one.arg != "self"]) <= MOST, node.name


def test_objects_of_ones_own_are_imported_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_things.py").write_text("THING = 5\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert imported("rank.scores", "own_things:THING") == 5
    for name in ("own_things:OTHER", "no_such_things:THING", "os:system", "own_things:"):
        with pytest.raises(SettingError, match="rank.scores="):
            imported("rank.scores", name)
