"""Weights on disk: safetensors, written atomically and checked when read."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load as safetensors_load
from safetensors.torch import save as safetensors_save
from torch import nn

from nas_kd.errors import SettingError
from nas_kd.nn.norm import STATISTICS
from nas_kd.runs.files import atomic_write
from nas_kd.runs.tensors import shapes_in


def save_weights(module: nn.Module, path: Path) -> None:
    """Write a module's state as safetensors, atomically."""
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in module.state_dict().items()}
    atomic_write(path, safetensors_save(state))


def load_weights(module: nn.Module, path: Path, fingerprint: str | None = None) -> None:
    """Load the weights that ``save_weights`` wrote.

    Args:
        fingerprint: expected `weights_hash`; None skips the check.

    Raises:
        SettingError: the file is missing or damaged, or a tensor does not fit.
    """
    if not path.is_file():
        raise SettingError("weights", str(path), "an existing .safetensors file", "delete the stage's folder")
    hint = f"delete {path.parent} and run the same command again"
    shapes = shapes_in(path, "weights", hint)
    expected = module.state_dict()
    for name in [*expected, *shapes]:
        have = shapes.get(name)
        target = tuple(expected[name].shape) if name in expected else None
        if have is None or target is None or have != target:
            raise SettingError(
                "weights", f"{path}: {name} {have}", f"{name} {target}", "use weights of the same network"
            )
    try:
        state = safetensors_load(path.read_bytes())
    except (SafetensorError, ValueError, RuntimeError) as error:
        raise SettingError("weights", str(path), "an undamaged .safetensors file", hint) from error
    expected.update(state)  # it knows the layers' versions: an old batch norm's counter is not asked for
    module.load_state_dict(expected)
    check_hash(module, path, fingerprint)


def check_hash(module: nn.Module, path: Path, fingerprint: str | None) -> None:
    """Raise SettingError if loaded weights are not those that were written.

    Args:
        path: the file they were read from.
        fingerprint: `weights_hash` when they were written; None skips the check.
    """
    if fingerprint is not None and weights_hash(module) != fingerprint:
        hint = f"delete {path.parent} and run the same command again"
        raise SettingError("weights", str(path), f"the original weights, with hash {fingerprint}", hint)


@torch.no_grad()
def weights_hash(module: nn.Module, *, measured: bool = True) -> str:
    """Return twelve hexadecimal digits of the SHA-256 over names and values of a module's state.

    Args:
        measured: include the running statistics of batch norms. Measured anew in another process, they may differ in
            the last bit, which depends on where memory lies.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        if not measured and name.endswith(STATISTICS):
            continue
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:12]
