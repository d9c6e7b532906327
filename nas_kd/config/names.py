"""Names in settings: keys of tables, read without importing them, and objects in a user's own modules."""

from __future__ import annotations

import ast
import sys
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from nas_kd.errors import SettingError

PACKAGE = Path(__file__).parents[1]
HUBS = ("hf-hub:", "hf_hub:", "local-dir:")  # timm's own prefixes of names, not package:object


@cache
def names_in_tables(place: str, kind: str) -> tuple[str, ...]:
    """List the keys of all tables annotated ``dict[str, kind]``, in the order of files and tables.

    Args:
        place: a file or folder of nas_kd, such as ``distill/methods``.
        kind: type of the values, such as ``Entry``.
    """
    path = PACKAGE / place
    files = sorted(path.glob("*.py")) if path.is_dir() else [path]
    tables = [
        node.value
        for file in files
        for node in ast.parse(file.read_text(encoding="utf-8")).body
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.annotation) == f"dict[str, {kind}]"
    ]
    keys = [key for table in tables if isinstance(table, ast.Dict) for key in table.keys]
    return tuple(str(key.value) for key in keys if isinstance(key, ast.Constant))


def imported(field: str, name: str) -> Any:
    """Import an object by name.

    Args:
        field: the setting, for the error message.
        name: ``package.module:object``.

    Raises:
        SettingError: the module or object does not exist, or belongs to Python's standard library.
    """
    place, _, own = name.partition(":")
    if place.split(".")[0] in {*sys.stdlib_module_names, "__main__"}:
        raise SettingError(field, name, "an object in an installed package, or in a module on the Python path")
    try:
        return getattr(import_module(place), own)
    except (ImportError, AttributeError, ValueError) as error:
        hint = f"install the package that holds {place}, or put it on PYTHONPATH"
        raise SettingError(field, name, f"package.module:object that can be imported ({error})", hint) from error
