"""What the report shows comes from the run's files: runs of another kind, and what must be said of them."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from html import unescape
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from nas_kd.analyse import report
from nas_kd.analyse.curves import retrain_figure
from nas_kd.analyse.draw import arch_figure
from nas_kd.analyse.figures import front_figure, ranking_figure, score_title
from nas_kd.analyse.story import headline, missing
from nas_kd.blocks import LinearHead, MBStage
from tests.analyse.conftest import fake_run


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A finished run of its own."""
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run"


def edit(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def rated_by(run: Path, stage: str = "blockwise", **inputs: Any) -> None:
    (run / stage).mkdir(exist_ok=True)
    (run / stage / "stage.json").write_text(json.dumps({"inputs": {"seed": 0, **inputs}, "done": True, "facts": {}}))


def text_of(svg: str | None) -> str:
    """All words of a figure, one after the other."""
    assert svg is not None
    return unescape(" ".join(re.findall(r">([^<>]+)</text>", svg)))


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({"blockwise.error": "nsr"}, "sum of the stages' noise to signal"),
        ({"blockwise.error": "relative_l1"}, "sum of the stages' relative L1 error"),
        ({}, "sum of the stages' normalised MSE"),
        ({"blockwise.error": "another"}, "sum of the stages' another"),
    ],
)
def test_the_score_is_named_by_the_error_that_was_added_up(run: Path, inputs: dict[str, str], words: str) -> None:
    rated_by(run, **inputs)
    assert words in score_title(run)
    title = f"{words} (lower is better)"
    for svg in (front_figure(run), ranking_figure(run)):
        assert title in text_of(svg)


def test_stages_rated_by_jobs_of_their_own_name_their_error(run: Path) -> None:
    (run / "blockwise" / "stage_1").mkdir()
    rated_by(run, "blockwise/stage_1", **{"blockwise.error": "nmse"})
    assert "normalised MSE" in score_title(run)
    (run / "blockwise" / "stage_2").mkdir()
    rated_by(run, "blockwise/stage_2", **{"blockwise.error": "nsr"})
    assert score_title(run) == "sum of ratings (lower is better)"


def test_a_run_that_does_not_say_how_it_was_rated_is_not_guessed(run: Path) -> None:
    assert score_title(run) == "sum of ratings (lower is better)"


def test_weighted_scores_are_called_so(run: Path) -> None:
    rated_by(run, **{"blockwise.error": "nsr"})
    rated_by(run, "search", **{"search.weights": [1.0, 2.0, 0.5]})
    assert "weighted sum of" in score_title(run)
    rated_by(run, "search", **{"search.weights": None})
    assert score_title(run).startswith("sum of")


def test_units_of_a_teacher_are_no_stages(run: Path) -> None:
    rated_by(run, **{"derive.score": "replace_one"})
    (run / "config.yaml").write_text("space: null\n")
    assert score_title(run) == "sum of the units' replace-one KL (lower is better)"
    (run / "supernet" / "weights.safetensors").unlink(missing_ok=True)
    assert not any("supernet" in gap for gap in missing(run))
    (run / "config.yaml").write_text("space: digits\n")
    assert any("supernet" in gap for gap in missing(run))


def heights(svg: str | None) -> list[str]:
    assert svg is not None
    return re.findall(r"<(?:path|polyline)[^>]*(?:points|d)=\"([^\"]+)\"", svg)


@pytest.mark.parametrize("below", ["dkd/seed_0", "seed_0/assistant_0"])
def test_a_curve_is_that_of_its_own_trainings(run: Path, below: str) -> None:
    """The same arch trained by another method, or an assistant on the way to it, moves no line."""
    before = heights(retrain_figure(run))
    assert before
    key = pd.read_csv(run / "search" / "students.csv", dtype=str)["key"].iloc[0]
    other = run / "retrain" / key / below
    other.mkdir(parents=True)
    rows = pd.read_csv(run / "retrain" / key / "seed_0" / "metrics.csv")
    rows["rate_accuracy"] = 0.01
    rows["loss"] = 90.0
    rows.to_csv(other / "metrics.csv", index=False)
    assert heights(retrain_figure(run)) == before


def test_another_method_has_its_own_curves(run: Path) -> None:
    """Students of a second search are drawn from where they were trained, beside those of the first."""
    second = run / "search" / "dkd_macs_1"
    shutil.copytree(run / "search", second, ignore=shutil.ignore_patterns("dkd*"))
    listed = pd.read_csv(second / "students.csv", dtype={"key": str})
    for key in listed["key"]:
        shutil.copytree(run / "retrain" / key / "seed_0", run / "retrain" / key / "dkd" / "seed_0")
        path = run / "retrain" / key / "dkd" / "seed_0" / "metrics.csv"
        rows = pd.read_csv(path)
        rows.assign(rate_accuracy=rows["rate_accuracy"] / 2).to_csv(path, index=False)
    listed.assign(trained_in=[f"retrain/{key}/dkd" for key in listed["key"]]).to_csv(
        second / "students.csv", index=False
    )
    assert heights(retrain_figure(run, "search/dkd_macs_1")) != heights(retrain_figure(run))
    page = report(run).read_text()
    assert "Students of search/dkd_macs_1." in page
    assert (run / "report" / "curve_retrain_dkd_macs_1.svg").exists()


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({"budget": {}}, "Budget: none."),
        ({"budget": {}, "max_latency_ms": 2.5}, "Budget: at most 2.5 ms."),
        ({"budget": {"params": 5000}, "at_least": {"macs": 1000}}, "at least 1,000 MACs, at most 5,000 parameters."),
    ],
)
def test_every_limit_is_named(run: Path, limits: dict[str, Any], words: str) -> None:
    edit(run / "search" / "best.json", **limits)
    assert words in headline(run, "search")[0]
    shutil.copytree(run / "search", run / "search" / "second")
    report(run)
    table = pd.read_csv(run / "report" / "budgets.csv", keep_default_na=False)
    assert all(budget in words for budget in table["budget"])


def test_a_floor_is_drawn_as_the_cap_is(run: Path) -> None:
    assert text_of(front_figure(run)).split().count("least") == 0
    edit(run / "search" / "best.json", at_least={"macs": 3_000_000})
    assert text_of(front_figure(run)).split().count("least") == 1  # one legend for both panels


@pytest.mark.parametrize(
    ("goals", "words"), [(["kl"], "for KL to the teacher."), (["accuracy", "latency_ms"], "accuracy and latency.")]
)
def test_an_engine_is_said_to_seek_what_it_sought(run: Path, goals: list[str], words: str) -> None:
    edit(run / "search" / "best.json", engine="nsga2", objectives=goals)
    assert words in headline(run, "search")[1]


def chosen(page: str) -> str:
    found = re.search(r"(The search itself chose (\d+) % of|The scored subnets were drawn by lot)", page)
    assert found is not None
    return found[2] or "none"


def by_engine(run: Path) -> None:
    edit(run / "search" / "best.json", engine="random")


def half_of_them(run: Path) -> None:
    rows = pd.read_csv(run / "search" / "trials.csv", dtype={"key": str}).drop_duplicates("key")
    kinds = ["trial" if place % 2 else "random" for place in range(len(rows) // 2 * 2)]
    rows.iloc[: len(kinds)].assign(kind=kinds).to_csv(run / "search" / "trials.csv", index=False)


@pytest.mark.parametrize(("change", "share"), [(by_engine, "none"), (half_of_them, "50")])
def test_how_many_subnets_the_search_chose_is_counted(run: Path, change: Callable[[Path], None], share: str) -> None:
    change(run)
    assert chosen(report(run).read_text()) == share


def test_how_near_the_random_students_are_is_measured(run: Path) -> None:
    rows = pd.read_csv(run / "retrain" / "results.csv", dtype={"key": str})
    macs = rows.loc[rows["role"] == "found", "macs"].iloc[0]
    rows.loc[rows["role"].str.startswith("random"), "macs"] = int(1.25 * macs)
    rows.to_csv(run / "retrain" / "results.csv", index=False)
    students = pd.read_csv(run / "search" / "students.csv", dtype={"key": str})
    students.loc[students["role"].str.startswith("random"), "macs"] = int(1.25 * macs)
    students.to_csv(run / "search" / "students.csv", index=False)
    assert "the mean of the random students (MACs within 25 % of its own)" in " ".join(headline(run, "search"))


def test_a_role_of_another_name_is_drawn(run: Path) -> None:
    rows = pd.read_csv(run / "search" / "trials.csv", dtype={"key": str})
    assert rows["kind"].iloc[-1] == "control"
    rows.loc[rows.index[-1], ["role", "key"]] = ["narrowest", "0123456789ab"]
    rows.to_csv(run / "search" / "trials.csv", index=False)
    assert "narrowest" in text_of(front_figure(run))


def test_stages_of_two_kinds_have_two_legends(run: Path) -> None:
    drawing = json.loads((run / "space.json").read_text())["drawing"]
    assert "depthwise" not in text_of(arch_figure(run))
    last = MBStage(widths=(64,), depths=(1, 2, 3), kernels=(3,), expands=(1, 4)).drawing()
    edit(run / "space.json", drawing=drawing | {"stages": [*drawing["stages"][:-1], last]})
    edit_layers(run, [[3, 4, True]])
    words = text_of(arch_figure(run))
    assert "3x3 convolution, inner channels" in words and "depthwise kernel" in words
    assert "3x3, x4, SE" in words


def edit_layers(run: Path, layers: list[list[Any]]) -> None:
    best = json.loads((run / "search" / "best.json").read_text())
    best["arch"]["stages"][-1]["layers"] = layers
    edit(run / "search" / "best.json", arch=best["arch"])


def test_the_head_is_the_spaces_own(run: Path) -> None:
    assert "features" not in text_of(arch_figure(run))
    drawing = json.loads((run / "space.json").read_text())["drawing"]
    edit(run / "space.json", drawing=drawing | {"head": LinearHead(features=256, act="silu").drawing()})
    assert "256 features" in text_of(arch_figure(run))


def test_layers_left_out_are_spoken_of_where_there_are_some(run: Path) -> None:
    space = json.loads((run / "space.json").read_text())
    deepest = [stage | {"depths": [1]} for stage in space["stages"]]
    edit(run / "space.json", stages=deepest)
    assert "dashed" not in text_of(arch_figure(run))


def test_the_fake_run_is_of_the_kind_that_is_written(tmp_path: Path) -> None:
    run = fake_run(tmp_path / "mobile", "mobilenet_cifar", seeds=1, trials=30)
    assert "depthwise kernel" in text_of(arch_figure(run)) and "256 features" in text_of(arch_figure(run))
