"""Choice between a live teacher and stored targets for a training."""

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
    """Bind a source to the data and return the target source of one training.

    Logits of numbered views are stored once and reused by every later training; features and images without a view
    number need the teacher itself.

    Args:
        run: where to store logits; None stores nothing.
        features: whether the method compares features.
        unseen: its images without a view number, such as "mixed images"; empty if there are none.

    Raises:
        SettingError: the source does not fit the data, or lacks what the training needs.
    """
    if unseen:
        live = source.live()
        if run is not None:
            run.log_message(f"the teacher runs live: {unseen} are not cached")
        elif live is not source:
            _log.warning(f"the teacher runs live: {unseen} are not cached")
        source = live
    source.bind(data, 0 if unseen else epochs)
    if features and not source.gives_features:
        raise without_features(source)
    return source if features or unseen else source.cached(data, run, epochs=epochs)
