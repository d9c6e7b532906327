"""Module injection as the first thing of a training: the student's layers are brought near to the teacher's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from nas_kd.distill.injection import alike, inject
from nas_kd.distill.pair import Pair
from nas_kd.errors import SettingError

if TYPE_CHECKING:
    from nas_kd.data import Data


def read_pairs(layers: str) -> dict[str, str]:
    """Read ``"conv1=stem.conv1, conv2"`` as pairs of the student's and the teacher's names; one name stands for both.

    Raises:
        SettingError: a name is missing.
    """
    found = {}
    for part in layers.split(",") if layers.strip() else ():
        own, sign, other = (text.strip() for text in part.partition("="))
        if not own or (sign and not other):
            expected = "names of convolutions, as STUDENT=TEACHER, separated by commas"
            raise SettingError("inject.layers", layers, expected, "leave it out for those of equal name and shape")
        found[own] = other or own
    return found


@dataclass(frozen=True)
class Aligned:
    """Aligns a student's convolutions with its teacher's before the first step.

    Args:
        layers: pairs of names; empty takes the convolutions whose output has the shape of the teacher's of that name.
        images: number of training images that are looked at, without labels.

    Source: Li et al., Few sample knowledge distillation, arXiv 1812.01839, algorithm 1.
    """

    layers: str = ""
    images: int = 500

    def __call__(self, pair: Pair, data: Data) -> None:
        """Change the student in place.

        Raises:
            SettingError: the teacher has no network here, or no convolution fits.
        """
        teacher = None if pair.source is None else pair.source.teacher
        if teacher is None:
            expected = "one live teacher, whose layers can be read"
            raise SettingError("teacher", type(pair.source).__name__, expected, "pass the teacher itself, or use kd")
        device = next((p.device for p in pair.model.parameters()), torch.device("cpu"))
        shown = next(iter(data.train.clean(self.images, limit=self.images))).x.to(device)
        theirs = teacher.normalised(shown)
        layers = read_pairs(self.layers) or alike(pair.model, teacher.network, shown[:2], theirs[:2])
        if not layers:
            expected = "a student with a convolution of the name and the output shape of one of the teacher's"
            hint = "name pairs with inject.layers='conv1=layer1.conv1', or use kd"
            raise SettingError("method", "inject", expected, hint)
        inject(pair.model, teacher.network, shown, layers, theirs)
