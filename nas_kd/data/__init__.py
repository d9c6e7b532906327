"""Data sets: read once, split by file name, augmented in batches."""

from nas_kd.data.augment import AutoAugment, crop_flip
from nas_kd.data.batch import Batch
from nas_kd.data.dataset import Augment, Data, Split
from nas_kd.data.load import load_data
from nas_kd.data.views import AllViews, Views, ViewTable

__all__ = [
    "AllViews",
    "Augment",
    "AutoAugment",
    "Batch",
    "Data",
    "Split",
    "ViewTable",
    "Views",
    "crop_flip",
    "load_data",
]
