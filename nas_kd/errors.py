"""The one error a user's mistake raises: it names the setting, the value, the legal range and the mend."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class SettingError(ValueError):
    """A setting, file or value that a user must change before work can start.

    Args:
        field: name of the setting as the user writes it, such as ``search.max_macs``.
        value: the value that was given.
        legal: the legal range in words, such as ``an integer of at least 1``.
        mend: what to do about it.
    """

    def __init__(self, field: str, value: object, legal: str, mend: str = "") -> None:
        self.field, self.value, self.legal, self.mend = field, value, legal, mend
        text = f"{field}={value!r} is not usable; legal: {legal}"
        super().__init__(f"{text}; mend: {mend}" if mend else text)

    def __reduce__(self) -> tuple[type[SettingError], tuple[str, object, str, str]]:
        # the default rebuilds an exception from its message alone, which loses the four parts on the way
        # back from a worker process
        return type(self), (self.field, self.value, self.legal, self.mend)


def nearest(name: str, valid: Iterable[str]) -> str:
    """Word a mend that names the nearest valid name.

    Args:
        name: what the user wrote.
        valid: the valid names.

    Returns:
        ``"did you mean 'x'?"`` when something is close, else a list of all valid names.
    """
    names = sorted(valid)
    close = get_close_matches(name, names, n=1)
    return f"did you mean {close[0]!r}?" if close else "one of " + ", ".join(names)
