"""The methods by name: a method combines terms with the label loss, at the published weights."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from nas_kd.distill.methods.entry import Entry
from nas_kd.distill.methods.features import FEATURES
from nas_kd.distill.methods.games import GAMES
from nas_kd.distill.methods.labels import LABELS
from nas_kd.distill.methods.online import ONLINE
from nas_kd.distill.methods.relations import RELATIONS
from nas_kd.distill.methods.texts import TEXTS

__all__ = ["METHODS", "Entry", "describe_methods", "form_of"]

FORMS = ("variant", "anchors")  # settings that say which of several losses goes by a method's name
METHODS: dict[str, Entry] = {**LABELS, **FEATURES, **RELATIONS, **ONLINE, **GAMES, **TEXTS}


def form_of(method: object, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return which form of a method trains, defaults included: runs record it, since defaults may change.

    Args:
        method: a name; anything else has no forms.
        settings: those that were given.
    """
    if not isinstance(method, str) or method not in METHODS:
        return {}
    parameters = inspect.signature(METHODS[method].recipe).parameters
    return {name: settings.get(name, parameters[name].default) for name in FORMS if name in parameters}


def describe_methods() -> list[str]:
    """Describe what every method does, needs and costs, one per line."""
    rows = [("method", "what it does", "needs", "cost of a step", "source")]
    rows += [(name, entry.line, entry.needs, entry.cost, entry.source) for name, entry in METHODS.items()]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = ("  ".join([*(f"{text:{w}}" for text, w in zip(row, widths, strict=False)), row[4]]) for row in rows)
    return [line.rstrip() for line in lines]
