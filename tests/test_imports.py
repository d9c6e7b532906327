"""The order of the rooms: imports go one way, and quick things stay quick."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import nas_kd

PACKAGE = Path(nas_kd.__file__).parent
# a room may import at its top those before it in this order
ROOMS = (
    "space", "nn", "supernet", "data", "teacher", "losses", "distill", "train", "cost", "rate", "solve",
    "analyse", "export",
)  # fmt: skip
LEAVES = (
    "errors", "checks", "config", "files", "leases", "locks", "processes", "progress", "runtime", "run", "stage",
    "status", "stopping",
)  # fmt: skip  # everybody may
TOP = ("verbs", "cli", "__main__", "__init__")  # may import everything
NO_TORCH = ("torch", "torchvision", "timm", "lightning_fabric")


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path: Path, *, late: bool) -> Iterator[tuple[int, str]]:
    """Yield (line, dotted name) of a file's imports; those inside functions only when ``late``."""

    def walk(node: ast.AST) -> Iterator[tuple[int, str]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                yield from ((child.lineno, alias.name) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                assert child.level == 0, f"{path}:{child.lineno}: imports are absolute"
                module = child.module or ""
                if module == "nas_kd":
                    yield from ((child.lineno, f"nas_kd.{alias.name}") for alias in child.names)
                else:
                    yield child.lineno, module
            elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                yield from walk(ast.Module(child.orelse, []))
            elif late or not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                yield from walk(child)

    yield from walk(ast.parse(path.read_text()))


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_one_way(path: Path) -> None:
    room = room_of(path)
    assert room in (*ROOMS, *LEAVES, *TOP), f"{room} has no place in the order of the rooms"
    allowed = set(LEAVES)
    if room in ROOMS:
        allowed |= set(ROOMS[: ROOMS.index(room) + 1])
    for line, name in imported(path, late=False):
        parts = name.split(".")
        if parts[0] == "nas_kd" and len(parts) > 1 and room not in TOP and parts[1] != "__version__":
            assert parts[1] in allowed, f"{path}:{line}: {room} imports {parts[1]}"


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_torch_and_search_spaces_stay_outside(path: Path) -> None:
    room = room_of(path)
    for line, name in imported(path, late=True):
        top = name.split(".")[0]
        assert top != "search_spaces", f"{path}:{line}: nas_kd finds spaces by name, it does not import them"
        if room in ("analyse", "solve"):
            assert top not in NO_TORCH, f"{path}:{line}: {room} imports {top}"
            assert not name.startswith(("nas_kd.train", "nas_kd.teacher")), (
                f"{path}:{line}: {room} imports {name}"
            )
    if room in ("space", *LEAVES, *TOP) and room != "verbs":
        for line, name in imported(path, late=False):
            assert name.split(".")[0] not in NO_TORCH, f"{path}:{line}: {room} imports {name} at import time"


def test_losses_import_torch_and_errors_only() -> None:
    for path in (PACKAGE / "losses").glob("*.py"):
        for line, name in imported(path, late=True):
            top, own = name.split(".")[0], name.startswith("nas_kd.losses")
            free = own or name == "nas_kd.errors" or top in {*sys.stdlib_module_names, "torch"}
            assert free, f"{path}:{line}: losses import {name}"


@pytest.mark.parametrize(
    "code",
    ["import nas_kd", "import nas_kd.space", "import nas_kd.run, nas_kd.runtime, nas_kd.config, nas_kd.cli"],
)
def test_import_is_without_torch(code: str) -> None:
    check = "import sys; assert not {'torch', 'timm', 'optuna', 'nni'} & set(sys.modules)"
    env = os.environ | {"PYTHONPATH": str(PACKAGE.parent)}
    found = subprocess.run(
        [sys.executable, "-c", f"{code}\n{check}"], env=env, capture_output=True, text=True
    )
    assert found.returncode == 0, found.stderr


def test_public_names_resolve() -> None:
    for name in nas_kd.__all__:
        assert getattr(nas_kd, name) is not None
    assert set(nas_kd.__all__) == set(dir(nas_kd))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        nas_kd.nothing  # noqa: B018


def test_public_names_are_typed() -> None:
    """Type checkers see the names below TYPE_CHECKING; people the table: both say the same."""
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    typed = {
        alias.name: str(node.module).removeprefix("nas_kd.")
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert typed == nas_kd._HOME
