"""Sources of images that are no files of the user's: digits, tensors and the data sets of torchvision."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nas_kd.data.config import DataConfig
from nas_kd.data.labels import columns_of, labels_of
from nas_kd.data.source import ArraySource, VisionSource
from nas_kd.errors import SettingError

Arrays = tuple[Any, Any]


def _names(labels: NDArray[np.int64], classes: tuple[str, ...]) -> list[str]:
    """Name images without files by class and running number."""
    return [f"{classes[label]}/{i:06d}" for i, label in enumerate(labels.tolist())]


def digits(setting: str) -> ArraySource:
    """Return scikit-learn's digits."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    pixels = torch.from_numpy(np.rint(bunch.images * (255 / 16)).astype(np.uint8))[:, None]  # (1797, 1, 8, 8)
    labels = bunch.target.astype(np.int64)
    classes = tuple(map(str, bunch.target_names))
    return ArraySource(pixels, setting, "digits", _names(labels, classes), labels, classes)


def arrays(setting: str, pair: Arrays, config: DataConfig) -> ArraySource:
    """Return images and labels that are given as tensors.

    Args:
        setting: which one gave them, for messages.
        pair: x (N, C, H, W) uint8, and y of N labels.
        config: says what labels are.

    Raises:
        SettingError: they are of another shape or type.
    """
    if len(pair) != 2:
        raise SettingError(setting, f"{len(pair)} parts", "a pair (x, y)", "pass images and labels")
    try:
        x = torch.as_tensor(pair[0]).cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        expected = f"x (N, C, H, W) uint8 ({error})"
        raise SettingError(setting, type(pair[0]).__name__, expected, "convert it to a tensor") from error
    y = columns_of(setting, pair[1].cpu() if isinstance(pair[1], Tensor) else pair[1])
    rows = len(next(iter(y.values()), ()))
    shapes = f"x {tuple(x.shape)} {x.dtype}, y {(rows, len(y)) if len(y) > 1 else (rows,)}"
    if x.ndim != 4 or x.dtype != torch.uint8 or len(x) != rows or not rows:
        hint = (
            "(255 * x).round().to(torch.uint8), where x is 0 .. 1" if x.is_floating_point() else "convert the tensors"
        )
        raise SettingError(setting, shapes, "x (N, C, H, W) uint8 and y (N,) or (N, L)", hint)
    if x.shape[3] in (1, 3) and x.shape[1] == x.shape[2] > 4:
        raise SettingError(setting, shapes, "channels first: x (N, C, H, W)", "pass x.permute(0, 3, 1, 2)")
    if not all(x.shape[1:]):
        raise SettingError(setting, shapes, "images of at least one channel and pixel", "convert the tensors")
    labels = labels_of(setting, y, config.kind, numbered=True)
    names = [f"{i:06d}" for i in range(rows)]
    if labels.kind == "classes":
        names = _names(labels.y, labels.names)
    return ArraySource(x, setting, "tensors", names, labels.y, labels.names, labels.kind)


def torchvision(setting: str, name: str, split: str, root: str, download: bool) -> VisionSource:
    """Return a split of a data set of torchvision.

    Args:
        setting: which one named it, for messages.
        name: as timm names it, such as torch/cifar10.
        split: of the data set.
        root: folder that holds it.
        download: get it where it is not there.

    Raises:
        SettingError: there is no such data set, or it has no classes.
    """
    from timm.data.dataset_factory import create_dataset

    try:
        dataset: Any = create_dataset(name, root=root, split=split, download=download)
    except AssertionError as error:
        expected = f"a torchvision data set known to timm ({error})"
        raise SettingError(setting, name, expected, "check the name") from error
    except (RuntimeError, OSError) as error:
        hint = "set data.root to the folder that holds it, or data.download=true"
        raise SettingError(setting, name, f"a data set in {root} ({error})", hint) from error
    if not hasattr(dataset, "targets") or not hasattr(dataset, "classes"):
        raise SettingError(setting, name, "a classification data set", "save it as class folders")
    labels = np.asarray(dataset.targets, dtype=np.int64)
    classes = tuple(map(str, dataset.classes))
    again = (setting, name, split, root, False)
    return VisionSource(dataset, setting, name, _names(labels, classes), labels, classes, reopen=(torchvision, again))
