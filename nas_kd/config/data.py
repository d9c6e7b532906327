"""Settings of the images."""

from __future__ import annotations

from dataclasses import dataclass

from nas_kd.config.checks import check_views, natural, positive, share, word
from nas_kd.errors import SettingError


@dataclass(frozen=True)
class DataConfig:
    """Images, their splits and their augmentation."""

    train: str = "digits"
    """digits, a folder or a .tar of class folders, or a timm data set such as torch/cifar10 or hfds/NAME"""
    test: str | None = None
    """test images, as train; null holds out a stratified fifth of train"""
    rate: float = 0.05
    """share of train held out to score architectures on"""
    select: float = 0.05
    """share of train held out to choose the final architecture on"""
    seed: int = 0
    """seed of the splits and of the views"""
    resolution: int | None = None
    """image size in pixels; null takes the images' own"""
    subset: int | None = None
    """use only this many images of train, class-stratified; null uses all"""
    views: int | str = 8
    """views (crop, flip) an image that the teacher's answers are cached for: so many fixed ones, or all;
    0 draws new ones always and asks the teacher live"""
    pad: int | None = None
    """pixels of padding before the random crop; null is an eighth of the resolution"""
    flip: bool | None = None
    """flip images left to right at random; null flips unless the data are digits"""
    augment: str | None = None
    """a timm augmentation such as rand-m9-mstd0.5 (the teacher then answers live); null is crop and flip"""
    memory_gib: float = 4.0
    """decoded images are kept in memory up to this many GiB, else decoded at every use"""
    download: bool = False
    """allow a timm data set to be downloaded"""
    root: str = "~/.cache/nas_kd"
    """folder of torch/ and hfds/ data sets"""
    train_split: str = "train"
    """name of the training split of such a data set"""
    test_split: str = "validation"
    """name of the test split of such a data set"""
    unreadable: str = "stop"
    """stop at an image that cannot be read, or skip: decode all once, leave such images out and list them"""

    def __post_init__(self) -> None:
        share("data", self, "rate", "select")
        if self.rate + self.select >= 1:
            raise SettingError("data.rate", self.rate, f"below 1 - data.select={self.select}", "lower one of them")
        positive("data", self, "resolution", "subset", "memory_gib")
        natural("data", self, "pad")
        check_views(self.views)
        word("data.unreadable", self.unreadable, ("stop", "skip"))
