"""How well a linear map of a stage's feature gives the teacher's: adapters in closed form, on held-out images."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nas_kd.losses import normalised_mse
from nas_kd.rate.scores.base import Bench, Key, Score, keys_of
from nas_kd.rate.scores.stages import BLOCKWISE
from nas_kd.space import Arch

RIDGE = 1e-3  # share of the mean variance of a channel


def ridge_map(inputs: Tensor, targets: Tensor, ridge: float = RIDGE) -> Tensor:
    """Fit a 1x1 convolution with a bias by least squares.

    Args:
        inputs: (N, C, H, W).
        targets: (N, D, H, W).
        ridge: weight of the squared weights, as a share of the mean variance of the inputs' channels times the
            number of pixels; the bias is free.

    Returns:
        (C + 1, D): weights, then the bias.
    """
    x = _rows(inputs)
    y = _rows(targets)
    centre = x.mean(0)
    middle = y.mean(0)
    gram = (x - centre).T @ (x - centre)
    strength = ridge * gram.diagonal().mean().clamp_min(torch.finfo(gram.dtype).tiny)
    eye = torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    weights = torch.linalg.solve(gram + strength * eye, (x - centre).T @ (y - middle))
    return torch.cat([weights, (middle - centre @ weights)[None]])


def apply_map(inputs: Tensor, weights: Tensor) -> Tensor:
    """Apply what `ridge_map` fitted: (N, C, H, W) to (N, D, H, W), in the inputs' precision."""
    count, _, height, width = inputs.shape
    out = _rows(inputs) @ weights[:-1] + weights[-1]
    return out.reshape(count, height, width, -1).permute(0, 3, 1, 2).to(inputs.dtype)


def _rows(x: Tensor) -> Tensor:
    wide = torch.float32 if x.device.type == "mps" else torch.float64
    return x.permute(0, 2, 3, 1).reshape(-1, x.shape[1]).to(wide)


def ridge_residual(bench: Bench, archs: Sequence[Arch]) -> list[float]:
    """Fit the adapters on training images and add up the normalised errors on rating images.

    No adapter was trained with a stage, so none was trained longer or better than another; but a wider stage
    still has a larger one.
    """
    calibration, rating = bench.features()
    found: dict[Key, float] = {}
    for arch in archs:
        for key in keys_of(bench.space, arch):
            if key not in found:
                out = bench.stage(key, calibration, rating)
                weights = ridge_map(out.calibration, calibration[key[0]].targets)
                found[key] = float(normalised_mse(apply_map(out.rating, weights), rating[key[0]].targets))
    return [sum(found[key] for key in keys_of(bench.space, arch)) for arch in archs]


RIDGE_RESIDUAL = Score("ridge residual", ridge_residual, False, needs=BLOCKWISE)
