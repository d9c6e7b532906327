"""The objectives of a search."""

from __future__ import annotations

from collections.abc import Sequence

from nas_kd.config.measures import MEASURES
from nas_kd.errors import SettingError, nearest
from nas_kd.searcher.engine import Engine
from nas_kd.searcher.engines import search_engine

QUALITIES = ("kl", "accuracy")  # accuracy stands for the run's metric
COSTS = ("macs", "params", "latency_ms")


def checked_objectives(given: Sequence[str] | None, engine: str | Engine, metric: str | None = None) -> tuple[str, ...]:
    """Check the objectives of a search.

    Args:
        given: names out of kl, accuracy, macs, params and latency_ms, or None for the engine's own; the run's metric
            may be called by its name or accuracy.
        engine: what searches: a built-in engine's name, or a custom engine.
        metric: the run's metric; None where it is not known yet, and any is taken for it.

    Returns:
        The names, of which kl or accuracy is one; accuracy stands for the run's metric.

    Raises:
        SettingError: a name is unknown, given twice, or not for this engine, or no score is among them.
    """
    searches = search_engine(engine)
    own = ("kl",) if searches.guided else ("accuracy", "macs")
    if given is None or tuple(given) == own:
        return own
    field = "search.objectives"
    names = () if isinstance(given, str) else tuple(given)
    names = tuple("accuracy" if _is_metric(name, metric) else name for name in names)
    if names == own:
        return own
    if searches.fixed_objectives:
        expected = f"null with {searches.name}, which uses accuracy and MACs"
        raise SettingError(field, list(names), expected, f"use {field}=null")
    for name in names:
        known = ("kl", metric or "accuracy", *COSTS)
        if name not in (*QUALITIES, *COSTS):
            raise SettingError(field, name, ", ".join(known), nearest(name, known))
    if "kl" in names and not searches.guided:
        expected = "accuracy, macs, params, latency_ms; kl needs a teacher and search.engine=exact"
        raise SettingError(field, list(names), expected, "use accuracy")
    if len(set(names)) < len(names) or not set(names) & set(QUALITIES):
        expected = f"different names, with {' or '.join(QUALITIES)}: by cost alone the smallest arch is best"
        raise SettingError(field, given, expected, f"use [{', '.join(own)}]")
    return names


def _is_metric(name: str, metric: str | None) -> bool:
    """Return whether an objective's name is that of the run's metric."""
    return name in MEASURES if metric is None else name == metric


def named_objectives(objectives: Sequence[str], metric: str) -> tuple[str, ...]:
    """Return objectives as the columns of a search are called."""
    return tuple(metric if name == "accuracy" else name for name in objectives)
