"""Signatures and docstrings of functions that take a stage's settings as an object or as keywords."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable
from typing import Any, TypeVar

from nas_kd.config.settings import Settings, annotation_of, default_of, fields_of, help_of

F = TypeVar("F", bound=Callable[..., Any])


def takes(kind: type[Settings]) -> Callable[[F], F]:
    """Decorate a function with ``**settings`` so that its signature and docstring list the settings of a class."""

    def decorate(function: F) -> F:
        shown = inspect.signature(function)
        own = [one for one in shown.parameters.values() if one.kind is not inspect.Parameter.VAR_KEYWORD]
        names = [name for name in fields_of(kind) if name not in shown.parameters]
        more = [
            inspect.Parameter(
                name,
                inspect.Parameter.KEYWORD_ONLY,
                default=default_of(kind, name),
                annotation=annotation_of(kind, name),
            )
            for name in names
        ]
        function.__signature__ = shown.replace(parameters=own + more)  # type: ignore[attr-defined]
        if function.__doc__ is not None:
            lines = [f"{name}: {help_of(kind, name)}" for name in names]
            listing = "\n".join(
                textwrap.fill(line, 110, initial_indent=" " * 8, subsequent_indent=" " * 12) for line in lines
            )
            function.__doc__ = f"{function.__doc__.rstrip()}\n\n    Settings of {kind.__name__}:\n{listing}\n    "
        return function

    return decorate
