"""The order of the rooms: imports go one way, and quick things stay quick."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Collection, Iterator
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest

import nas_kd
from nas_kd.config.settings import help_of, settings_of
from nas_kd.pipeline.config import Config

PACKAGE = Path(nas_kd.__file__).parent
# a room may import those before it in this order, at the top of a file or inside a function
ROOMS = (
    "version",
    "errors",
    "lazy",
    "config",
    "losses",
    "runtime",
    "runs",
    "nn",
    "space",
    "blocks",
    "supernet",
    "data",
    "cost",
    "export",
    "teacher",
    "derive",
    "distill",
    "train",
    "rate",
    "solve",
    "analyse",
    "searcher",
    "ranking",
    "pipeline",
    "cli",
    "__main__",
)
# no torch at import
QUICK = ("version", "errors", "lazy", "runtime", "runs", "space", "config", "cli", "__main__", "__init__")
TORCHLESS = ("solve", "analyse")  # no torch at all
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

    yield from walk(parsed(path))


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def test_imports_go_one_way() -> None:
    wrong = []
    for path in modules():
        room = room_of(path)
        if room == "__init__":  # the public names, which load with their first use
            continue
        assert room in ROOMS, f"{room} has no place in the order of the rooms"
        allowed = ROOMS[: ROOMS.index(room) + 1]
        for line, name in imported(path, late=True):
            first, *rest = name.split(".")
            if first == "nas_kd" and (not rest or rest[0] not in allowed):
                wrong.append(f"{path}:{line}: {room} imports {name}")
    assert not wrong, "\n".join(wrong)


def test_torch_and_search_spaces_stay_outside() -> None:
    wrong = []
    for path in modules():
        room = room_of(path)
        for line, name in imported(path, late=True):
            top = name.split(".")[0]
            if top == "search_spaces":
                wrong.append(f"{path}:{line}: nas_kd finds spaces by name, it does not import them")
            if room in TORCHLESS and (top in NO_TORCH or name.startswith(("nas_kd.train", "nas_kd.teacher"))):
                wrong.append(f"{path}:{line}: {room} imports {name}")
        if room in QUICK and path.name != "reduce.py":  # gradients over processes, for trainings alone
            for line, name in imported(path, late=False):
                if name.split(".")[0] in NO_TORCH:
                    wrong.append(f"{path}:{line}: {room} imports {name} at import time")
    assert not wrong, "\n".join(wrong)


def test_no_file_imports_itself_by_a_detour() -> None:
    """Imports inside functions and those for type checkers count too."""
    names = {".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts): path for path in modules()}
    names = {name.removesuffix(".__init__"): path for name, path in names.items() if name != "nas_kd.__init__"}
    imports = {name: named(path, names) - {name} for name, path in names.items()}
    left = set(imports)
    while True:  # what imports nothing that is left, or is imported by nothing that is left, is on no circle
        wanted = set().union(*(imports[name] & left for name in left)) if left else set()
        free = {name for name in left if name not in wanted or not imports[name] & left}
        if not free:
            break
        left -= free
    assert not left, "\n".join(f"{name} imports {', '.join(sorted(imports[name] & left))}" for name in sorted(left))


def named(path: Path, names: Collection[str]) -> set[str]:
    """Return the modules that a file imports, of those that have names."""
    found = set()
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.ImportFrom):
            each = (f"{node.module}.{alias.name}" for alias in node.names)
            found |= {name if name in names else str(node.module) for name in each}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found & set(names)


def test_losses_import_torch_errors_and_the_check_of_kinds_only() -> None:
    for path in (PACKAGE / "losses").glob("*.py"):
        for line, name in imported(path, late=True):
            top, own = name.split(".")[0], name.startswith("nas_kd.losses")
            free = own or name in ("nas_kd.errors", "nas_kd.config.kinds") or top in {*sys.stdlib_module_names, "torch"}
            assert free, f"{path}:{line}: losses import {name}"


@pytest.mark.parametrize(
    "code",
    [
        "import nas_kd",
        "import nas_kd.space",
        "import nas_kd.runs.run, nas_kd.runtime, nas_kd.config, nas_kd.cli, nas_kd.pipeline.read_config",
        "import nas_kd.data.config, nas_kd.searcher.config, nas_kd.ranking.config, nas_kd.pipeline.config",
        "import nas_kd.train.config, nas_kd.train.supernet_config, nas_kd.train.teacher_config",
    ],
)
def test_import_is_without_torch(code: str) -> None:
    check = "import sys; assert not {'torch', 'timm', 'optuna', 'nni'} & set(sys.modules)"
    env = os.environ | {"PYTHONPATH": str(PACKAGE.parent)}
    found = subprocess.run([sys.executable, "-c", f"{code}\n{check}"], env=env, capture_output=True, text=True)
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
    # the function's name is the room's: `nas_kd.export` is the room, which can be called
    assert typed == nas_kd._HOME | {"export": "export"}


def test_no_module_hides_a_name_of_its_room() -> None:
    """Once a module is imported, its room holds it by its name, and a lazy name is not looked up any more."""
    lazy = [path.parent for path in PACKAGE.rglob("__init__.py") if "_HOME" in path.read_text()]
    assert len(lazy) > 4
    for room in lazy:
        names = import_module(".".join(room.relative_to(PACKAGE.parent).parts))._HOME
        assert not names.keys() & {path.stem for path in room.iterdir()}, room


def test_every_extra_is_used() -> None:
    """Some package that an extra brings is named in the code, or the extra promises nothing."""
    given = dict(re.findall(r"^(\w+) = \[(.*)\]", _section("project.optional-dependencies"), re.MULTILINE))
    given.pop("test")
    assert given
    texts = [path.read_text() for path in PACKAGE.rglob("*.py")]
    for extra, packages in given.items():
        names = re.findall(r'"([\w-]+)', packages)
        assert any(re.search(rf"\b{name}\b", text) for name in names for text in texts), extra


def _section(name: str) -> str:
    text = (PACKAGE.parent / "pyproject.toml").read_text()
    return text.partition(f"[{name}]\n")[2].partition("\n[")[0]


def test_what_readmes_and_help_name_is_reached_by_a_plain_import() -> None:
    """Each with none of the package's modules loaded before, so that no name is there by another one's import."""
    texts = [path.read_text() for path in PACKAGE.parent.glob("**/README.md")]
    texts += [help_of(*known) for known in settings_of(Config).values()]
    named = {found for text in texts for found in re.findall(r"(?<!import )\bnas_kd\.\w+(?:\.\w+)*", text)}
    named |= {"nas_kd.rate.scores.SCORES", "nas_kd.space.nni_codec"}
    assert {"nas_kd.losses.kd", "nas_kd.teacher.check_teacher"} <= named
    code = (
        "import sys\n"
        f"for name in {sorted(named)!r}:\n"
        "    for module in [each for each in sys.modules if each.partition('.')[0] == 'nas_kd']:\n"
        "        del sys.modules[module]\n"
        "    import nas_kd\n"
        "    found = nas_kd\n"
        "    for part in name.split('.')[1:]:\n"
        "        found = getattr(found, part, None)\n"
        "        assert found is not None, name\n"
    )
    env = os.environ | {"PYTHONPATH": str(PACKAGE.parent)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
