"""Tiny data, a teacher and a bench of scores: what takes a public function once through."""

from tiny_ratings import archs, bench, data, derived, net, runtime, teacher  # noqa: F401
