"""The one Python file: torch alone runs it, in a process that cannot import anything of nas_kd or timm."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from export_students import student
from torch import Tensor, nn

import nas_kd

RUN = """
import sys
for name in ("nas_kd", "timm", "safetensors", "torchvision"):
    sys.modules[name] = None  # importing it fails
import torch
sys.path.insert(0, sys.argv[1])
import student
x = torch.load(sys.argv[2], weights_only=True)
with torch.no_grad():
    torch.save([student.load()(x[:count]) for count in (1, 5)], sys.argv[3])
"""


def run_alone(path: Path, x: Tensor, scratch: Path) -> list[Tensor]:
    """Run a file in a process of its own, on batches of 1 and 5."""
    torch.save(x, scratch / "x.pt")
    words = [sys.executable, "-I", "-c", RUN, str(path.parent), str(scratch / "x.pt"), str(scratch / "y.pt")]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return torch.load(scratch / "y.pt", weights_only=True)


@pytest.mark.parametrize(
    "kind",
    [
        "resnet_cifar",
        "vit_tiny_patch16_224",
        *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("digits", "cifar_resnet8", "multilabel")),
    ],
)
def test_torch_alone_runs_it(kind: str, tmp_path: Path) -> None:
    network = student(kind)
    made = nas_kd.export(network, "standalone", tmp_path / "out" / "student.py")
    text = made.path.read_text()
    assert "found by torch.fx" in text and "nn.Linear(" in text
    large = sum(p.numel() for p in network.parameters()) * 4 > 2**22
    assert made.path.with_suffix(".safetensors").exists() == large
    x = torch.randn(5, 3, 32, 32)
    with torch.no_grad():
        for found, count in zip(run_alone(made.path, x, tmp_path), (1, 5), strict=True):
            torch.testing.assert_close(found, network(x[:count]), rtol=1e-4, atol=1e-4)


class Untraced(nn.Module):
    """Goes by a size, which torch.fx cannot and torch.export can."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C) to the same."""
        return x * 2 if x.shape[1] > 2 else x


def test_what_fx_cannot_trace_is_written_in_operators(tmp_path: Path) -> None:
    pooled = nn.AvgPool2d(3, 2, ceil_mode=True, count_include_pad=False, padding=1)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), pooled, nn.Flatten(), nn.Linear(16, 3), Untraced()).eval()
    network.info = {"in_chans": 3, "resolution": 5, "num_classes": 3}  # type: ignore[assignment]
    made = nas_kd.export(network, "standalone", tmp_path / "student.py", softmax=True)
    assert "torch.export" in made.path.read_text()
    x = torch.randn(5, 3, 5, 5)
    with torch.no_grad():
        torch.testing.assert_close(run_alone(made.path, x, tmp_path)[1], network(x).softmax(1))
