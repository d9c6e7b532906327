"""Versions of what made a student or an export."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

from nas_kd.version import __version__

ALWAYS = ("torch", "torchvision", "timm", "numpy", "safetensors")


def versions(*more: str) -> dict[str, str]:
    """Return the versions of nas_kd, Python and packages that are installed, by name."""
    found = {"nas_kd": __version__, "python": platform.python_version()}
    for name in (*ALWAYS, *more):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
