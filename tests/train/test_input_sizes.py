"""A student whose arch chooses its input size is trained, measured and handed over at that size."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import nas_kd
from nas_kd.blocks import BasicStage, ConvStem, LinearHead
from nas_kd.nn import at_resolution
from nas_kd.space import ElasticSpace

SPACE = ElasticSpace(
    "sizes",
    ConvStem(width=(4, 8)),
    (BasicStage(widths=(8,), depths=(1, 2), mids=(4, 8), stride=2),),
    LinearHead(),
    resolution=8,
    resolutions=(8, 12),
)


@pytest.mark.parametrize("size", (8, 12))
def test_student_of_an_elastic_input_size(tmp_path: Path, size: int) -> None:
    data = nas_kd.load_data("digits", subset=200)
    arch = SPACE.arch([SPACE.stages[0].smallest()], resolution=size)
    seen: list[int] = []
    built = SPACE.build(arch, 10, 1)
    hook = type(built).forward_stages

    def watched(self: torch.nn.Module, x: torch.Tensor) -> object:
        seen.append(x.shape[-1])
        return hook(self, x)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(built), "forward_stages", watched)
        student = nas_kd.retrain(arch, None, data, space=SPACE, run=tmp_path, method="ce", epochs=1, batch_size=32)
    assert set(seen) == {size}
    again = nas_kd.load_student(next(tmp_path.glob("retrain/*/seed_0/student")))
    assert again.info["resolution"] == student.info["resolution"] == size
    assert again.info["macs"] == SPACE.cost(arch, in_chans=1, num_classes=10).macs
    batch = next(iter(data.test.clean(64)))
    assert torch.equal(again(at_resolution(batch.x, size)), student(at_resolution(batch.x, size)))
    accuracy = [
        (again(at_resolution(b.x, size)).argmax(1) == b.y).float().sum() for b in data.test.clean(64)
    ]  # what the folder says is what the folder's network does at its size
    assert float(sum(accuracy)) / len(data.test) == pytest.approx(again.info["metrics"]["test_accuracy"])
