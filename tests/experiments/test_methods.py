"""The table of methods.py: gains are paired by seed and image, and a training that diverged is counted, not hidden."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import pandas as pd
import pytest
import torch
from small_run import ROOT

ROWS = [("ce", 0, 0b1100), ("ce", 1, 0b1000), ("kd", 0, 0b1110), ("kd", 1, 0b1110), ("at", 0, 0b0000), ("at", 1, None)]


@pytest.fixture
def methods(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "experiments")
    return importlib.import_module("methods")


def frames(methods: ModuleType, rows: list[tuple[str, int, int | None]]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Trainings whose four test images are right where a bit is set; None diverged."""
    trained, hits = [], []
    for name, seed, bits in rows:
        right = None if bits is None else torch.tensor([float(bits >> bit & 1) for bit in range(4)])
        share = None if right is None else float(right.mean())
        row = {"method": name, "seed": seed, "test_accuracy": share, "select_accuracy": share, "cpu_seconds": 1.0}
        trained.append(row)
        if right is not None:
            hits.append({"method": name, "seed": seed, "hits": methods.packed(right)})
    return pd.DataFrame(trained), pd.DataFrame(hits)


def test_gains_are_of_the_same_seeds(methods: ModuleType) -> None:
    summary = methods.summarised(*frames(methods, ROWS)).set_index("method")
    assert summary.loc["kd", ["test_accuracy", "on_ce", "on_ce_seeds"]].tolist() == [0.75, 0.375, 2]
    assert summary.loc["at", ["seeds", "diverged", "on_ce", "on_ce_seeds"]].tolist() == [1, 1, -0.5, 1]
    assert summary.index.tolist() == ["kd", "ce", "at"] and summary.loc["kd", "diverged"] == 0


def test_a_method_that_always_diverged_and_a_missing_base(methods: ModuleType, tmp_path: Path) -> None:
    rows: list[tuple[str, int, int | None]] = [("at", 0, 0b1111), ("ce", 0, None), ("ce", 1, 0b1100)]
    summary = methods.summarised(*frames(methods, rows)).set_index("method")
    assert summary.loc["ce", "diverged"] == 1 and "on_kd" not in summary
    assert "on_ce" not in summary or pd.isna(summary.loc["at", "on_ce"])  # no seed that both have
    gone = methods.summarised(*frames(methods, [("ce", 0, 0b1100), ("kd", 0, None)])).set_index("method")
    assert gone.loc["kd", ["seeds", "diverged"]].tolist() == [0, 1]
    assert "| kd | nan |" in methods.table(gone.reset_index())
    gone.to_csv(tmp_path / "summary.csv")
    whole = methods.summarised(*frames(methods, ROWS))
    (tmp_path / "whole").mkdir()
    whole.to_csv(tmp_path / "whole" / "summary.csv", index=False)
    told = methods.side_by_side([tmp_path / "whole", tmp_path / "whole"])
    assert [line.split(" | ")[0] for line in told.splitlines()[2:]] == ["| kd", "| ce", "| at"]
