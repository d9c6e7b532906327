"""What may grow in a finished run: the page says what the code does, and a run with more keeps what it has."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from small_run import Made, Said

import nas_kd
from nas_kd.config.settings import settings_of
from nas_kd.errors import SettingError
from nas_kd.pipeline.config import Config
from nas_kd.ranking.config import GROWS as RANK
from nas_kd.runs.run import Run
from nas_kd.searcher.config import GROWS as SEARCH
from nas_kd.train.config import GROWS as RETRAIN


def page() -> list[str]:
    text = (Path(nas_kd.__file__).parent / "runs/README.md").read_text()
    part = text.partition("## More of what a finished run has")[2].partition("\n## ")[0]
    return re.findall(r"^\| `([a-z.]+\.[a-z_]+)` \|", part, re.MULTILINE)


def test_the_page_lists_what_may_grow() -> None:
    grows = [*(f"search.{n}" for n in SEARCH), *(f"retrain.{n}" for n in RETRAIN), *(f"rank.{n}" for n in RANK)]
    assert sorted(page()) == sorted(grows) and set(grows) <= settings_of(Config).keys()


def test_a_stage_takes_larger_numbers_alone(tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    stage = run.stage("search", {"a": 1, "n": 4, "m": 2}, ["n", "m"])
    run.stage("search", {"a": 1, "n": 3, "m": 2}, ["n", "m"])  # it has not finished
    stage = run.stage("search", {"a": 1, "n": 4, "m": 2}, ["n", "m"])
    stage.finish({"best": 1})
    for inputs, message in (
        ({"a": 1, "n": 3, "m": 2}, r"^n=3: expected at least 4, as .*search has.*use n=4 or more"),
        ({"a": 1, "n": 5, "m": 1}, r"^m=1: expected at least 2"),
        ({"a": 2, "n": 5, "m": 2}, r"^a='a=2': expected what .*a=1"),
    ):
        with pytest.raises(SettingError, match=message):
            run.stage("search", inputs, ["n", "m"])
        assert run.stage("search", {"a": 1, "n": 4, "m": 2}, ["n", "m"]).done
    with pytest.raises(SettingError, match=r"^n='n=5': expected what"):
        run.stage("search", {"a": 1, "n": 5, "m": 2})
    grown = run.stage("search", {"a": 1, "n": 5, "m": 2}, ["n", "m"])
    assert not grown.done and grown.facts == {} and grown.inputs == {"a": 1, "n": 5, "m": 2}


def test_a_finished_run_goes_on_into_more(made: Made, copied: Path, nas_kd_main: Callable[..., Said]) -> None:
    before = pd.read_csv(copied / "retrain/results.csv", dtype={"key": str})
    trials = pd.read_csv(copied / "search/trials.csv", dtype={"key": str})
    more = ("--search.trials", 33, "--search.top", 3, "--retrain.seeds", 3, "--retrain.random_students", 2)
    said = nas_kd_main("run", made.config, "--run", copied, *more)
    assert said.code == 0, said.err
    after = pd.read_csv(copied / "retrain/results.csv", dtype={"key": str})
    grown = pd.read_csv(copied / "search/trials.csv", dtype={"key": str})
    own, theirs = (frame[frame["kind"] != "control"] for frame in (trials, grown))
    pd.testing.assert_frame_equal(theirs.head(len(own)), own)
    assert (~theirs["kind"].isin(["infeasible", "duplicate"])).sum() == 33
    assert sorted(after["seed"].unique()) == [0, 1, 2] and "random_2" in set(after["role"])
    both = before.merge(after, on=["key", "seed"]).drop_duplicates(["key", "seed"])
    assert len(both) >= 4 and (both["select_accuracy_x"] == both["select_accuracy_y"]).all()
    assert "teacher 0/" not in said.err and "supernet 0/" not in said.err
