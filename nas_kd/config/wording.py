"""The types of settings in a user's words."""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic.fields import FieldInfo

from nas_kd.config.types import LARGEST

WORDS = {int: "an integer", float: "a number", bool: "true or false", str: "text", type(None): "null"}
MANY = {int: "integers", float: "numbers", str: "texts"}


def worded(hint: Any) -> str:
    """Word a type as users write its values.

    Args:
        hint: the type of a setting; a text in its ``Annotated`` is used verbatim.

    Returns:
        Such as ``an integer of at least 1 or null``.
    """
    origin = typing.get_origin(hint)
    inner = typing.get_args(hint)
    if origin is Annotated:
        own = [item for item in hint.__metadata__ if isinstance(item, str)]
        return own[0] if own else worded(inner[0]) + _range(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(worded(one) for one in inner)
    if origin is Literal:
        return ", ".join(inner)
    if origin is Sequence:
        each = inner[0]
        bare = typing.get_args(each)[0] if typing.get_origin(each) is Annotated else each
        return f"a list of {MANY[bare]}{_range(each)}" if bare in MANY else f"a list, each {worded(each)}"
    if origin is Mapping:
        return f"a mapping of names to {worded(inner[1])}"
    return WORDS[hint]


def names_in(hint: Any) -> tuple[str, ...]:
    """Return the words that a type allows, to find the nearest to another one."""
    if typing.get_origin(hint) is Literal:
        return typing.get_args(hint)
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return tuple(name for one in typing.get_args(hint) for name in names_in(one))
    return ()


def _range(hint: Any) -> str:
    bounds: dict[str, Any] = {}
    for info in getattr(hint, "__metadata__", ()):
        for item in info.metadata if isinstance(info, FieldInfo) else ():
            bounds |= {name: getattr(item, name) for name in ("ge", "gt", "le", "lt") if hasattr(item, name)}
    words = {"ge": "of at least", "gt": "above", "le": "up to", "lt": "below"}
    told = [f"{words[name]} {bound}" for name, bound in bounds.items() if abs(bound) < LARGEST]
    return "".join(f" {part}" for part in [" and ".join(told)] if part)
