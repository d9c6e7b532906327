"""The fixtures of ratings."""

from tiny_ratings import archs, bench, data, derived, net, runtime, teacher  # noqa: F401
