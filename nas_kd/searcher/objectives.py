"""The objectives of a search."""

from __future__ import annotations

from collections.abc import Sequence

from nas_kd.config.measures import COSTS, MEASURES, TUNED
from nas_kd.errors import SettingError, nearest
from nas_kd.searcher.engine import Engine
from nas_kd.searcher.engines import search_engine

FURTHER = ("tuned_kl", "tuned_accuracy", "p_tg")  # measured only where they are asked for
QUALITIES = ("kl", "accuracy", *FURTHER)  # accuracy stands for the run's metric
GUIDED = ("kl", *FURTHER)  # they compare with a teacher, or learn from it


def checked_objectives(given: Sequence[str] | None, engine: str | Engine, metric: str | None = None) -> tuple[str, ...]:
    """Check the objectives of a search.

    Args:
        given: names out of kl, accuracy, tuned_kl, tuned_accuracy, p_tg, macs, params and latency_ms, or None for
            the engine's own; the run's metric may be called by its name or accuracy.
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
    names = tuple(_general(name, metric) for name in names)
    if names == own:
        return own
    if searches.fixed_objectives:
        expected = f"null with {searches.name}, which uses accuracy and MACs"
        raise SettingError(field, list(names), expected, f"use {field}=null")
    for name in names:
        qualities = named_objectives(QUALITIES, metric or "accuracy")
        known = (*qualities[:2], *COSTS, *qualities[2:])
        if name not in (*QUALITIES, *COSTS):
            raise SettingError(field, name, ", ".join(known), nearest(name, known))
    if set(GUIDED) & set(names) and not searches.guided:
        others = ", ".join(name for name in GUIDED if name in names)
        expected = f"accuracy, macs, params, latency_ms; {others} needs a teacher and search.engine=exact"
        raise SettingError(field, list(names), expected, "use accuracy")
    if len(set(names)) < len(names) or not set(names) & set(QUALITIES):
        expected = f"different names, with {' or '.join(QUALITIES)}: by cost alone the smallest arch is best"
        raise SettingError(field, given, expected, f"use [{', '.join(own)}]")
    return names


def _general(name: str, metric: str | None) -> str:
    """Return an objective's name with accuracy in the place of the run's metric."""
    if not isinstance(name, str):
        return name
    before = TUNED if name.startswith(TUNED) else ""
    own = name[len(before) :]
    return f"{before}accuracy" if (own in MEASURES if metric is None else own == metric) else name


def named_objectives(objectives: Sequence[str], metric: str) -> tuple[str, ...]:
    """Return objectives as the columns of a search are called."""
    own = {"accuracy": metric, f"{TUNED}accuracy": TUNED + metric}
    return tuple(own.get(name, name) for name in objectives)
