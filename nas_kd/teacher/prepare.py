"""Choose between a live teacher and stored targets for a training."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from nas_kd.teacher.targets import TargetSource, without_features

if TYPE_CHECKING:
    from nas_kd.data import Data
    from nas_kd.runs.run import Run

_log = logging.getLogger(__name__)


def prepared(
    source: TargetSource, data: Data, run: Run | None, *, epochs: int = 0, features: bool = False, unseen: str = ""
) -> TargetSource:
    """Bind a source to the data, and return the source of the targets of one training.

    Logits of numbered views are stored once and read by every later training; features and images that have no number
    need the teacher itself.

    Args:
        run: keeps what is stored; None stores nothing.
        features: whether the method compares features.
        unseen: which of its images are no numbered views, such as "mixed images"; nothing where all are.

    Raises:
        SettingError: the source does not fit the data, or lacks what the training needs.
    """
    if unseen:
        live = source.live()
        if run is not None:
            run.log_message(f"the teacher runs live: {unseen} are in no cache")
        elif live is not source:
            _log.warning(f"the teacher runs live: {unseen} are in no cache")
        source = live
    source.bind(data, 0 if unseen else epochs)
    if features and not source.gives_features:
        raise without_features(source)
    return source if features or unseen else source.cached(data, run, epochs=epochs)
