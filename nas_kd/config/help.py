"""The help of a command: its settings with defaults, grouped by section."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Collection, Iterable
from typing import Any

from nas_kd.config.settings import Settings, default_of, help_of, settings_of

WIDTH = 120  # if no terminal is attached


def settings_help(kind: type[Settings], shown: Collection[str] = ()) -> list[str]:
    """Return the help of settings as lines, each section below a heading.

    Args:
        shown: dotted names of settings, or names of whole sections; empty for all.
    """
    known = settings_of(kind)
    names = [name for name in known if not shown or name in shown or name.partition(".")[0] in shown]
    width = min(shutil.get_terminal_size((WIDTH, 24)).columns, WIDTH)
    column = max((len(name) for name in names), default=0) + 5
    lines = []
    section = None
    for name in names:
        if section != (section := _section(name)):
            lines += ["", f"{section}:" if section else "settings:"]
        owner, own = known[name]
        text = f"{help_of(owner, own)} ({_written(default_of(owner, own))})"
        body = textwrap.wrap(text, width - column, break_on_hyphens=False)
        lines += [f"{f'  --{name}':{column}}{body[0]}", *(" " * column + line for line in body[1:])]
    return lines


def listed(words: Iterable[str]) -> str:
    """Join words with commas, wrapped to the width of the terminal."""
    width = min(shutil.get_terminal_size((WIDTH, 24)).columns, WIDTH)
    return textwrap.fill(", ".join(words), width, break_on_hyphens=False, subsequent_indent="  ")


def _section(name: str) -> str:
    return name.rpartition(".")[0]


def _written(value: Any) -> str:
    """Return a default in YAML."""
    words: dict[Any, str] = {None: "null", True: "true", False: "false"}
    return words[value] if value is None or isinstance(value, bool) else "{}" if value == {} else f"{value}"
