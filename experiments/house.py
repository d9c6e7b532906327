"""Count how the code is built, for comparison of two versions: one table.

    python experiments/house.py                  # this checkout
    python experiments/house.py OLD NEW          # two checkouts side by side

Counts, no timings: any machine, nothing is drawn, so no seeds. Result: printed; nothing is kept. A setting is declared
where a field or a parameter of its name has its default; what a run as a whole takes (space, seed, device, ...) is no
setting of a stage. ``--quick`` counts the same.
"""

from __future__ import annotations

import argparse
import ast
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).parents[1]
COMMANDS = ("run", "describe", "teacher", "supernet", "blockwise", "search", "retrain", "rank", "report", "status")
# classes whose instances are told apart: blocks, and what teaches
BLOCKS = re.compile(
    r"^(Basic|MB|ViT|Bottleneck|Conv|Linear|Patch)\w*(Stage|Stem|Head|Block|Candidate|Layer)$|^Elastic(?!Space)\w+$"
)
TARGETS = re.compile(r"^(Teacher|ViewCache|TargetSource|LiveTeacher|CachedTeacher|LogitCache|StoredFeatures)\w*$")
OF_A_RUN = {"space", "run", "seed", "device", "precision", "threads", "workers", "on_nan", "max_hours", "resolution"}
SECTIONS = re.compile(
    r"^(Data|Teacher|Training|Learning|NetworkLearning|Measuring|Calibration|Supernet|Blockwise|Search|Retrain|Rank)Config$"
)


def trees(root: Path) -> dict[Path, ast.Module]:
    """Parse the library."""
    return {path: ast.parse(path.read_text()) for path in sorted((root / "nas_kd").rglob("*.py"))}


def docstring_lines(tree: ast.Module) -> int:
    """Count the lines of docstrings."""
    owners = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    bodies = [node.body for node in ast.walk(tree) if isinstance(node, owners)]
    first = [body[0] for body in bodies if body and isinstance(body[0], ast.Expr)]
    texts = [node for node in first if isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)]
    return sum((node.end_lineno or node.lineno) - node.lineno + 1 for node in texts)


def functions(tree: ast.Module) -> Iterator[ast.FunctionDef]:
    """Go through all functions and methods."""
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))


def parameters(function: ast.FunctionDef) -> list[str]:
    """Name a function's own parameters: without self, *args and **settings."""
    each = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
    return [one.arg for one in each if one.arg not in ("self", "cls")]


def with_default(function: ast.FunctionDef) -> list[tuple[str, str]]:
    """Return (name, default) of the parameters that have a default."""
    places = [*function.args.posonlyargs, *function.args.args]
    pairs = list(zip(reversed(places), reversed(function.args.defaults), strict=False))
    pairs += [
        (one, value) for one, value in zip(function.args.kwonlyargs, function.args.kw_defaults, strict=True) if value
    ]
    return [(one.arg, written(value)) for one, value in pairs]


def fields(node: ast.ClassDef) -> list[tuple[str, str]]:
    """Return (name, default) of the annotated fields of a class that have a default."""
    each = [(entry.target, entry.value) for entry in node.body if isinstance(entry, ast.AnnAssign)]
    return [(target.id, written(value)) for target, value in each if value is not None and isinstance(target, ast.Name)]


def changed(node: ast.ClassDef) -> list[tuple[str, str]]:
    """Return (name, default) of the settings that a class shares with others, with a default of its own."""
    calls = [one for one in node.decorator_list if isinstance(one, ast.Call) and ast.unparse(one.func) == "settings"]
    tables = [given for call in calls for given in call.args[1:2] if isinstance(given, ast.Dict)]
    return [
        (str(name.value), written(value.args[0] if isinstance(value, ast.Call) else value))
        for table in tables
        for name, value in zip(table.keys, table.values, strict=True)
        if isinstance(name, ast.Constant)
    ]


def written(value: ast.expr) -> str:
    """Return a default so that equal ones are equal: 0.01 and 1e-2."""
    return repr(value.value) if isinstance(value, ast.Constant) else ast.unparse(value)


def declared(files: dict[Path, ast.Module]) -> dict[tuple[str, str], set[Path]]:
    """Return the files that declare each setting of a stage, by name and default."""
    names: set[tuple[str, str]] = set()
    found: dict[tuple[str, str], set[Path]] = {}
    for path, tree in files.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                names |= {*fields(node), *changed(node)} if SECTIONS.match(node.name) else set()
                for one in [*fields(node), *changed(node)]:
                    found.setdefault(one, set()).add(path)
            elif isinstance(node, ast.FunctionDef):
                for one in with_default(node):
                    found.setdefault(one, set()).add(path)
    return {one: found[one] for one in names if one[0] not in OF_A_RUN}


def isinstance_tests(files: dict[Path, ast.Module], names: re.Pattern[str]) -> int:
    """Count the isinstance tests on classes whose names match."""
    count = 0
    for tree in files.values():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "isinstance" and len(node.args) == 2:
                given = re.findall(r"\w+", ast.unparse(node.args[1]))
                count += any(names.match(word) for word in given)
    return count


def circles(root: Path, files: dict[Path, ast.Module]) -> int:
    """Count the files that import themselves by a detour, inside functions and for type checkers too."""
    known = {".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): path for path in files}
    known.pop("nas_kd", None)
    imports: dict[str, set[str]] = {}
    for name, path in known.items():
        imports[name] = set()
        for node in ast.walk(files[path]):
            if isinstance(node, ast.ImportFrom):
                each = (f"{node.module}.{alias.name}" for alias in node.names)
                imports[name] |= {one if one in known else str(node.module) for one in each}
        imports[name] = (imports[name] & set(known)) - {name}
    left = set(imports)
    while True:
        wanted = set().union(*(imports[name] & left for name in left)) if left else set()
        free = {name for name in left if name not in wanted or not imports[name] & left}
        if not free:
            return len(left)
        left -= free


def help_lines(root: Path, command: str) -> int:
    """Count the lines of a command's help; 0 where this environment lacks what the checkout needs."""
    env = os.environ | {"PYTHONPATH": str(root), "COLUMNS": "120"}
    call = [sys.executable, "-m", "nas_kd", command, "--help"]
    return len(subprocess.run(call, capture_output=True, text=True, env=env, cwd=root).stdout.splitlines())


def counts(root: Path) -> dict[str, str]:
    """Count everything of one checkout."""
    files = trees(root)
    texts = {path: path.read_text() for path in files}
    lines = sum(len(text.splitlines()) for text in texts.values())
    told = sum(docstring_lines(tree) for tree in files.values())
    sizes = sorted(
        ((len(parameters(one)), one.name) for tree in files.values() for one in functions(tree)), reverse=True
    )
    homes = {name: len(paths) for name, paths in declared(files).items()}
    most = Counter(homes).most_common(1)[0]
    return {
        "files": f"{len(files)}",
        "lines": f"{lines:,}",
        "docstrings": f"{100 * told / lines:.0f} % of the lines",
        "longest signatures": ", ".join(f"{name} {size}" for size, name in sizes[:10]),
        "functions of 15 or more parameters": f"{sum(size >= 15 for size, _ in sizes)}",
        "files that declare a setting": f"mean {sum(homes.values()) / len(homes):.2f}, most {most[1]} ({most[0][0]})",
        "isinstance tests on blocks": f"{isinstance_tests(files, BLOCKS)}",
        "isinstance tests on targets": f"{isinstance_tests(files, TARGETS)}",
        "files on circles of imports": f"{circles(root, files)}",
        "# fmt: skip": f"{sum(text.count('# fmt: skip') for text in texts.values())}",
        "lines of --help": ", ".join(f"{command} {help_lines(root, command)}" for command in COMMANDS),
        "lines of README.md": f"{len((root / 'README.md').read_text().splitlines())}",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("roots", type=Path, nargs="*", default=[HERE], metavar="ROOT")
    parser.add_argument("--quick", action="store_true", help="count the same: it takes seconds")
    roots = [root.resolve() for root in parser.parse_args().roots]
    tables = [counts(root) for root in roots]
    for name in tables[0]:
        print(f"{name}:")
        for root, table in zip(roots, tables, strict=True):
            print(f"  {root.name}: {table[name]}")


if __name__ == "__main__":
    main()
