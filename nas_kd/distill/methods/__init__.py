"""The methods by name: a method combines terms with the label loss, at the published weights."""

from __future__ import annotations

from nas_kd.distill.methods.entry import Entry
from nas_kd.distill.methods.features import FEATURES
from nas_kd.distill.methods.games import GAMES
from nas_kd.distill.methods.labels import LABELS
from nas_kd.distill.methods.online import ONLINE
from nas_kd.distill.methods.relations import RELATIONS

__all__ = ["METHODS", "Entry", "describe_methods"]

METHODS: dict[str, Entry] = {**LABELS, **FEATURES, **RELATIONS, **ONLINE, **GAMES}


def describe_methods() -> list[str]:
    """Describe what every method does, needs and costs, one per line."""
    rows = [("method", "what it does", "needs", "cost of a step", "source")]
    rows += [(name, entry.line, entry.needs, entry.cost, entry.source) for name, entry in METHODS.items()]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = ("  ".join([*(f"{text:{w}}" for text, w in zip(row, widths, strict=False)), row[4]]) for row in rows)
    return [line.rstrip() for line in lines]
