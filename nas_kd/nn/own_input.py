"""A network that changes its input in place gets a copy: the caller's images or texts stay as they are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from nas_kd.nn import inputs


def keep_input(network: nn.Module) -> RemovableHandle:
    """Copy whatever a network is called with, in its copies too, until the handle is removed."""
    return network.register_forward_pre_hook(_copied)


def _copied(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(inputs.copied(each) if isinstance(each, Tensor | Mapping) else each for each in args)
