"""Networks of NNI's hub as rivals: drawn within the budget, trained, saved, loaded; refused where it is missing."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import nas_kd
from nas_kd.errors import SettingError
from nas_kd.pipeline.hub_rival import SPACES, HubNet, hub_class, hub_rival
from nas_kd.space import Cost


def hub() -> None:
    pytest.importorskip("nni")
    pytest.importorskip("pytorch_lightning")


def given(most: int) -> Any:
    def check_cost(field: str, name: str, cost: Cost) -> None:
        if cost.macs > most:
            raise SettingError(field, name, f"at most {most}")

    return SimpleNamespace(images=nas_kd.load_data("digits", subset=120), check_cost=check_cost)


@pytest.mark.parametrize("space", SPACES)
def test_every_space_of_the_table_runs_and_is_drawn_again_from_its_seed(space: str) -> None:
    hub()
    one, again, other = (HubNet(space, draw, 7, 1, 32).eval() for draw in (3, 3, 4))
    again.load_state_dict(one.state_dict())
    x = torch.randn(2, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    assert one(x).shape == (2, 7) and torch.equal(one(x), again(x))
    shapes = [[tuple(p.shape) for p in net.parameters()] for net in (one, other)]
    assert shapes[0] != shapes[1]
    one.train()(torch.cat([x, x])).sum().backward()
    assert all(p.grad is not None for p in list(one.parameters())[:3])


def test_the_first_draw_within_the_budget_is_taken_and_its_student_loads(tmp_path: Path) -> None:
    hub()
    costs = [hub_rival(given(2**40), f"nni:NasBench201={number}").cost.macs for number in range(4)]
    assert len(set(costs)) > 1
    rival = hub_rival(given(min(costs)), "nni:NasBench201")
    assert rival.cost.macs <= min(costs) and rival.role == "nni_NasBench201"
    data = given(0).images
    assert torch.equal(*(next(iter(rival.make(5).parameters())) for _ in range(2)))
    net = rival.make(0)
    how: dict[str, Any] = {"method": "ce", "epochs": 1, "batch_size": 32}
    trained = nas_kd.retrain(net, None, data, run=tmp_path, **how)
    loaded = nas_kd.load_student(next(tmp_path.rglob("student.json")).parent)
    x = next(iter(data.test.clean(8))).x
    torch.testing.assert_close(loaded(x), trained(x))
    with pytest.raises(SettingError, match=r"retrain\.rivals='nni:DARTS'"):
        hub_rival(given(1000), "nni:DARTS")


def test_what_is_not_there_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingError, match=r"retrain\.rivals='nni:DART'.*did you mean 'DARTS'"):
        hub_class("DART")
    monkeypatch.setitem(sys.modules, "nni.nas.hub", None)
    with pytest.raises(SettingError, match=r"does not import here.*pip install.*pytorch_lightning"):
        hub_class("DARTS")
    with pytest.raises(SettingError, match=r"nni:DARTS=x"):
        hub_rival(given(1), "nni:DARTS=x")
    with pytest.raises(SettingError, match=r"space='nni:DARTS'.*share weights.*retrain\.rivals=\[nni:DARTS\]"):
        nas_kd.load_space("nni:DARTS")
