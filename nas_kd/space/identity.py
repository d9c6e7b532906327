"""Identity of a space: the hash of its description."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from nas_kd.space.part import LATER, Part


def identity(stem: Part, head: Part, stages: Sequence[Part], resolutions: Sequence[int]) -> str:
    """Hash a space to twelve hexadecimal digits; fields added later count only if they are used."""
    parts = [_hashed(stem), _hashed(head), *(_hashed(stage) for stage in stages)]
    if resolutions:
        parts.append({"resolutions": list(resolutions)})
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]


def _hashed(part: Part) -> dict[str, Any]:
    hashed = part.described()
    for field in fields(part):
        if field.metadata == LATER and hashed[field.name] == field.default:
            del hashed[field.name]
    if not part.typed:
        del hashed["type"]
    return hashed
