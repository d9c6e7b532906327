"""A teacher that is one of the rated archs is found, with an error of exactly zero."""

from __future__ import annotations

from functools import partial
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from torch import nn

from nas_kd.data import Data
from nas_kd.nn import Recorder, StaticNet
from nas_kd.rate.features import gather
from nas_kd.rate.halving import rate_stage
from nas_kd.runtime.device import Runtime
from nas_kd.solve import exact_front
from nas_kd.space import Arch
from nas_kd.space.rows import arch_of_rows, rows_of
from nas_kd.supernet import Supernet
from nas_kd.teacher import Tap
from nas_kd.train.stages import Blockwise


def planted(net: Supernet, arch: Arch, images: torch.Tensor) -> StaticNet:
    """Cut an arch out with norms measured as the rating does: behind stages that are calibrated already."""
    norm: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
    x = images
    with torch.no_grad():
        for index, (stage, candidate) in enumerate(zip(net.stages, arch.stages, strict=True)):
            recorder = Recorder()
            stage(net.stem(x, (), recorder) if index == 0 else x, candidate, recorder)
            norm |= recorder.values()
            x, _ = stage(net.stem(x, (), norm) if index == 0 else x, candidate, norm)
    return net.extract(arch, norm).eval()


def set_identity(adapter: nn.Module, scale: float) -> None:
    assert isinstance(adapter, nn.Conv2d) and adapter.bias is not None
    nn.init.dirac_(adapter.weight)
    with torch.no_grad():
        adapter.weight.mul_(scale)
        adapter.bias.zero_()


@pytest.mark.parametrize("factor", [1.0, 1024.0])
def test_planted_candidates_score_zero(net: Supernet, data: Data, runtime: Runtime, factor: float) -> None:
    arch = net.space.arch([net.space.stages[0].candidates()[5], net.space.stages[1].candidates()[12]])
    calibration = next(data.train.clean(64, limit=64))
    static = planted(net, arch, calibration.x)

    def forward_stages(x: torch.Tensor) -> object:
        with torch.no_grad():
            out = static.forward_stages(x)
        return out._replace(stages=[f * factor for f in out.stages], pre=[f * factor for f in out.pre])

    teacher = SimpleNamespace(forward_stages=forward_stages)
    sizes = net.space.stage_sizes(8)
    taps = [Tap(str(i), c.width, s, s, True) for i, (c, s) in enumerate(zip(arch.stages, sizes, strict=True))]
    model = Blockwise(net, taps)
    features = model.rescale(gather(model, teacher, [calibration], runtime))
    rating = gather(model, teacher, data.rate.clean(24), runtime)
    tables = []
    for index, candidate in enumerate(arch.stages):
        if index:
            # what the adapter gets is divided by the scale; the student wants the feature itself
            width = str(arch.stages[index - 1].width)
            set_identity(model.inputs[index][width], float(model.input_scale[index]) / factor)
        set_identity(model.outputs[index][str(candidate.width)], factor / float(model.target_scale[index]))
        rows = rows_of(net.space, index, resolution=8, in_chans=1, num_classes=3)
        table = rate_stage(model, index, rows, features[index], rating[index], max_rows=1000)
        width = arch.stages[index - 1].width if index else net.space.stem.width
        number = net.space.stages[index].candidates().index(candidate)
        row = table[(table["in_width"] == width) & (table["candidate"] == number)].iloc[0]
        assert row["score"] == 0.0
        assert (table["score"] == 0.0).sum() == 1
        tables.append(table)
    front = exact_front(tables)
    best = front.loc[front["score"].idxmin()]
    found = arch_of_rows(net.space, tables, [best["row_1"], best["row_2"]])
    assert best["score"] == 0.0 and found == arch
    assert (front.drop(index=best.name)["score"] > 0).all()


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_teachers_trained_apart_are_found_by_other_supernets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over two draws of five planted archs the place among those of equal MACs is, on the median, in the best 5 %."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "experiments"))
    experiment = import_module("planted")
    monkeypatch.setattr("sys.argv", ["planted.py"])
    places = {"run": tmp_path / "run", "results": tmp_path / "results"}
    monkeypatch.setattr(experiment, "Sizes", partial(experiment.Sizes, **places))
    experiment.main()
    found = pd.read_csv(tmp_path / "results" / "planted.csv")
    assert len(found) == 10
    for _, draw in found.groupby("draw"):
        assert draw["place_score"].median() <= 5.0
        assert draw["place_score"].median() < min(draw["place_params"].median(), draw["place_macs"].median())
