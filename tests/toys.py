"""Small things that tests of several rooms share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Sizes:
    """A student of which a teacher knows only the sizes of its maps."""

    def __init__(self, *sizes: int) -> None:
        self.sizes = list(sizes)

    def stage_sizes(self, resolution: int) -> list[int]:
        return self.sizes


def shake(module: nn.Module) -> nn.Module:
    """Give a block weights of which none is 0 or 1."""
    torch.manual_seed(0)
    for parameter in module.parameters():
        nn.init.normal_(parameter, 0.3, 0.5)
    return module.train()


def bn(norm: nn.BatchNorm2d, x: Tensor) -> Tensor:
    """Normalise by the statistics of the batch."""
    return F.batch_norm(x, None, None, norm.weight, norm.bias, True)


def state(model: nn.Module) -> dict[str, Tensor]:
    """Copy a model's weights and statistics."""
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def equal(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    """Whether two states are the same to the bit."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def same_norms(one: Mapping[str, tuple[Tensor, ...]], other: Mapping[str, tuple[Tensor, ...]]) -> bool:
    """Whether two calibrations are the same to the bit."""
    pairs = ((x, y) for name in one for x, y in zip(one[name], other[name], strict=True))
    return one.keys() == other.keys() and all(torch.equal(x, y) for x, y in pairs)


def drawer(generator: torch.Generator) -> Callable[..., Tensor]:
    """Return a function that draws normal numbers of a shape in float64, others at every call."""
    return lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)


def grad(loss: Any, student: Tensor, *rest: Any, **settings: Any) -> Tensor:
    """Return the gradient of a loss by what the student says."""
    leaf = student.detach().clone().requires_grad_()
    loss(leaf, *rest, **settings).backward()
    assert leaf.grad is not None
    return leaf.grad


def points(rows: list[dict[str, Any]]) -> list[tuple[int, ...]]:
    """Return the points of a search's rows over three variables."""
    return [tuple(row[f"i_{i}"] for i in (1, 2, 3)) for row in rows]
