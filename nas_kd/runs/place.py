"""Where a stage stands among those of a command."""

from __future__ import annotations

import time
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Place:
    """Where a stage stands among those of a command; a run that has one shows it with every progress.

    Args:
        number: of the stage, from 1.
        stages: how many there are.
        seconds: what a plan says of this stage; None without a plan.
        later: what it says of those behind it.
    """

    number: int
    stages: int
    seconds: float | None = None
    later: float = 0.0
    began: float = field(default_factory=time.monotonic)

    def eta_seconds(self, own: float | None) -> float | None:
        """Return seconds to the end of all stages; None without a plan, and where this stage takes longer than it says.

        Args:
            own: to the end of the work that is shown, which may be a part of the stage.
        """
        if self.seconds is None:
            return None
        left = self.seconds - (time.monotonic() - self.began)
        return None if own is None and left < 0 else max(own or 0.0, left) + self.later
