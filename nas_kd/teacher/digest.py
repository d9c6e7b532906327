"""A hash of weights, by which teachers are told apart."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor


def digest_of(kind: str, state: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of a network.

    Args:
        kind: what it is besides its weights.
        state: its state dict; names, types, shapes and bytes count.
    """
    digest = hashlib.sha256(kind.encode())
    for key, tensor in sorted(state.items()):
        digest.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}".encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
