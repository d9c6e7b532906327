"""Types of settings with common ranges."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

LARGEST = 2**63  # counters of other libraries hold less
Integer = Annotated[int, Field(gt=-LARGEST, lt=LARGEST)]
Count = Annotated[int, Field(ge=1, lt=LARGEST)]
Natural = Annotated[int, Field(ge=0, lt=LARGEST)]
Images = Annotated[int, Field(ge=2, lt=LARGEST)]  # for statistics over images
Finite = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]
OpenShare = Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)]
ClosedShare = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
