"""The version, which every run folder names."""

from __future__ import annotations

__version__ = "0.1.0"
