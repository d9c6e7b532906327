"""Lengths of trainings that fit a time, by the plan of a run at its timed pace."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from copy import copy
from typing import Any

from nas_kd.config.settings import build
from nas_kd.errors import SettingError
from nas_kd.pipeline.config import Config
from nas_kd.pipeline.given import Given
from nas_kd.pipeline.pace import Pace, pace
from nas_kd.pipeline.plan import Work, planned
from nas_kd.runs.progress import format_seconds
from nas_kd.runtime.device import Runtime

FILL = 0.8  # of the time: a plan is an estimate
LENGTHS = (100, 80, 60, 50, 40, 30, 24, 20, 16, 12, 10, 8, 6, 5, 4, 3, 2, 1)  # epochs of the last training
SIZES = (  # of the rest, the largest that fits first
    {"retrain.seeds": 3, "search.trials": 200},
    {"retrain.seeds": 1, "search.trials": 60},
    {"retrain.seeds": 1, "retrain.random_students": 1, "search.trials": 20, "search.top": 2, "search.tuned": 2},
)
ENOUGH = 6  # epochs of the last training below which there are fewer seeds and trials instead
UNITS = {"s": 1.0, "min": 60.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


class PlacedGiven(Given):
    """What a configuration names, on the device that a run of it would use."""

    @property
    def device(self) -> str:
        """Where images are kept and steps are timed."""
        return str(Runtime(self.config.device).device)


def read_time(text: str) -> float:
    """Read a time such as ``90min``, ``2h`` or ``1.5 d`` in seconds.

    Raises:
        SettingError: it is none.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(s|min|m|h|d)\s*", text)
    if found is None or not float(found[1]):
        raise SettingError("time", text, "a number and s, min, h or d", "write --time 2h")
    return float(found[1]) * UNITS[found[2]]


def fit(values: Mapping[str, Any], seconds: float) -> tuple[dict[str, Any], list[Work]]:
    """Choose epochs, seeds and trials so that a run fits a time.

    Args:
        values: settings that are fixed, by their dotted names.
        seconds: the time for all stages together.

    Returns:
        The chosen settings by their dotted names, and the plan with them.

    Raises:
        SettingError: not even the shortest run fits, or a setting is wrong.
    """
    first = build(Config, dict(values) | (_lengths(build(Config, dict(values)), 1)))
    given = PlacedGiven(first)
    timed = pace(given)
    least = float("inf")
    for chosen in _choices(first, values):
        works = _planned(given, timed, dict(values) | chosen)
        total = sum(work.seconds for work in works)
        least = min(least, total)
        if total <= FILL * seconds:
            return chosen, works
    expected = given.images.spoken(f"about {format_seconds(least / FILL)} or more for these images and this teacher")
    hint = "give more time, fewer images (data.subset), a smaller data.resolution, or another device"
    raise SettingError("time", format_seconds(seconds), expected, given.images.spoken(hint))


def _choices(config: Config, fixed: Collection[str]) -> Iterator[dict[str, Any]]:
    """Yield settings, those that are best and longest first."""
    for size in SIZES:
        lengths = [epochs for epochs in LENGTHS if epochs >= ENOUGH or size is SIZES[-1]]
        for epochs in lengths:
            chosen = _lengths(config, epochs) | size
            yield {name: value for name, value in chosen.items() if name not in fixed}


def _lengths(config: Config, epochs: int) -> dict[str, Any]:
    """Return the epochs of all trainings where the last one has so many."""
    found = {"search.epochs": max(1, epochs // 6), "retrain.epochs": epochs}
    teacher = config.teacher
    if teacher.model is not None and (teacher.pretrained or not teacher.has_weights):
        found["teacher.epochs"] = max(1, epochs // 2) if teacher.pretrained else 2 * epochs
    if config.derived:
        found["repair.epochs"] = 1 if epochs < 10 else 2
    elif config.supernet.checkpoint is None:
        found |= {"supernet.epochs": 2 * epochs}
        if config.engine == "exact":
            found["blockwise.epochs"] = max(1, epochs // 4)
    return found


def _planned(given: Given, timed: Pace, values: dict[str, Any]) -> list[Work]:
    """Plan the same images and networks with other lengths."""
    twin = copy(given)
    twin.config = build(Config, values)
    return planned(twin, timed)
