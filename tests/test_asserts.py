"""An assert in nas_kd may only narrow a type: with ``python -O`` it is gone, and nothing else may change."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import nas_kd

PACKAGE = Path(nas_kd.__file__).parent
PLAIN = (ast.Name, ast.Constant, ast.BoolOp, ast.boolop, ast.UnaryOp, ast.unaryop, ast.Compare, ast.cmpop, ast.Load)


@cache
def trees() -> list[tuple[Path, ast.Module]]:
    return [(path, ast.parse(path.read_text())) for path in sorted(PACKAGE.rglob("*.py"))]


def computed_names(tree: ast.AST) -> set[str]:
    """Return the names of properties, cached or not: reading one runs code."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            marks = {
                mark.attr if isinstance(mark, ast.Attribute) else ast.unparse(mark) for mark in node.decorator_list
            }
            found |= {node.name} if marks & {"property", "cached_property"} else set()
    return found


def acts(test: ast.AST, computed: set[str]) -> Iterator[str]:
    """Name what in a condition may do something: all but comparisons of names, constants, plain attributes and types.

    ``isinstance`` of such values is the one call that is none.
    """
    if isinstance(test, ast.Call):
        if ast.unparse(test.func) != "isinstance":
            yield ast.unparse(test)
        for value in test.args:
            yield from acts(value, computed)
        return
    if isinstance(test, ast.Attribute):
        if test.attr in computed:
            yield f"{ast.unparse(test)}, a property"
    elif not isinstance(test, PLAIN):
        yield ast.unparse(test)
    for part in ast.iter_child_nodes(test):
        yield from acts(part, computed)


def effects(tree: ast.AST, computed: set[str]) -> list[str]:
    asserts = [node for node in ast.walk(tree) if isinstance(node, ast.Assert)]
    return [f"{node.lineno}: {what}" for node in asserts for what in acts(node.test, computed)]


def test_no_assert_does_anything() -> None:
    computed = set().union(*(computed_names(tree) for _, tree in trees()))
    assert {"supernet", "budget", "tables"} <= computed
    assert [f"{path}:{found}" for path, tree in trees() for found in effects(tree, computed)] == []


def test_nothing_asks_whether_asserts_run() -> None:
    for path, tree in trees():
        assert "__debug__" not in {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}, path


@pytest.mark.parametrize(
    "line",
    [
        "assert open_budget()",
        "assert pipeline.supernet",
        "assert Pipeline(config).supernet is not None",
        "assert (found := best) is not None",
        "assert rows[0]",
        "assert [row for row in rows]",
        "assert isinstance(made(), int)",
    ],
)
def test_the_rule_sees_what_acts(line: str) -> None:
    assert effects(ast.parse(line), {"supernet"})


@pytest.mark.parametrize("line", ["assert x is not None and a.b.c is not None", "assert isinstance(x, nn.Conv2d)"])
def test_the_rule_lets_types_be_narrowed(line: str) -> None:
    assert not effects(ast.parse(line), {"supernet"})
