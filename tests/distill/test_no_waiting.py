"""A step asks a device for nothing: on a GPU every such question would wait for all that was given to it."""

from __future__ import annotations

from traceback import extract_stack
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from toy import beside, bound, images, noise, source_for, student

from nas_kd.distill import METHODS

ASK = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "is_nonzero", "equal", "multinomial", "bincount")


class Questions(TorchDispatchMode):
    """Notes the operations whose result, or whose result's shape, must come back from the device."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = op.overloadpacket.__name__
        if name == "_local_scalar_dense" and "optim" in "".join(frame.filename for frame in extract_stack()):
            return op(*args, **(kwargs or {}))  # a generator's or critic's optimiser counts its steps on the CPU
        masks = name in ("index", "index_put", "index_put_") and any(
            isinstance(part, Tensor) and part.dtype == torch.bool for part in args[1]
        )
        if masks or name.startswith(ASK):
            self.found.append(str(op))
        return op(*args, **(kwargs or {}))


def test_questions_are_noticed() -> None:
    x = torch.arange(3.0)
    with Questions() as questions:
        _ = x[x > 1], float(x.sum()), x.sum().item(), bool(x.any()), torch.multinomial(x, 1), x.nonzero()
    scalar = "_local_scalar_dense"
    names = [name.split(".")[1] for name in questions.found]
    assert names == ["index", scalar, scalar, scalar, "multinomial", "nonzero"]


@pytest.mark.parametrize("name", [name for name in sorted(set(METHODS) - {"soft_tree"}) if not METHODS[name].texts])
def test_a_step_asks_nothing(name: str) -> None:
    widths = (4, 6) if name == "fsp" else (6, 10)
    model = student()
    games = ("dafl", "zskt", "dfad", "dfq")
    settings = {"base": 4} if name in games else {}
    distiller = bound(name, model, source_for(name, widths), **settings)
    batch = noise() if name in games else images()
    if name in ("ddgsd", "mean_teacher", "cs_kd", "privileged"):
        batch = beside(batch)
    for progress in (0.0, 0.5, 1.0):
        distiller.step(batch, progress)
        with Questions() as questions:
            distiller.step(batch, progress)
        assert questions.found == [], progress
