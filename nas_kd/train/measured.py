"""What a trained network is worth: the measures of its task, by split, by class or label, and by image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd
from torch import Tensor, nn

from nas_kd.data import Split
from nas_kd.distill import Task
from nas_kd.runtime.device import Runtime
from nas_kd.train.network import predict


def measure(
    model: nn.Module, split: Split, task: Task, runtime: Runtime, teacher_logits: Tensor | None
) -> tuple[dict[str, float], Tensor]:
    """Evaluate a trained network on one split.

    Args:
        task: says what is measured.
        teacher_logits: (N, C) of the teacher on the split, or None.

    Returns:
        The task's measures (`Task.measures`), ``collapsed`` (1 where the answers are no better than the same one for
        all) and, with a teacher, ``agreement``; and the logits (N, C).
    """
    logits = predict(model, split, runtime)
    found = task.measures(logits, split.labels)
    if teacher_logits is not None:
        found["agreement"] = task.agreement(logits, teacher_logits)
    return found | {"collapsed": float(task.collapsed(logits, split.labels))}, logits


class ByOutput(NamedTuple):
    """Measures of every class or label.

    Args:
        main: the main one by name, such as ``recall_cat``.
        table: all of them, a row each.
    """

    main: dict[str, float]
    table: pd.DataFrame


def by_output(task: Task, logits: Tensor, split: Split, names: Sequence[str]) -> ByOutput:
    """Measure every class or label of a split.

    Args:
        logits: (N, C).
        names: of the C outputs.
    """
    found = task.by_output(logits, split.labels)
    first = next(iter(found), "")
    values = zip(names, found.get(first, ()), strict=False)
    main = {f"{first}_{name}": value for name, value in values if value == value}
    return ByOutput(main, pd.DataFrame({"name": list(names), **found}))


def by_image(task: Task, logits: Tensor, split: Split) -> pd.DataFrame:
    """Return what each image counts in the task's measure, and of classes its label and the answer.

    Args:
        logits: (N, C).
    """
    frame = pd.DataFrame({"score": task.scores(logits, split.labels).numpy()})
    answers = task.answers(logits)
    return frame if answers is None else frame.assign(label=split.labels.numpy(), answer=answers.numpy())
