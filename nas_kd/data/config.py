"""Settings of the images or texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field
from typing_extensions import TypedDict

from nas_kd.config.settings import Settings, default_of, settings
from nas_kd.config.types import Count, Images, Integer, Natural, NotNegative, Share
from nas_kd.errors import SettingError

Kind = Literal["classes", "multilabel", "regression"]
IMAGES = (
    "'digits', a folder of class folders or of tars, a .tar of class folders, a .csv, .tsv or .parquet, a name such as "
    "'torch/cifar10', 'hfds/NAME' or 'wds/FOLDER', or a pair (x, y) of tensors"
)
TEXT_FILES = (".csv", ".tsv", ".jsonl", ".parquet", ".pq")  # what a file of texts may be called
TEXTS = "a .csv, .tsv, .jsonl or .parquet of texts and labels, or 'hfds/NAME'"
FILES = (".tar", ".csv", ".tsv", ".parquet", ".pq")  # what a file of images may be called


@settings("data")
class DataConfig(Settings):
    """Images or texts, their splits and their augmentation."""

    train: str = "digits"
    """digits, a folder or a .tar of class folders, a folder of tars, a .csv or .parquet of images or texts and labels,
    torch/NAME, hfds/NAME or wds/FOLDER"""
    test: str | None = None
    """test images, as train; null holds out a stratified fifth of train"""
    rate: Share | Images = 0.05
    """share of train held out to score architectures on, or a number of images"""
    select: Share | Images = 0.05
    """share of train held out to choose the final architecture on, or a number of images"""
    seed: Integer = 0
    """seed of the splits and of the views"""
    resolution: Count | None = None
    """image size in pixels; null keeps that of the images"""
    subset: Count | None = None
    """use only this many images of train, class-stratified; null uses all"""
    views: Natural | Literal["all"] | None = 8
    """views (crop, flip) per image for which the teacher's logits are cached: a fixed number, or all;
    0 always draws new ones and runs the teacher live"""
    pad: Natural | None = None
    """pixels of padding before the random crop; null is an eighth of the resolution"""
    flip: bool | None = None
    """flip images left to right at random; null flips unless the data are digits"""
    augment: str | None = None
    """a timm augmentation such as rand-m9-mstd0.5 (the teacher then runs live); null is crop and flip"""
    balance: Literal["none", "class_weights", "sampler"] = "none"
    """none; class_weights: rare classes count more in the label loss; sampler: their images are drawn more often, so
    that every class is seen equally often"""
    memory_gib: NotNegative = 4.0
    """decoded images are kept in memory up to this many GiB, else decoded at every use; 0 never keeps them"""
    download: bool = False
    """allow a timm data set to be downloaded"""
    root: str = "~/.cache/nas_kd"
    """folder of torch/ and hfds/ data sets, and of the tokens of many texts"""
    train_split: str = "train"
    """name of the training split of such a data set"""
    test_split: str = "validation"
    """name of the test split of such a data set"""
    class_folder: Literal["top", "leaf"] = "top"
    """the folder that names an image's class: top, right under the root, or leaf, the one that holds the image"""
    image: str | None = None
    """column of a table (.csv, .parquet, hfds) with images or their paths; null finds it"""
    text: str | None = None
    """column of a table with texts; null finds it"""
    text_pair: str | None = None
    """column with the second text of each pair; null takes one called text_pair, sentence2 or the like"""
    tokenizer: str | None = None
    """folder with the tokenizer of texts; null takes that of a teacher that is a folder of transformers"""
    length: Annotated[int, Field(ge=4, lt=100_000)] | None = None
    """tokens that texts are cut to; null is 128, or the longest text where that is shorter"""
    label: str | Sequence[str] | None = None
    """column of a table with labels, or several columns; null finds it"""
    split_column: str | None = None
    """column of a table with the split of each image (train, val, test); null takes one called split"""
    group: str | None = None
    """column of a table whose images stay in one split, such as a patient's; null takes one called group;
    folder takes the folders below the class folders"""
    duplicates: Literal["stop", "keep"] = "stop"
    """stop where test images are training images too, or keep them; equal images elsewhere go to one split with stop"""
    background: str = "white"
    """colour under transparent pixels, such as white, black or #808080"""
    kind: Kind | None = None
    """what labels are: classes, multilabel (columns of 0 and 1) or regression (numbers); null looks at the labels"""
    unreadable: Literal["stop", "skip"] = "stop"
    """stop at an unreadable image, or skip: decode all images once, leave out the unreadable ones and list them"""

    def check_columns(self, origin: str, *, folders: bool = False) -> None:
        """Refuse settings of tables for images that are in none.

        Args:
            origin: the images, for messages.
            folders: they are in folders, which can be groups.

        Raises:
            SettingError: there is such a setting.
        """
        for name in ("image", "text", "text_pair", "label", "split_column", "group"):
            value = getattr(self, name)
            if value is not None and not (folders and (name, value) == ("group", "folder")):
                expected = f"null, as {origin} has no columns" + (", or folder" if folders and name == "group" else "")
                raise SettingError(f"data.{name}", value, expected, f"leave data.{name} out")

    def refuse_texts(self) -> None:
        """Refuse settings of texts where the data are images.

        Raises:
            SettingError: there is such a setting.
        """
        for name in ("text", "text_pair", "length"):
            value = getattr(self, name)
            if value is not None:
                expected = "null for images: no tokenizer says that the data are texts"
                hint = f"leave data.{name} out, or give data.tokenizer or a teacher that is a folder of transformers"
                raise SettingError(f"data.{name}", value, expected, hint)

    @property
    def label_columns(self) -> tuple[str, ...]:
        """The columns of labels that were named."""
        return (self.label,) if isinstance(self.label, str) else tuple(self.label or ())

    @property
    def ground(self) -> tuple[int, int, int]:
        """Red, green and blue of the background."""
        from PIL import ImageColor  # late: settings are read without it

        return ImageColor.getrgb(self.background)[:3]

    def __post_init__(self) -> None:
        try:
            _ = self.ground
        except ValueError as error:
            expected = "a colour such as white, black or #808080"
            raise SettingError("data.background", self.background, expected) from error
        if isinstance(self.rate, float) and isinstance(self.select, float) and self.rate + self.select >= 1:
            for name, other in (("select", self.rate), ("rate", self.select)):
                if getattr(self, name) == default_of(type(self), name):  # a default gives way
                    object.__setattr__(self, name, (1 - other) / 2)
                    return
            raise SettingError("data.rate", self.rate, f"below 1 - data.select={self.select}", "lower one of them")


@settings("data")
class CalibrationConfig(Settings):
    """Images that subnets are calibrated on."""

    calibration_images: Images = 512
    """training images on which norm statistics are measured"""


@settings("data")
class MeasuringConfig(CalibrationConfig):
    """Images that subnets are calibrated and scored on."""

    rate_images: Images | None = None
    """images of the rate split on which candidates are scored; null uses all"""


class DataSettings(TypedDict, total=False):
    """The settings of `DataConfig` as keywords, without the images themselves, which may be tensors."""

    rate: float | int
    select: float | int
    seed: int
    resolution: int | None
    subset: int | None
    views: int | Literal["all"] | None
    pad: int | None
    flip: bool | None
    augment: str | None
    balance: Literal["none", "class_weights", "sampler"]
    memory_gib: float
    download: bool
    root: str
    train_split: str
    test_split: str
    class_folder: Literal["top", "leaf"]
    image: str | None
    text: str | None
    text_pair: str | None
    tokenizer: str | None
    length: int | None
    label: str | Sequence[str] | None
    split_column: str | None
    group: str | None
    duplicates: Literal["stop", "keep"]
    background: str
    kind: Kind | None
    unreadable: Literal["stop", "skip"]


class CalibrationSettings(TypedDict, total=False):
    """The settings of `CalibrationConfig` as keywords."""

    calibration_images: int


class MeasuringSettings(CalibrationSettings, total=False):
    """The settings of `MeasuringConfig` as keywords."""

    rate_images: int | None
