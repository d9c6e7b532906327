"""Settings of the teacher as a space."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field

from nas_kd.config.settings import Settings, settings
from nas_kd.config.types import Count, Positive
from nas_kd.errors import SettingError

Part = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]
Pixels = Annotated[int, Field(ge=1, lt=100_000)]
Importance = Literal["activation", "taylor", "l1", "random"]
UnitScore = Literal["replace_one", "local"]


@settings("derive")
class DeriveConfig(Settings):
    """What may be cut of the teacher where no space is named, and how its units are rated."""

    widths: Sequence[Part] = (0.125, 0.25, 0.375, 0.5, 0.75, 1.0)
    """shares of a unit's inner channels, heads or groups to choose from; all of them are always among the choices"""
    depth: bool = True
    """whether units that keep their input's shape may be left out"""
    residual: bool = False
    """whether the widths of the residual streams are choices too, for strong cuts; channels between the layers of a
    network without residual blocks always are"""
    resolutions: Sequence[Pixels] = ()
    """further heights of the images in pixels to choose from: a student may take smaller images than the teacher"""
    importance: Importance = "activation"
    """which channels stay: activation (their mean size times the norm of what reads them), taylor, l1 or random"""
    score: UnitScore = "local"
    """what each choice of a unit is rated by: replace_one (what the teacher's answers lose by it alone) or local (the
    error of the unit's output)"""
    rate_images: Count = 512
    """images of the rate split that units are rated on, at most; search.rerate_images where they are rated again"""
    temperature: Positive = 1.0
    """softening of both answers in replace_one; search.rerate_temperature where units are rated again"""

    def __post_init__(self) -> None:
        if not self.widths:
            raise SettingError("derive.widths", self.widths, "at least one share above 0 and up to 1", "leave it out")
        for name in ("widths", "resolutions"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
