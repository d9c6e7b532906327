"""Budgets as users write them: a share of the largest network, or an absolute number."""

from __future__ import annotations

import math

from nas_kd.errors import SettingError

Budget = str | int | float | None


def parse_budget(value: str | int | float, largest: int, name: str) -> int:
    """Read a budget, absolute or as a share of the largest network.

    Args:
        value: ``"60%"``, or a number such as ``6500000``, ``6.5e6``, ``"6.5e6"``, ``"6.5M"`` (k, M, G).
        largest: what 100% is, in MACs or parameters.
        name: the setting, for the message.

    Returns:
        The budget in MACs or parameters.

    Raises:
        SettingError: it is not a budget.
    """
    legal = "a share such as 60%, or a number of at least 1 such as 6500000, 6.5e6 or 6.5M"
    text = str(value).strip()
    scale = {"k": 1e3, "M": 1e6, "G": 1e9}.get(text[-1:], 1.0)
    try:
        number = float(text[:-1]) if text.endswith("%") or scale > 1 else float(text)
    except ValueError:
        number = math.nan
    if isinstance(value, bool) or not math.isfinite(number) or number <= 0:
        raise SettingError(name, value, legal, f"write {name}=60%")
    if text.endswith("%"):
        if number > 100:
            mend = f"write {name}=100%, or null for no limit"
            raise SettingError(name, value, "a share above 0% and up to 100%", mend)
        return math.floor(largest * number / 100)
    if number < 1:
        raise SettingError(name, value, legal, f"for a share write {name}={number * 100:g}%")
    return math.floor(number * scale)


def check_budget(value: Budget, name: str) -> None:
    """Check that a budget can be read, before the space is known.

    Args:
        value: as in `parse_budget`, or None for no limit.
        name: the setting, for the message.

    Raises:
        SettingError: it is not a budget.
    """
    if value is not None:
        parse_budget(value, 1, name)
