"""What networks are called with: images as one tensor, texts as a dictionary of tensors; nothing else asks which."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

IDS = "input_ids"
MASK = "attention_mask"


def inputs_of(batch: Any) -> Any:
    """Return the inputs of a batch: itself where it is no tuple that begins with them."""
    return batch if isinstance(batch, Tensor | Mapping) else batch[0]


def count(x: Any) -> int:
    """Return the number of images or texts."""
    return len(x) if isinstance(x, Tensor) else len(next(iter(x.values())))


def moved(x: Any, device: torch.device | str) -> Any:
    """Return inputs on a device."""
    return _each(x, lambda part: part.to(device, non_blocking=True))


def picked(x: Any, index: Any) -> Any:
    """Return some of the images or texts.

    Args:
        index: a slice, or (K,) their numbers.
    """
    return _each(x, lambda part: part[index])


def split(x: Any, size: int) -> list[Any]:
    """Divide inputs into parts of a size; the last may be smaller."""
    return [picked(x, slice(start, start + size)) for start in range(0, count(x), size)]


def copied(x: Any) -> Any:
    """Return a copy of the inputs."""
    return _each(x, Tensor.clone)


def joined(parts: Sequence[Any]) -> Any:
    """Put inputs behind each other; texts are padded to the longest, which their masks say."""
    if isinstance(parts[0], Tensor):
        return torch.cat(list(parts))
    longest = max(part[MASK].shape[1] for part in parts)
    return {
        name: torch.cat([F.pad(part[name], (0, longest - part[name].shape[1])) for part in parts]) for name in parts[0]
    }


def real_tokens(x: Any) -> Tensor | None:
    """Return which tokens of texts are no padding, (B, L) bool; None of images."""
    return None if isinstance(x, Tensor) else x[MASK].bool()


def of_real(feature: Tensor, real: Tensor | None) -> Tensor:
    """Return the part of a feature that is not of padding.

    Args:
        feature: (B, L, D) of texts, or anything of images.
        real: what `real_tokens` says.

    Returns:
        (T, D) of the T tokens that count; the feature itself where nothing is padded.
    """
    return feature if real is None or feature.ndim != 3 or feature.shape[:2] != real.shape else feature[real]


def takes_images(network: nn.Module) -> bool:
    """Tell whether a network takes images: others say what they take."""
    return not hasattr(network, "example_inputs")


def example(
    network: nn.Module, in_chans: int, size: int, number: int = 1, generator: torch.Generator | None = None
) -> Any:
    """Draw inputs of the kind that a network takes, on its device.

    Args:
        network: one that takes no images says what it takes by ``example_inputs(number, size, generator)``.
        in_chans: channels of its images.
        size: height and width of the images in pixels, or the number of tokens.
        number: of images or texts.
        generator: of the draws; None is seeded with 0.
    """
    generator = generator or torch.Generator().manual_seed(0)
    device = next((p.device for p in network.parameters()), torch.device("cpu"))
    own: Any = getattr(network, "example_inputs", None)
    if own is not None:
        return moved(own(number, size, generator), device)
    return torch.randn(number, in_chans, size, size, generator=generator).to(device)


def _each(x: Any, change: Any) -> Any:
    return change(x) if isinstance(x, Tensor) else {name: change(part) for name, part in x.items()}
