"""The first value that was not finite, found late but named exactly."""

from __future__ import annotations

import math

import pytest
import torch

from nas_kd.train.watch import NonFinite, Watch

FINE = {"loss": torch.tensor(1.0), "other": torch.tensor(2.0, dtype=torch.float64)}


@pytest.mark.parametrize("every", [1, 4])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_the_first_bad_step_is_named_at_the_next_look(every: int, value: float) -> None:
    watch = Watch(every)
    watch.start()
    found: list[tuple[int, NonFinite]] = []
    bad = {5: {"other": torch.tensor(value)}, 6: {"loss": torch.tensor(math.nan)}, 7: {"loss": torch.tensor(math.nan)}}
    for step in range(8):
        said = watch.add(step, FINE | bad.get(step, {}))
        if said is not None:
            found.append((step, said))
    at, said = found[0]
    assert at == (5 if every == 1 else 7)
    assert (said.step, said.key) == (5, "other")
    assert said.value == value or math.isnan(value) and math.isnan(said.value)
    assert watch.check() is not None
    watch.start()
    assert watch.check() is None and watch.add(0, FINE) is None


def test_a_look_is_all_that_waits_for_the_device() -> None:
    """On the meta device every read of a value raises, as on a GPU it would wait."""
    watch, values = Watch(10), {"loss": torch.zeros((), device="meta")}
    watch.start()
    for step in range(9):
        assert watch.add(step, values) is None
    with pytest.raises((RuntimeError, NotImplementedError)):
        watch.add(9, values)
