"""Budgets as users write them: shares of the largest network, and numbers."""

from __future__ import annotations

import math
from decimal import Decimal, InvalidOperation

from nas_kd.errors import SettingError

Amount = str | int | float | None


def parse_budget(value: str | int | float, largest: int, name: str, up: bool = False) -> int:
    """Read a budget, absolute or as a share of a network.

    Args:
        value: ``"60%"``, or a number such as ``6500000``, ``6.5e6``, ``"6.5e6"``, ``"6.5M"`` (k, M, G).
        largest: what 100% is, in MACs or parameters.
        name: name of the setting in messages.
        up: round up, for lower bounds, instead of down.

    Returns:
        The budget in MACs or parameters.

    Raises:
        SettingError: it cannot be parsed.
    """
    expected = "a share such as 60%, or a number of at least 1 such as 6500000, 6.5e6 or 6.5M, below 1e18"
    text = str(value).strip()
    scale = {"%": Decimal(1), "k": Decimal(10**3), "M": Decimal(10**6), "G": Decimal(10**9)}.get(text[-1:])
    try:  # decimal: 2.3M is 2300000, which floats make 2299999
        amount = Decimal(text if scale is None else text[:-1])
    except InvalidOperation:
        amount = Decimal("nan")
    # the exponent first: 1e999999999 would be a number of a gigabyte
    if isinstance(value, bool) or not amount.is_finite() or amount <= 0 or amount.adjusted() >= 18:
        raise SettingError(name, value, expected, f"use {name}=60%")
    whole = math.ceil if up else math.floor
    if text.endswith("%"):
        if amount > 100:
            hint = f"use {name}=100%, or null for no limit"
            raise SettingError(name, value, "a share above 0% and up to 100%", hint)
        return whole(largest * amount / 100)
    if scale is None and amount < 1:
        raise SettingError(name, value, expected, f"for a share use {name}={(100 * amount).normalize():f}%")
    return whole(amount * (scale or 1))


def check_budget(value: Amount, name: str) -> None:
    """Check that a budget can be read, before the space is known.

    Raises:
        SettingError: it cannot be parsed.
    """
    if value is not None:
        parse_budget(value, 1, name)
