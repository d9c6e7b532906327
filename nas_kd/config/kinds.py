"""What public functions are given is of the kind that their signatures say, or one message names the argument."""

from __future__ import annotations

import ast
import inspect
import sys
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, wraps
from importlib import import_module
from numbers import Integral, Real
from typing import Annotated, Any, Literal, TypeVar

from nas_kd.errors import SettingError

C = TypeVar("C")
F = TypeVar("F", bound=Callable[..., Any])
FIRST = 8  # entries of a sequence that are looked at
NUMBERS: Mapping[type, type] = {int: Integral, float: Real}
WORDS = {int: "an integer", float: "a number", bool: "True or False", str: "text", type(None): "None"}


def checked(function: F) -> F:
    """Decorate a public function: arguments of another kind than annotated raise SettingError before it is called.

    Annotations are read at the first call, with the names that are imported for them alone. What they leave open, as
    ``Any`` does, is not looked at; of sequences the first entries are.
    """

    @wraps(function)
    def call(*given: Any, **named: Any) -> Any:
        places, hints, plain = _arguments(function)
        for name, value in (*zip(places, given, strict=False), *named.items()):
            if type(value) in plain.get(name, ()):
                continue
            hint = hints.get(name, Any)
            if not _fits(value, hint):
                hint_words = f"see help(nas_kd.{function.__qualname__.removesuffix('.__init__')})"
                raise SettingError(name, _shown(value), _words(hint), hint_words)
        return function(*given, **named)

    return typing.cast(F, call)


def checked_class(kind: type[C]) -> type[C]:
    """Decorate a public dataclass like a function: what it is made of is checked."""
    kind.__init__ = checked(kind.__init__)  # type: ignore[method-assign]
    return kind


@cache
def _arguments(
    function: Callable[..., Any],
) -> tuple[tuple[str, ...], dict[str, Any], dict[str, frozenset[type]]]:
    """Return the names of positional arguments, the types of all that can be resolved, and those that surely fit."""
    parameters = inspect.signature(function).parameters
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    places = tuple(name for name, one in parameters.items() if one.kind in positional)
    names = _names_for(function.__module__)
    hints = {}
    for name, one in parameters.items():
        if isinstance(one.annotation, str) and one.kind not in (one.VAR_KEYWORD, one.VAR_POSITIONAL):
            hints[name] = eval(one.annotation, names)  # noqa: S307  # an annotation of our own source
    return places, hints, {name: _plain(hint) for name, hint in hints.items()}


def _plain(hint: Any) -> frozenset[type]:
    """Return types whose values fit an annotation without a look at them: functions are called a million times."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return frozenset().union(*map(_plain, typing.get_args(hint)))
    if hint is None or hint is float:
        return frozenset({type(None)} if hint is None else {int, float})
    return frozenset({hint} if isinstance(hint, type) and typing.get_origin(hint) is None else ())


@cache
def _names_for(module: str) -> dict[str, Any]:
    """Return what the annotations of a module may name: its own names, and those imported for type checkers alone."""
    home = sys.modules[module]
    names = dict(vars(home))
    for node in ast.parse(inspect.getsource(home)).body:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for one in node.body:
                if isinstance(one, ast.ImportFrom):
                    source = import_module(one.module or "")
                    names |= {alias.asname or alias.name: getattr(source, alias.name) for alias in one.names}
                elif isinstance(one, ast.Import):
                    names |= {alias.asname or alias.name: import_module(alias.name) for alias in one.names}
    return names


def _fits(value: Any, hint: Any) -> bool:
    """Return whether a value is of an annotated kind, as far as the annotation tells."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return True
    if hint is None or hint is type(None):
        return value is None
    if origin is Annotated:
        return _fits(value, inner[0])
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, one) for one in inner)
    if origin is Literal:
        return isinstance(value, str | int) and value in inner
    if origin in (list, tuple, Sequence) or origin is Iterable:
        return _fits_many(value, origin, inner)
    kind = hint if origin is None else origin
    if not isinstance(kind, type):  # Any, a type variable, a name that stands for a type
        return True
    if hasattr(kind, "__total__"):  # a TypedDict, of typing or of typing_extensions
        return isinstance(value, dict)
    if kind in NUMBERS:
        return isinstance(value, NUMBERS[kind]) and not isinstance(value, bool)
    if kind is bool:
        return isinstance(value, bool) or type(value).__name__ in ("bool_", "bool")
    if getattr(kind, "_is_protocol", False) and origin is None:
        return all(hasattr(value, name) for name in _members(kind))
    return isinstance(value, kind)


def _fits_many(value: Any, origin: Any, inner: tuple[Any, ...]) -> bool:
    if isinstance(value, str | bytes | Mapping):
        return False
    if origin is Iterable:
        return hasattr(value, "__iter__") or hasattr(value, "__getitem__")
    if origin is list and not isinstance(value, list):
        return False
    if not hasattr(value, "__len__") or not hasattr(value, "__getitem__"):
        return False
    if getattr(value, "ndim", 1) != 1:  # a number, images; one table in the place of several is told by who takes them
        return bool(inner) and _fits(value, inner[0])
    if origin is tuple and inner and inner[-1] is not Ellipsis:
        return isinstance(value, tuple | list)
    entries = value[:FIRST] if isinstance(value, list | tuple) else ()
    return all(_fits(one, inner[0]) for one in entries) if inner else True


@cache
def _members(kind: type) -> tuple[str, ...]:
    """Return what a protocol asks for."""
    asked = [one for one in kind.__mro__ if getattr(one, "_is_protocol", False)]
    names = {name for one in asked for name in (*vars(one), *vars(one).get("__annotations__", {}))}
    return tuple(sorted(name for name in names if not name.startswith("_")))


def _words(hint: Any) -> str:
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if hint is None or hint is type(None):
        return "None"
    if origin is Annotated:
        return _words(inner[0])
    if origin in (typing.Union, types.UnionType):
        return " or ".join(dict.fromkeys(_words(one) for one in inner))
    if origin is Literal:
        return ", ".join(map(repr, inner))
    if origin in (list, tuple, Sequence, Iterable):
        return f"a sequence of {_words(inner[0])}" if inner else "a sequence"
    if hint in WORDS:
        return WORDS[hint]
    kind = hint if origin is None else origin
    name = getattr(kind, "__name__", str(kind))
    return f"{'an' if name[:1] in 'AEIOU' else 'a'} {name}"


def _shown(value: Any) -> Any:
    """Return a value for a message: plain ones as they are, others by their type."""
    return value if value is None or isinstance(value, bool | int | float | str) else type(value).__name__
