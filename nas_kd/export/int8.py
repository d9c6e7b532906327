"""A student of 8 bits, measured on the test images beside what it was."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from nas_kd.data import Data, Split
from nas_kd.errors import SettingError
from nas_kd.export.deployed import Deployed
from nas_kd.export.formats.base import Read
from nas_kd.nn.resize import at_resolution

Score = tuple[str, Callable[[Tensor, Tensor], float]]  # its name; of outputs (N, C) and labels, higher is better
BATCH = 64


@dataclass(frozen=True)
class Measured:
    """A student in one form, on the test images.

    Args:
        form: what ran it.
        measure: name of the measure.
        score: its value, higher is better.
        agreement: share of test images that it answers as the network in torch does; None for numbers.
        size: bytes of its file; None for the network itself.
    """

    form: str
    measure: str
    score: float
    agreement: float | None
    size: int | None


def check_data(network: Deployed, data: Data) -> None:
    """Refuse data that is not that of a student.

    Raises:
        SettingError: kind, classes or channels differ.
    """
    info = network.info
    own = {"classes": list(info.get("classes") or ()), "in_chans": info.get("in_chans")}
    own["kind"] = info.get("labels", "classes")
    for name, given in (("kind", data.kind), ("in_chans", data.in_chans), ("classes", list(data.classes))):
        if own[name] and own[name] != given:
            expected = f"the data that the student was trained on: its {name} are {str(own[name])[:80]}"
            raise SettingError("data.train", str(given)[:80], expected, "give --data.train and what else the run had")


def as_taken(network: Deployed, data: Data, split: str, limit: int | None = None) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield images of a split as a network takes them, and their labels."""
    info = network.info
    if network.normalise:
        data = data.normalised((0.0,) * data.in_chans, (1.0,) * data.in_chans)
    elif info.get("mean") and info.get("std"):
        data = data.normalised(info["mean"], info["std"])
    images: Split = getattr(data, split)
    for batch in images.clean(BATCH, limit=limit):
        yield at_resolution(batch.x, info.get("resolution")), batch.y


@torch.no_grad()
def measured(
    network: Deployed, runs: dict[str, tuple[Read, Path]], data: Data, score: Score | None = None
) -> tuple[Measured, ...]:
    """Measure a network and what was made of it on the test images.

    Args:
        runs: name to what runs a file, and the file.
        score: the measure; None is the accuracy of classes and minus the squared error of other labels.

    Returns:
        The network itself first.
    """
    parts = list(as_taken(network, data, "test"))
    labels = torch.cat([y for _, y in parts])
    wanted = torch.cat([network(x) for x, _ in parts])
    name, value = score or (("accuracy" if labels.ndim == 1 else "minus squared error"), _right)
    rows = [Measured("torch eager", name, value(wanted, labels), None if network.numbers else 1.0, None)]
    for form, (run, path) in runs.items():
        found = torch.cat([run(x) for x, _ in parts])
        same = network.same_answers(wanted, found)
        share = None if same is None else float(same.double().mean())
        rows.append(Measured(form, name, value(found, labels), share, path.stat().st_size))
    return tuple(rows)


def _right(outputs: Tensor, labels: Tensor) -> float:
    if labels.ndim == 1:
        return float((outputs.argmax(1) == labels).double().mean())
    return float(-(outputs - labels).square().mean())


def int8_table(rows: tuple[Measured, ...]) -> str:
    """Write what was measured as lines of text."""
    width = max(len(row.form) for row in rows)
    lines = [f"{'':{width}}  {rows[0].measure:>20} {'answers equal':>14} {'KiB':>9}"]
    for row in rows:
        same = "-" if row.agreement is None else f"{100 * row.agreement:.2f} %"
        size = "-" if row.size is None else f"{row.size / 1024:.1f}"
        lines.append(f"{row.form:{width}}  {row.score:20.4f} {same:>14} {size:>9}")
    return "\n".join(lines)
