"""Values against the types of settings: what fits, and the types in a user's words."""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from typing import Any

from nas_kd.config.checks import LARGEST

WORDS = {int: "an integer", float: "a number", bool: "true or false", str: "text", type(None): "null"}
MANY = {int: "integers", float: "numbers", str: "texts"}


def fits(value: object, hint: Any, read: bool = True) -> bool:
    """Tell whether a value is of a type; true is no 1 and 2.0 no integer, but 2 is a number.

    Args:
        value: plain values and containers of them.
        hint: the type of a setting.
        read: False lets text pass that is still to be read as a number or the like.

    Returns:
        Whether it is.
    """
    origin = typing.get_origin(hint)
    inner = typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, one, read) for one in inner)
    if isinstance(value, str) and not read:
        return True
    if origin is list:
        return isinstance(value, list) and all(fits(item, inner[0], read) for item in value)
    if origin is tuple:
        if not isinstance(value, list | tuple) or len(value) != len(inner):
            return False
        return all(fits(item, one, read) for item, one in zip(value, inner, strict=True))
    if origin is dict:
        items = value.items() if isinstance(value, dict) else [(None, None)]
        return all(fits(key, inner[0]) and fits(item, inner[1], read) for key, item in items)
    if isinstance(value, bool) or hint is bool:
        return isinstance(value, bool) and hint is bool
    if isinstance(value, int) and hint in (int, float):
        return abs(value) < LARGEST  # a whole number is a number too
    return isinstance(value, hint)


def worded(hint: Any) -> str:
    """Word a type as users write its values.

    Args:
        hint: the type of a setting.

    Returns:
        Such as ``an integer or null``.
    """
    origin = typing.get_origin(hint)
    inner = typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(worded(one) for one in inner)
    if origin is list:
        return f"a list of {MANY.get(inner[0], worded(inner[0]))}"
    if origin is tuple:
        return f"[{', '.join(worded(one) for one in inner)}]"
    if origin is dict:
        return f"a mapping of names to {worded(inner[1])}"
    return WORDS[hint]


def hints_of(kind: type, prefix: str = "") -> Mapping[str, Any]:
    """List all settings below a dataclass by their dotted names.

    Args:
        kind: the dataclass.
        prefix: what the names begin with.

    Returns:
        Dotted name to type, in the order of the fields.
    """
    found: dict[str, Any] = {}
    for name, hint in typing.get_type_hints(kind).items():
        found |= hints_of(hint, f"{prefix}{name}.") if _section(hint) else {prefix + name: hint}
    return found


def _section(hint: Any) -> bool:
    return hasattr(hint, "__dataclass_fields__")
