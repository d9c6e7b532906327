"""One profile for all property tests: the same examples in every run, and no time limit on one of them."""

from __future__ import annotations

import sys
from pathlib import Path

from hypothesis import HealthCheck, settings

sys.path.insert(0, str(Path(__file__).parent))
settings.register_profile(
    "same", derandomize=True, database=None, deadline=None, max_examples=40, suppress_health_check=list(HealthCheck)
)
settings.load_profile("same")
