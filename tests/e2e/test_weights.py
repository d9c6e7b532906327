"""Weights that a setting only names are found once: a command that is given again goes on with them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from small_run import Made, Said, changes, digests

from nas_kd.rate.weights import Weights, sensitivity_weights
from nas_kd.searcher import weighting

MORE = ("--search.weights", "sensitivity", "--search.trials", "20", "--search.epochs", "0", "--search.tuned", "0")


def test_a_search_with_found_weights_goes_on(
    made: Made, copied: Path, nas_kd_main: Callable[..., Said], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def last_digits(*given: Any) -> Weights:  # as another number of threads changes them
        found = sensitivity_weights(*given)
        calls.append(found)
        return found._replace(values=[value * (1 + 1e-15) ** len(calls) for value in found.values])

    monkeypatch.setattr(weighting, "sensitivity_weights", last_digits)
    command = ("search", made.config, "--run", copied, *MORE)
    before = digests(copied)
    said = nas_kd_main(*command)
    assert said.code == 0, said.err
    changed = changes(before, digests(copied))
    (folder,) = {Path(name).parent for name in changed if name.startswith("search/")}
    assert folder.name.endswith("_weights_sensitivity")
    state = copied / folder / "stage.json"
    assert json.loads(state.read_text())["inputs"]["search.weights"] == "sensitivity"
    after = digests(copied)
    state.write_text(json.dumps(json.loads(state.read_text()) | {"done": False}))  # as if it was killed at the end
    said = nas_kd_main(*command)
    assert said.code == 0, said.err
    assert changes(after, digests(copied)) == [] and len(calls) == 1
    # other tables, other weights: those that are kept are not for these
    kept = copied / "blockwise" / "weights_sensitivity.json"
    kept.write_text(json.dumps({"origin": {"tables": "others"}, "weights": [1.0, 1.0, 1.0]}))
    said = nas_kd_main(*command)
    assert said.code != 0 and len(calls) == 2 and "tables" in said.err
