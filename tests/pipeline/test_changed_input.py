"""A teacher that changes its images in place: found student and rivals are those of one that does not."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from nas_kd.cli import main

NETWORK = """
import torch.nn.functional as F
from torch import nn


class Net(nn.Module):
    def __init__(self, num_classes=10, in_chans=1):
        super().__init__()
        widths = (in_chans, 8, 16, 16)
        pairs = list(zip(widths, widths[1:]))
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 3, 1 + (n == 1), 1, bias=False) for n, (a, b) in enumerate(pairs))
        self.norms = nn.ModuleList(nn.BatchNorm2d(b) for _, b in pairs)
        self.head = nn.Linear(16, num_classes)

    def forward(self, x):
        x = PREPARED
        for conv, norm in zip(self.convs, self.norms):
            x = F.relu(norm(conv(x)))
        return self.head(x.mean((2, 3)))


def net(num_classes=10, in_chans=1):
    return Net(num_classes, in_chans)
"""
RIVALS = ["new_weights", "even_width", "taylor", "small_images", "soft_tree=2"]


CONFIG = """
device: cpu
threads: 1
workers: 1
data: {train: digits, subset: 400, rate: 0.15, select: 0.15, views: 0}
teacher: {epochs: 2, batch_size: 32, lr: 0.1}
search: {max_macs: 50%, trials: 10, top: 2, epochs: 1}
retrain: {epochs: 1, batch_size: 32, seeds: 1}
"""


def results(folder: Path, prepared: str) -> pd.DataFrame:
    folder.mkdir()
    folder.with_suffix(".py").write_text(NETWORK.replace("PREPARED", prepared))
    config = folder / "config.yaml"
    config.write_text(CONFIG)
    named = [f"--teacher.model={folder.name}:net", f"--retrain.rivals=[{','.join(RIVALS)}]"]
    main(["run", str(config), "--run", str(folder / "run"), *named])
    return pd.read_csv(folder / "run" / "retrain" / "results.csv")


@pytest.mark.slow
def test_the_table_is_that_of_a_teacher_that_keeps_its_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    kept = results(tmp_path / "kept_images", "x * 2 - 1")
    changed = results(tmp_path / "changed_images", "x.mul_(2).sub_(1)")
    assert {"found", *(name.partition("=")[0] for name in RIVALS)} <= {
        str(role).partition("=")[0] for role in kept.role
    }
    columns = ["role", "macs", "params", "test_accuracy"]
    pd.testing.assert_frame_equal(kept[columns], changed[columns])
