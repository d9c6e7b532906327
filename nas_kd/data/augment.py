"""Crop, flip and normalise whole batches; timm's automatic augmentation image by image."""

from __future__ import annotations

import random
from copy import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from nas_kd.data.views import Views
from nas_kd.errors import SettingError
from nas_kd.runtime.seeds import seed_for


def crop_flip(pixels: Tensor, top: Tensor, left: Tensor, flip: Tensor, pad: int) -> Tensor:
    """Pad with zero pixels, crop each image at its own corner to its original size and mirror some.

    Padding is black (zero before normalisation), as in torchvision's RandomCrop and every published CIFAR recipe since
    He et al. 2015.

    Args:
        pixels: (B, H, W, C), any type.
        top, left: (B,) int64, corner in the padded image, 0 .. 2 pad.
        flip: (B,) bool, whether to mirror left to right after the crop.
        pad: pixels added on each side.

    Returns:
        (B, H, W, C) of the same type, contiguous.
    """
    b, h, w, c = pixels.shape
    device = pixels.device
    top, left, flip = (part.to(device, non_blocking=True) for part in (top, left, flip))
    high = h + 2 * pad
    wide = w + 2 * pad
    padded = pixels.new_zeros(b, high, wide, c)
    padded[:, pad : pad + h, pad : pad + w] = pixels
    rows = top[:, None] + torch.arange(h, device=device)  # (B, H)
    across = torch.arange(w, device=device)
    columns = left[:, None] + torch.where(flip[:, None], w - 1 - across, across)  # (B, W)
    rows = rows + (torch.arange(b, device=device) * high)[:, None]
    # gathering whole pixels is the fastest of five variants, twice as fast as advanced indexing of windows
    flat = rows[:, :, None] * wide + columns[:, None, :]  # (B, H, W)
    return padded.view(-1, c).index_select(0, flat.view(-1)).view(b, h, w, c)


class Affine:
    """From uint8 pixels to the network's input: (pixel / 255 - mean) / std.

    Args:
        mean, std: one per channel, in 0..1 units.
    """

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        m = torch.tensor(mean, dtype=torch.float64)
        s = torch.tensor(std, dtype=torch.float64)
        self._scale = (1 / (255 * s)).float()
        self._shift = (-m / s).float()

    def to(self, device: torch.device | str) -> Affine:
        """Return a copy with its constants on a device."""
        other = copy(self)
        other._scale = self._scale.to(device)
        other._shift = self._shift.to(device)
        return other

    def __call__(self, pixels: Tensor) -> Tensor:
        """Normalise (B, H, W, C) uint8 to (B, C, H, W) float32, channels_last."""
        b, h, w, c = pixels.shape
        # vectorised over rows of W * C values; twice as fast as over the C channels alone
        scale = self._scale.to(pixels.device).repeat(w)
        shift = self._shift.to(pixels.device).repeat(w)
        x = pixels.reshape(b, h, w * c).float().mul_(scale).add_(shift)
        return x.view(b, h, w, c).permute(0, 3, 1, 2)


class AutoAugment:
    """timm's automatic augmentation, drawn for every image and epoch.

    Args:
        policy: timm's policy string, such as ``rand-m9-mstd0.5``, ``augmix-m5-w4-d2`` or ``3a``.
        mean: of the data, one per channel in 0..1 units: the colour of uncovered corners.

    Raises:
        SettingError: timm does not know the policy.
    """

    def __init__(self, policy: str, mean: tuple[float, ...], resolution: int) -> None:
        from timm.data import auto_augment as auto

        if len(mean) not in (1, 3):
            expected = f"null for images of {len(mean)} channels: timm's policies are for grey and colour"
            raise SettingError("data.augment", policy, expected, "leave it out for crop and flip")
        fill = tuple(min(255, round(255 * m)) for m in mean)
        settings: dict[str, Any] = {
            "translate_const": int(resolution * 0.45),
            "img_mean": fill if len(fill) == 3 else fill[0],
        }
        kinds = {"rand": auto.rand_augment_transform, "augmix": auto.augment_and_mix_transform}
        if policy.startswith("augmix"):
            settings["translate_pct"] = 0.3
        make = kinds.get(policy.partition("-")[0], auto.auto_augment_transform)
        try:
            self._transform = make(policy, settings)
        except (AssertionError, ValueError, KeyError, IndexError) as error:
            raise SettingError(
                "data.augment",
                policy,
                "null or a timm policy such as rand-m9-mstd0.5, augmix-m5-w4-d2, 3a",
                f"leave it out for crop and flip ({error})",
            ) from error
        self.policy = policy

    def __call__(self, pixels: Tensor, index: Tensor, seed: int, epoch: int) -> Tensor:
        """Augment (B, H, W, C) uint8 images; each draw depends only on seed, epoch and image number."""
        arrays = pixels.cpu().numpy()
        # timm draws from the global generators, which are restored afterwards
        kept = random.getstate()
        kept_numpy = np.random.get_state()
        out = np.empty_like(arrays)
        try:
            for i, (array, number) in enumerate(zip(arrays, index.tolist(), strict=True)):
                draw = seed_for(seed, "augment", epoch, number)
                random.seed(draw)
                np.random.seed(draw % 2**32)
                image = Image.fromarray(array if array.shape[-1] == 3 else array[..., 0])
                out[i] = np.asarray(self._transform(image)).reshape(array.shape)
        finally:
            random.setstate(kept)
            np.random.set_state(kept_numpy)
        return torch.from_numpy(out).to(pixels.device)


@dataclass(frozen=True, eq=False)
class Augment:
    """Augmentation of training images.

    Args:
        pad: zero pixels added on each side before the crop.
        flip: whether to mirror at random.
        views: the numbered views to draw crop and flip from; None draws new ones in every epoch.
        auto: timm's automatic augmentation, before crop and flip; then there are no views.
    """

    pad: int
    flip: bool
    views: Views | None
    auto: AutoAugment | None

    @property
    def settings(self) -> dict[str, int | bool | str | None]:
        """Its settings by name."""
        return {
            "data.pad": self.pad,
            "data.flip": self.flip,
            "data.views": self.views.setting if self.views else 0,
            "data.augment": self.auto.policy if self.auto else None,
        }
