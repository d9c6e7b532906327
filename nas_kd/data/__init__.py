"""Data sets: read once, split by file name, augmented in batches."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nas_kd.lazy import lazy

if TYPE_CHECKING:
    from nas_kd.data.augment import Augment as Augment
    from nas_kd.data.augment import AutoAugment as AutoAugment
    from nas_kd.data.augment import crop_flip as crop_flip
    from nas_kd.data.batch import Batch as Batch
    from nas_kd.data.dataset import Data as Data
    from nas_kd.data.image_split import Split as Split
    from nas_kd.data.load import load_data as load_data
    from nas_kd.data.views import AllViews as AllViews
    from nas_kd.data.views import Views as Views
    from nas_kd.data.views import ViewTable as ViewTable

_HOME = {
    "AllViews": "views",
    "Augment": "augment",
    "AutoAugment": "augment",
    "Batch": "batch",
    "Data": "dataset",
    "Split": "image_split",
    "ViewTable": "views",
    "Views": "views",
    "crop_flip": "augment",
    "load_data": "load",
}
__all__ = [*_HOME]
__getattr__, __dir__ = lazy(__name__, _HOME)
