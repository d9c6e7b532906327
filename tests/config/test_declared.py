"""A setting has one home: what is declared where, over the whole library."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import nas_kd
from nas_kd.config.names import imported
from nas_kd.config.settings import Settings, default_of, fields_of, settings_of
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


# one name, three things: the images, whether stages are trained, and whether archs are
SEVERAL = {"train"}


def sections(path: Path) -> list[ast.ClassDef]:
    """Find the classes of settings in a file."""
    nodes = [node for node in ast.walk(TREES[path]) if isinstance(node, ast.ClassDef)]
    return [node for node in nodes if any(ast.unparse(d).startswith("settings(") for d in node.decorator_list)]


def test_a_settings_name_is_declared_in_two_files_at_most() -> None:
    """With type and help; a stage that shares a setting says only what it changes of it."""
    files: dict[str, set[str]] = {}
    for path in TREES:
        for node in sections(path):
            for entry in node.body:
                if isinstance(entry, ast.AnnAssign):
                    files.setdefault(ast.unparse(entry.target), set()).add(str(path.relative_to(PACKAGE)))
    assert {name: paths for name, paths in files.items() if len(paths) > 2 and name not in SEVERAL} == {}
    assert len(files) > 100 and files["lr"] == {"train/learning_config.py", "train/config.py"}


def test_a_settings_name_and_default_stand_in_two_files_at_most() -> None:
    """Of classes and of functions; defaults that say nothing do not count."""
    known = {(full.rpartition(".")[2], repr(default_of(*where))) for full, where in settings_of(Config).items()}
    files: dict[tuple[str, str], list[str]] = {}
    for path, tree in TREES.items():
        for name, default in declarations(tree):
            if (name, repr(default)) in known and default not in OFF:
                files.setdefault((name, repr(default)), []).append(str(path.relative_to(PACKAGE)))
    assert {one: paths for one, paths in files.items() if len(paths) > 2} == {}
    assert len(known) > 90


def test_what_a_stage_changes_of_a_shared_setting_differs() -> None:
    kinds = {kind for kind, _ in settings_of(Config).values()}
    changed = [(kind, name, new) for kind in kinds for name, new in kind.changed.items()]
    assert len(changed) > 8
    for kind, name, new in changed:
        shared = next(base for base in kind.__mro__[1:] if issubclass(base, Settings) and name in fields_of(base))
        assert new.help or new.kind or new.default != default_of(shared, name), f"{kind.__name__}.{name}"


def test_no_function_has_many_parameters() -> None:
    many = []
    for path, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                own = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
                if len([one for one in own if one.arg != "self"]) > MOST:
                    many.append(f"{path}:{node.lineno}: {node.name}")
    assert not many, "\n".join(many)


def test_objects_of_ones_own_are_imported_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_things.py").write_text("THING = 5\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert imported("rank.scores", "own_things:THING") == 5
    for name in ("own_things:OTHER", "no_such_things:THING", "os:system", "own_things:"):
        with pytest.raises(SettingError, match="rank.scores="):
            imported("rank.scores", name)
