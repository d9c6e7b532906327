"""A network with the description of its student folder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from torch import nn


class Student(nn.Module):
    """What `retrain` and `load_student` return, for type checkers: a network of any class.

    Args:
        info: its classes, normalisation, size of images, metrics and how to rebuild it.
    """

    info: dict[str, Any]


def as_student(network: nn.Module, info: Mapping[str, Any]) -> Student:
    """Return a network with the description of its student folder."""
    student = cast(Student, network)
    student.info = dict(info)
    return student
