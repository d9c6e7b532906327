"""Checks of settings: ranges of numbers, words, and budgets as users write them."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from decimal import Decimal, InvalidOperation
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import unquote_plus, urlsplit

from nas_kd.errors import SettingError, nearest

LEAST = 8  # archs below which a rank correlation says nothing
LARGEST = 2**63  # what counters of other libraries hold
SECRET = re.compile("passw|pwd|secret", re.IGNORECASE)  # in names of a driver's arguments; passfile is a path
Budget = str | int | float | None
# objectives of a search
QUALITIES = ("kl", "accuracy")
COSTS = ("macs", "params", "latency_ms")
IMAGES = (
    "'digits', a folder of class folders, a .tar of class folders, a name such as 'torch/cifar10' or "
    "'hfds/NAME', or a pair (x, y) of tensors"
)


def number(prefix: str, settings: object, legal: str, ok: Callable[[float], bool], *names: str) -> None:
    """Check numbers of one range; None means that a setting is not used, and passes.

    Args:
        prefix: section of the settings, such as ``"search"``.
        settings: the dataclass.
        legal: the range in words.
        ok: tells whether a value is in it.
        names: fields of the dataclass.

    Raises:
        SettingError: a value is outside or not finite.
    """
    for name in names:
        value = getattr(settings, name)
        finite = value is None or (abs(value) < LARGEST if isinstance(value, int) else math.isfinite(value))
        if not finite or (value is not None and not ok(value)):
            raise SettingError(f"{prefix}.{name}", value, legal, f"give {prefix}.{name} a value in that range")


def existing(field: str, path: str | Path, legal: str) -> Path:
    """Check that a path leads somewhere.

    Args:
        field: the setting, for the message.
        path: the file or folder; ``~`` is the user's home.
        legal: the legal range in words.

    Returns:
        The path.

    Raises:
        SettingError: nothing is there.
    """
    found = Path(path).expanduser()
    try:
        there = found.exists()
    except (OSError, ValueError):  # no file can be called so
        there = False
    if not there or not str(path):
        mend = f"check the path; the working folder is {Path.cwd()}"
        raise SettingError(field, str(path), f"{legal}; this does not exist", mend)
    return found


def positive(prefix: str, settings: object, *names: str) -> None:
    """Check numbers that must be above 0; see `number`."""
    number(prefix, settings, "a number above 0", lambda value: value > 0, *names)


def natural(prefix: str, settings: object, *names: str) -> None:
    """Check numbers that must not be below 0; see `number`."""
    number(prefix, settings, "0 or more", lambda value: value >= 0, *names)


def share(prefix: str, settings: object, *names: str) -> None:
    """Check numbers of 0 or more and below 1; see `number`."""
    number(prefix, settings, "0 or more and below 1", lambda value: 0 <= value < 1, *names)


def warmup(prefix: str, warmup: float, epochs: int) -> None:
    """Check that a warm-up ends before the training does."""
    if warmup >= epochs:
        legal = f"below {prefix}.epochs={epochs}"
        raise SettingError(f"{prefix}.warmup_epochs", warmup, legal, "shorten the warm-up")


def manner(prefix: str, settings: Any, epochs: int) -> None:
    """Check the manner of a training: averaging, mixing and schedule.

    Args:
        prefix: section of the settings.
        settings: an object with ema, mixup, cutmix, schedule, milestones and factor.
        epochs: epochs of the training, which the milestones lie in.

    Raises:
        SettingError: naming the first setting that is not usable.
    """
    share(prefix, settings, "ema")
    natural(prefix, settings, "mixup", "cutmix")
    number(prefix, settings, "above 0 and below 1", lambda value: 0 < value < 1, "factor")
    word(f"{prefix}.schedule", settings.schedule, ("cosine", "step"))
    given = settings.milestones
    if given is None:
        return
    name = f"{prefix}.milestones"
    if settings.schedule != "step":
        legal = f"null with {prefix}.schedule={settings.schedule}"
        raise SettingError(name, given, legal, f"set {prefix}.schedule=step")
    if not given or not all(a < b for a, b in pairwise([0, *given, epochs])):
        legal = f"epochs that rise, above 0 and below {prefix}.epochs={epochs}"
        raise SettingError(name, given, legal, "leave it out: 5/8, 3/4 and 7/8 of the epochs")


def word(name: str, value: str, legal: tuple[str, ...]) -> None:
    """Check a word against the legal ones, and name the nearest."""
    if value not in legal:
        raise SettingError(name, value, ", ".join(legal), nearest(value, legal))


def check_views(value: int | str | None) -> None:
    """Check how many views an image has.

    Args:
        value: a count, 0 or None for none, or ``"all"``.

    Raises:
        SettingError: it is none of these.
    """
    counted = isinstance(value, int) and not isinstance(value, bool) and value >= 0
    if not (value is None or counted or value == "all"):
        legal = "all, or an integer of at least 0 (0: new crops always)"
        raise SettingError("data.views", value, legal, "leave it out")


def parse_budget(value: str | int | float, largest: int, name: str, up: bool = False) -> int:
    """Read a budget, absolute or as a share of the largest network.

    Args:
        value: ``"60%"``, or a number such as ``6500000``, ``6.5e6``, ``"6.5e6"``, ``"6.5M"`` (k, M, G).
        largest: what 100% is, in MACs or parameters.
        name: the setting, for the message.
        up: round up, as what is at least wanted must be, and not down.

    Returns:
        The budget in MACs or parameters.

    Raises:
        SettingError: it is not a budget.
    """
    legal = "a share such as 60%, or a number of at least 1 such as 6500000, 6.5e6 or 6.5M"
    text = str(value).strip()
    scale = {"%": Decimal(1), "k": Decimal(10**3), "M": Decimal(10**6), "G": Decimal(10**9)}.get(text[-1:])
    try:  # decimal: 2.3M is 2300000, which floats make 2299999
        amount = Decimal(text if scale is None else text[:-1])
    except InvalidOperation:
        amount = Decimal("nan")
    if isinstance(value, bool) or not amount.is_finite() or amount <= 0:
        raise SettingError(name, value, legal, f"write {name}=60%")
    whole = math.ceil if up else math.floor
    if text.endswith("%"):
        if amount > 100:
            mend = f"write {name}=100%, or null for no limit"
            raise SettingError(name, value, "a share above 0% and up to 100%", mend)
        return whole(largest * amount / 100)
    if scale is None and amount < 1:
        raise SettingError(name, value, legal, f"for a share write {name}={(100 * amount).normalize():f}%")
    return whole(amount * (scale or 1))


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


def check_database(name: str, url: str | None) -> None:
    """Check the URL of a database, without a look at the database.

    Args:
        name: name of the setting.
        url: the URL, or None.

    Raises:
        SettingError: it is no URL of a database that several processes can share.
    """
    if url is None:
        return
    legal = "postgresql://USER@HOST/DATABASE, or null for the run's journal"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise SettingError(name, "a URL that cannot be read", legal, "mend the host or the port") from error
    known = parts.scheme.partition("+")[0] in ("postgresql", "postgres", "mysql", "mariadb")
    if not known or len(parts.path) < 2 or port == 0:
        raise SettingError(name, without_password(url), legal, "leave it out for workers of one machine")


def without_password(url: str) -> str:
    """Return a URL without its passwords, the user's and those of the query, which no file and no message shall show.

    Args:
        url: the URL, as SQLAlchemy reads it: a password may hold ``/``, ``?`` and ``#``, and there are no fragments.
    """
    place, mark, query = re.sub(r"^([^:]*://[^:/]*):[^@]*@([^/?]*@)?", r"\1@", url).partition("?")
    shown = [part for part in query.split("&") if not SECRET.search(unquote_plus(part.partition("=")[0]))]
    return place + (mark if shown else "") + "&".join(shown)


def checked_objectives(given: Sequence[str] | None, engine: str) -> tuple[str, ...]:
    """Check what a search is to be good in.

    Args:
        given: names out of kl, accuracy, macs, params and latency_ms, or None for the engine's own.
        engine: what searches.

    Returns:
        The names, of which kl or accuracy is one.

    Raises:
        SettingError: a name is unknown, given twice, or not for this engine, or no score is among them.
    """
    own = ("kl",) if engine == "exact" else ("accuracy", "macs")
    if given is None or tuple(given) == own:
        return own
    field = "search.objectives"
    names = () if isinstance(given, str) else tuple(given)
    if engine == "coarse":
        legal = "null with coarse: its grid goes by accuracy and MACs"
        raise SettingError(field, list(names), legal, f"give {field}=null")
    for name in names:
        word(field, name, (*QUALITIES, *COSTS))
    if "kl" in names and engine != "exact":
        legal = "accuracy, macs, params, latency_ms: the KL is to a teacher, whom only search.engine=exact asks"
        raise SettingError(field, list(names), legal, "use accuracy")
    if len(set(names)) < len(names) or not set(names) & set(QUALITIES):
        legal = f"different names, {' or '.join(QUALITIES)} among them: by cost alone the smallest arch wins"
        raise SettingError(field, given, legal, f"use [{', '.join(own)}]")
    return names
