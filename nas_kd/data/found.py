"""What was found in a data set besides its images."""

from __future__ import annotations

from dataclasses import dataclass

from nas_kd.data.duplicates import Equal


@dataclass(frozen=True)
class Found:
    """What is not in the images themselves.

    Args:
        ignored: why files were left out, and how many.
        notes: how the layout was read, where that is not evident.
        sizes: (H, W) of the images and how many have it, the most frequent first; empty for tensors.
        modes: Pillow's modes and how many images have each.
        traits: what else was seen of images, and of how many.
        equal: images of equal pixels.
    """

    ignored: tuple[tuple[str, int], ...] = ()
    notes: tuple[str, ...] = ()
    sizes: tuple[tuple[tuple[int, int], int], ...] = ()
    modes: tuple[tuple[str, int], ...] = ()
    traits: tuple[tuple[str, int], ...] = ()
    equal: Equal = Equal()
