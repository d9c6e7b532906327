"""The methods by name: a method adds labels and the published weights to one or more terms."""

from __future__ import annotations

from nas_kd.distill.methods.entry import Entry
from nas_kd.distill.methods.features import FEATURES
from nas_kd.distill.methods.games import GAMES
from nas_kd.distill.methods.labels import LABELS
from nas_kd.distill.methods.online import ONLINE
from nas_kd.distill.methods.relations import RELATIONS

__all__ = ["METHODS", "Entry"]

METHODS: dict[str, Entry] = {**LABELS, **FEATURES, **RELATIONS, **ONLINE, **GAMES}
