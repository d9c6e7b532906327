"""Descriptions of the types of settings, for messages and help."""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic.fields import FieldInfo

from nas_kd.config.types import LARGEST

WORDS = {int: "an integer", float: "a number", bool: "true or false", str: "text", type(None): "null"}
MANY = {int: "integers", float: "numbers", str: "texts"}


def described(hint: Any) -> str:
    """Describe the values of a type, such as ``an integer of at least 1 or null``.

    Args:
        hint: the type of a setting; a string in its ``Annotated`` is used verbatim.
    """
    origin = typing.get_origin(hint)
    inner = typing.get_args(hint)
    if origin is Annotated:
        own = [item for item in hint.__metadata__ if isinstance(item, str)]
        return own[0] if own else described(inner[0]) + _range(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(described(one) for one in inner)
    if origin is Literal:
        return ", ".join(inner)
    if origin is Sequence:
        each = inner[0]
        bare = typing.get_args(each)[0] if typing.get_origin(each) is Annotated else each
        return f"a list of {MANY[bare]}{_range(each)}" if bare in MANY else f"a list, each {described(each)}"
    if origin is Mapping:
        return f"a mapping of names to {described(inner[1])}"
    return WORDS[hint]


def names_in(hint: Any) -> tuple[str, ...]:
    """Return the names that a type allows."""
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
    parts = [f"{words[name]} {bound}" for name, bound in bounds.items() if abs(bound) < LARGEST]
    return f" {' and '.join(parts)}" if parts else ""
