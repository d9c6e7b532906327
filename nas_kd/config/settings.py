"""The settings of a stage: a frozen class that alone holds their defaults, types, ranges and help."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import textwrap
import typing
from collections.abc import Callable, Mapping
from functools import cache, wraps
from itertools import pairwise
from numbers import Number
from pathlib import PurePath
from typing import Any, ClassVar, NamedTuple, TypeVar, cast

import pydantic.dataclasses
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from typing_extensions import Self, dataclass_transform

from nas_kd.config.wording import described, names_in
from nas_kd.errors import SettingError, nearest, nearest_setting

# strict: true is not 1 and 2.0 is not an integer, but 2 is a number
STRICT = ConfigDict(strict=True, extra="forbid")
S = TypeVar("S", bound="Settings")


class Changed(NamedTuple):
    """What a stage changes of a setting that it shares with other stages.

    Args:
        default: its own default.
        help: its own help; empty keeps the shared one.
        kind: its own type; None keeps the shared one.
    """

    default: Any
    help: str = ""
    kind: Any = None


class Settings:
    """Base of all classes of settings; see `settings`."""

    section: ClassVar[str] = ""
    changed: ClassVar[Mapping[str, Changed]] = {}
    listed: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def of(cls, config: Self | None, changes: Mapping[str, Any]) -> Self:
        """Combine a function's arguments: an object (None: the defaults) and settings that replace some of its own.

        Raises:
            SettingError: a setting is unknown or out of range.
        """
        if config is not None and not isinstance(config, cls):
            expected = f"a nas_kd.{cls.__name__} or None"
            raise SettingError("config", type(config).__name__, expected, "pass settings by name")
        values = {} if config is None else {name: getattr(config, name) for name in fields_of(cls)}
        return cls(**{**values, **changes})

    def record(self, *without: str) -> dict[str, Any]:
        """Return all settings by their dotted names, for the record of a stage.

        Args:
            without: settings that do not determine the result.
        """
        return {f"{self.section}.{name}": getattr(self, name) for name in fields_of(type(self)) if name not in without}


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(Field, dataclasses.field))
def settings(
    section: str, changed: Mapping[str, Any] | None = None, after: Mapping[str, str] | None = None
) -> Callable[[type[S]], type[S]]:
    """Turn a class into settings: annotated fields, each with its help in a docstring below it.

    Args:
        section: its name in config files and messages; empty for the top level.
        changed: default, or `Changed`, of inherited settings.
        after: an inherited setting to the setting behind which it and the inherited ones after it are listed.

    Returns:
        A class decorator. Instances are frozen and checked at construction; an invalid one raises SettingError with
        the first invalid setting's name, value, range and a hint.
    """

    def decorate(kind: type[S]) -> type[S]:
        own = {name: new if isinstance(new, Changed) else Changed(new) for name, new in (changed or {}).items()}
        listed = _ordered(kind, after or {})
        _change(kind, own)
        make = pydantic.dataclasses.dataclass(frozen=True, kw_only=True, config=STRICT)
        made = cast(type[S], make(kind))
        check: Any = made.__init__

        @wraps(check)
        def init(self: S, **given: Any) -> None:
            values = {name: _plain(value) for name, value in given.items()}
            try:
                check(self, **values)
            except ValidationError as error:
                raise _first_error(made, values, error) from None

        made.__init__ = init  # type: ignore[method-assign, assignment]
        made.section = section
        made.changed = own
        made.listed = listed
        return made

    return decorate


def fields_of(kind: type[Settings]) -> dict[str, Any]:
    """Return the pydantic fields of a class of settings in the order of the help: annotation and default."""
    fields: dict[str, Any] = kind.__pydantic_fields__  # type: ignore[attr-defined]
    return {name: fields[name] for name in kind.listed}


def settings_of(kind: type[Settings]) -> dict[str, tuple[type[Settings], str]]:
    """List all settings of a class and its sections.

    Returns:
        Dotted name to (declaring class, name in it), in the order of the fields.
    """
    found: dict[str, tuple[type[Settings], str]] = {}
    for name, info in fields_of(kind).items():
        inner = info.annotation
        if isinstance(inner, type) and issubclass(inner, Settings):
            found |= {f"{name}.{key}": value for key, value in settings_of(inner).items()}
        else:
            found[name] = kind, name
    return found


def hint_of(kind: type[Settings], name: str) -> Any:
    """Return the type of a setting, with its range."""
    return _hints(kind)[name]  # type: ignore[arg-type]


def annotation_of(kind: type[Settings], name: str) -> Any:
    """Return the type of a setting as it is written where it is declared, for signatures."""
    for owner in kind.__mro__:
        if owner.__dict__.get("changed", {}).get(name, Changed(None)).kind is not None:
            return typing.get_type_hints(kind)[name]
        written = owner.__dict__.get("__annotations__", {}).get(name)
        if isinstance(written, str):
            return written
    raise KeyError(name)


def default_of(kind: type[Settings], name: str) -> Any:
    """Return the default of a setting."""
    return fields_of(kind)[name].get_default(call_default_factory=True, validated_data={})


def build(kind: type[S], values: Mapping[str, Any]) -> S:
    """Build settings with their sections from values by dotted name.

    Raises:
        SettingError: a setting is unknown or out of range, or two are incompatible.
    """
    own = {name: value for name, value in values.items() if "." not in name}
    for name, info in fields_of(kind).items():
        section = info.annotation
        if isinstance(section, type) and issubclass(section, Settings):
            inner = {key.partition(".")[2]: value for key, value in values.items() if key.startswith(f"{name}.")}
            own[name] = build(section, inner)
    return kind(**own)


def setting_error(kind: type[Settings], name: str, value: object) -> SettingError | None:
    """Return the error of a value for one setting, or None if it is valid."""
    try:
        _validator(kind, name).validate_python(value)  # type: ignore[arg-type]
    except ValidationError:
        return _invalid(kind, name, value)
    return None


def help_of(kind: type[Settings], name: str) -> str:
    """Return the docstring below a field, in the class that declares it, as one line."""
    for owner in kind.__mro__:
        if own := owner.__dict__.get("changed", {}).get(name, Changed(None)).help:
            return str(own)
        if issubclass(owner, Settings) and (found := _docstrings(owner).get(name)):  # type: ignore[arg-type]
            return " ".join(found.split())
    return ""


def _change(kind: type[Settings], changed: Mapping[str, Changed]) -> None:
    """Declare inherited settings anew, with what is changed of them."""
    hints = typing.get_type_hints(kind, include_extras=True)
    kind.__annotations__ = dict(kind.__dict__.get("__annotations__", {}))
    for name, new in changed.items():
        kind.__annotations__[name] = hints[name] if new.kind is None else new.kind
        setattr(kind, name, new.default)


def _ordered(kind: type[Settings], after: Mapping[str, str]) -> tuple[str, ...]:
    """List the names of settings: those of the bases first, but for what is to be listed elsewhere."""
    bases = [base for base in kind.__bases__ if issubclass(base, Settings)]
    inherited = list(dict.fromkeys(name for base in bases for name in base.listed))
    own = [name for name in kind.__dict__.get("__annotations__", {}) if name not in inherited]
    names = [name for name in [*inherited, *own] if not name.startswith("_")]
    for first, anchor in after.items():
        begin = inherited.index(first)
        ends = [inherited.index(other) for other in after if inherited.index(other) > begin]
        block = inherited[begin : min(ends, default=len(inherited))]
        names = [name for name in names if name not in block]
        names[names.index(anchor) + 1 : names.index(anchor) + 1] = block
    return tuple(names)


@cache  # evaluating the annotations of a class takes longer than all that is done with them
def _hints(kind: type[Settings]) -> dict[str, Any]:
    return typing.get_type_hints(kind, include_extras=True)


@cache
def _validator(kind: type[Settings], name: str) -> TypeAdapter[Any]:
    return TypeAdapter(hint_of(kind, name), config=ConfigDict(strict=True))


@cache
def _docstrings(kind: type[Settings]) -> dict[str, str]:
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    body = tree.body if isinstance(tree, ast.ClassDef) else []
    return {
        ast.unparse(entry.target): str(after.value.value)
        for entry, after in pairwise(body)
        if isinstance(entry, ast.AnnAssign) and isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
    }


def _invalid(kind: type[Settings], name: str, value: object) -> SettingError:
    hint = hint_of(kind, name)
    default = default_of(kind, name)
    otherwise = "leave it out" if default is None or default == {} else f"leave it out for {default!r}"
    words = names_in(hint)
    near = nearest(value, words, otherwise) if words and isinstance(value, str) else otherwise
    return SettingError(_dotted(kind, name), value, described(hint), near)


def _dotted(kind: type[Settings], name: str) -> str:
    return f"{kind.section}.{name}" if kind.section else name


def _first_error(kind: type[Settings], values: Mapping[str, Any], error: ValidationError) -> SettingError:
    first = error.errors(include_url=False)[0]
    own = first.get("ctx", {}).get("error")
    if isinstance(own, SettingError):  # of incompatible settings
        return own
    name = str(first["loc"][0])
    if name not in fields_of(kind):
        return nearest_setting(_dotted(kind, name), [_dotted(kind, known) for known in fields_of(kind)])
    return _invalid(kind, name, values.get(name))


def _plain(value: Any) -> Any:
    """Convert a NumPy number to Python's, and a path to text."""
    if isinstance(value, PurePath):
        return str(value)
    return value.item() if isinstance(value, Number) and hasattr(value, "item") else value
