"""The error of invalid user input: it names the setting, the value, what was expected and a hint."""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import get_close_matches
from reprlib import Repr

LONGEST = 400  # characters of a value in a message


class SettingError(ValueError):
    """An invalid setting, file or value.

    Args:
        field: name of the setting as the user writes it, such as ``search.max_macs``.
        value: the value that was given.
        expected: what was expected, such as ``an integer of at least 1``.
        hint: how to fix it; by default to use such a value.
    """

    def __init__(self, field: str, value: object, expected: str, hint: str = "") -> None:
        self.field = field
        self.value = value
        self.expected = expected
        self.hint = hint or f"set {field} to such a value"
        text = f"{field}={_shown(value)}: expected {expected}; hint: {self.hint}"
        super().__init__(escaped(text))

    def __reduce__(self) -> tuple[type[SettingError], tuple[str, object, str, str]]:
        # by default an exception is rebuilt from its message alone, which would lose the four parts on the
        # way back from a worker process
        return type(self), (self.field, self.value, self.expected, self.hint)


# characters of a file name that a terminal would interpret: line ends, control characters, text direction
_ESCAPED = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def escaped(text: str, *, lines: bool = False) -> str:
    """Write characters that a terminal would obey as their codes: colours, titles, line ends, direction of text.

    Args:
        text: may hold names of files and other text from outside.
        lines: keep the ends of lines.
    """
    if lines:
        return "\n".join(escaped(line) for line in text.split("\n"))
    return _ESCAPED.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


# YAML aliases in a config of ten lines may expand to a value of gigabytes
_SHORT = Repr()
_SHORT.maxlevel = 3
_SHORT.maxdict = 12
_SHORT.maxlist = 12
_SHORT.maxtuple = 12
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = LONGEST


def _shown(value: object) -> str:
    text = _SHORT.repr(value)
    return text if len(text) <= 2 * LONGEST else f"{text[:LONGEST]} ..."


def nearest(name: str, valid: Iterable[str], otherwise: str = "") -> str:
    """Return the hint ``"did you mean 'x'?"`` for the nearest valid name, else ``otherwise`` or a list of all names."""
    names = sorted(valid)
    close = get_close_matches(name, names, n=1)
    return f"did you mean {close[0]!r}?" if close else otherwise or "one of " + ", ".join(names)


def nearest_setting(name: str, known: Iterable[str]) -> SettingError:
    """Return the error for a dotted setting that does not exist, with the nearest names as its hint."""
    names = list(known)
    # a forgotten section is the common mistake: --trials is nearest to search.trials, not to train
    last = [full for full in names if full.split(".")[-1] == name.split(".")[-1]]
    name = name[:LONGEST]  # comparison is quadratic in the length
    close = last or get_close_matches(name, names, n=1) or get_close_matches(name, names, n=1, cutoff=0.3)
    hint = f"did you mean {' or '.join(close)}?" if close else "see `nas-kd run --help`"
    return SettingError("setting", name, "a setting that `nas-kd run --help` lists", hint)
