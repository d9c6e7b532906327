"""Identity of a space: the hash of its description."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from nas_kd.space.part import LATER, Part


def identity(stem: Part, head: Part, stages: Sequence[Part], resolutions: Sequence[int]) -> str:
    """Hash a space to twelve hexadecimal digits; fields added later count only where they are used."""
    parts = [_counted(stem), _counted(head), *(_counted(stage) for stage in stages)]
    if resolutions:
        parts.append({"resolutions": list(resolutions)})
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]


def _counted(part: Part) -> dict[str, Any]:
    counted = part.described()
    for field in fields(part):
        if field.metadata == LATER and counted[field.name] == field.default:
            del counted[field.name]
    if not part.typed:
        del counted["type"]
    return counted
