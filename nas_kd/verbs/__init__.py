"""The public functions that join several rooms."""

from nas_kd.verbs.retrain import retrain
from nas_kd.verbs.search import SearchResult, search

__all__ = ["SearchResult", "retrain", "search"]
