"""The logits among what a network returns: auxiliary heads and dictionaries are other people's habits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from nas_kd.errors import SettingError


def logits_of(out: Any) -> Tensor:
    """Return the logits (B, C) of a network's output.

    Args:
        out: a tensor; an object with ``logits``, such as those of Hugging Face and of torchvision's GoogLeNet; or a
            mapping or sequence, whose first matrix is that of the main head.

    Raises:
        SettingError: there is none.
    """
    if isinstance(out, Tensor):
        return out
    parts: list[Any] = []
    match out:
        case Mapping():
            parts = [out.get("logits"), *out.values()]
        case object(logits=named):
            parts = [named]
    if isinstance(out, tuple | list):
        parts += out
    for part in parts:
        if isinstance(part, Tensor) and part.ndim == 2:
            return part
    expected = "a network that returns logits (batch, classes), or a tuple or dictionary with them"
    raise SettingError("teacher.model", type(out).__name__, expected, "wrap it so that it returns logits")


def _only_logits(module: nn.Module, args: tuple[Any, ...], out: Any) -> Tensor:
    return logits_of(out)


def answer_logits(module: nn.Module) -> RemovableHandle:
    """Have a network that may return more than logits return these alone, in training as in evaluation.

    Returns:
        A handle whose ``remove`` ends it.
    """
    return module.register_forward_hook(_only_logits)
