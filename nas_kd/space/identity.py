"""What makes two spaces the same: their description as JSON types, and its hash."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, fields
from typing import Any

from nas_kd.space.ends import ConvStem, Head, LinearHead, Stem
from nas_kd.space.stages import LATER, Stage


def described(part: Stem | Head | Stage) -> dict[str, Any]:
    """Return a part of a space as JSON types."""
    return {"type": type(part).__name__} | asdict(part)


def identity(stem: Stem, head: Head, stages: Sequence[Stage], resolutions: Sequence[int]) -> str:
    """Hash a space.

    Args:
        stem: what comes before the first stage.
        head: what comes after the last one.
        stages: the stages.
        resolutions: input sizes to choose from, if any.

    Returns:
        Twelve hexadecimal digits of a SHA-256. Archs and finished runs carry it, so it must stay: what was
        added to a description later counts only where it is used.
    """
    parts = [_counted(stem), _counted(head), *(_counted(stage) for stage in stages)]
    if resolutions:
        parts.append({"resolutions": list(resolutions)})
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]


def _counted(part: Stem | Head | Stage) -> dict[str, Any]:
    counted = described(part)
    for field in fields(part):
        if field.metadata == LATER and counted[field.name] == field.default:
            del counted[field.name]
    if isinstance(part, ConvStem | LinearHead):  # once the only stem and head, written without their type
        del counted["type"]
    return counted
