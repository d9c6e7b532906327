"""Names in the tables of a package's files, read without importing them: a name that is wrong is said before torch."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).parents[1]


@cache
def names_in_tables(place: str, kind: str) -> tuple[str, ...]:
    """List the keys of all tables of a kind.

    Args:
        place: a file or folder of nas_kd, such as ``distill/methods``.
        kind: what the tables hold, such as ``Entry`` for those that say ``dict[str, Entry]``.

    Returns:
        The names, in the order of files and tables.
    """
    path = PACKAGE / place
    files = sorted(path.glob("*.py")) if path.is_dir() else [path]
    tables = [
        node.value
        for file in files
        for node in ast.parse(file.read_text()).body
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.annotation) == f"dict[str, {kind}]"
    ]
    keys = [key for table in tables if isinstance(table, ast.Dict) for key in table.keys]
    return tuple(str(key.value) for key in keys if isinstance(key, ast.Constant))
