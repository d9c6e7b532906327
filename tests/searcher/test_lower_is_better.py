"""A metric of which lower is better: archs, finalists and the student that is handed over are those of the smallest."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import torch
from sklearn.metrics import mean_absolute_error

from nas_kd.analyse.choice import decision
from nas_kd.distill import Classification, Regression
from nas_kd.errors import SettingError
from nas_kd.searcher.finalists import best_trained, choose_finalists, ranked
from nas_kd.searcher.objectives import checked_objectives, named_objectives


@pytest.fixture
def trials() -> pd.DataFrame:
    """Ten subnets, the smaller error the larger the number."""
    numbers = range(10)
    rows = {"number": numbers, "kind": "trial", "role": None, "key": [f"k{n}" for n in numbers], "label": "arch"}
    rows |= {"score": 1.0, "kl": 1.0, "mae": [1.0 - n / 20 for n in numbers], "agreement": 0.5, "loss": 1.0}
    return pd.DataFrame(rows).assign(macs=10, params=10, feasible=True)


def test_the_finalists_have_the_smallest_errors(trials: pd.DataFrame) -> None:
    assert ranked(trials, "loss", "mae")["key"].tolist() == [f"k{n}" for n in range(9, -1, -1)]
    found = choose_finalists(trials, 3, guided=False, metric="mae")
    assert found["key"].tolist() == ["k9", "k8", "k7"] and set(found["role"]) == {"mae"}
    short = found.assign(select_mae=[0.3, 0.1, 0.2], select_agreement=0.5, short_epochs=1)
    assert best_trained(short, "mae")["key"].tolist() == ["k8", "k7", "k9"]


def test_scores_of_images_are_less_their_errors() -> None:
    drawn = torch.Generator().manual_seed(0)
    y, z = (torch.randn(40, 2, generator=drawn) for _ in range(2))
    task = Regression("mae")
    assert task.metric(z, y) == pytest.approx(mean_absolute_error(y, z), rel=1e-6)
    some = y.clone()
    some[5:20, 1] = torch.nan  # an output whose labels are not all known
    known = (
        mean_absolute_error(y[:, 0], z[:, 0]),
        mean_absolute_error(y[some[:, 1].isfinite(), 1], z[some[:, 1].isfinite(), 1]),
    )
    assert task.metric(z, some) == pytest.approx(sum(known) / 2, rel=1e-6)
    assert float(task.scores(z, some).mean()) == pytest.approx(-task.metric(z, some), rel=1e-6)
    with pytest.raises(SettingError, match="metric='mae'.*accuracy"):
        Classification(measure="mae")


def test_who_has_a_smaller_error_by_more_than_one_standard_error_is_handed_over(tmp_path: Path) -> None:
    y = torch.randn(200, 1, generator=torch.Generator().manual_seed(1))
    noise = torch.randn(200, 1, generator=torch.Generator().manual_seed(2))
    rows = []
    for role, far in (("found", 0.5), ("worse", 0.9), ("better", 0.1)):
        scores = Regression("mae").scores(y + far * noise, y)
        home = tmp_path / role
        home.mkdir()
        pd.DataFrame({"score": scores.numpy()}).to_csv(home / "select.csv", index=False)
        rows.append({"role": role, "key": role, "seed": 0, "folder": f"{role}/student"})
        rows[-1]["select_accuracy"] = float(scores.mean())
    decided = decision(tmp_path, pd.DataFrame(rows)).set_index("role")
    assert decided["handed_over"].idxmax() == "better" and decided["handed_over"].sum() == 1


def test_an_objective_may_have_the_name_of_the_metric() -> None:
    assert checked_objectives(["mae", "params"], "nsga2", "mae") == ("accuracy", "params")
    assert named_objectives(("accuracy", "params"), "mae") == ("mae", "params")
    assert checked_objectives(["accuracy", "macs"], "nsga2", "map") == checked_objectives(None, "nsga2", "map")
    with pytest.raises(SettingError, match="search.objectives='map'"):
        checked_objectives(["map", "macs"], "nsga2", "mae")
