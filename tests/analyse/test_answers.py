"""The first screen and the decision path say what the run's tables hold, and where the time went."""

from __future__ import annotations

import json
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest

from nas_kd.analyse import report
from nas_kd.analyse.answers import answers_part, sizes_table
from nas_kd.analyse.funnel import funnel_part, funnel_table
from nas_kd.analyse.table import final_table
from nas_kd.analyse.times import times_table

QUESTIONS = (
    "Which student?",
    "Why this one?",
    "How far can I trust it?",
    "What would a bigger or smaller one give?",
)


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A finished run of its own, decided on select."""
    shutil.copytree(finished, tmp_path / "run")
    results = pd.read_csv(finished / "retrain" / "results.csv", dtype={"key": str})
    means = results.groupby(["role", "key"], sort=False)["select_accuracy"].mean().reset_index()
    decided = means.assign(seeds=3, images=500, minus_found=0.001, standard_error=0.002)
    decided["handed_over"] = decided["role"] == "found"
    decided.to_csv(tmp_path / "run" / "search" / "handed_over.csv", index=False)
    return tmp_path / "run"


def first_screen(run: Path) -> list[str]:
    return answers_part(run, "search", final_table(run), funnel_table(run))


class _Order(HTMLParser):
    """Collects headings in their order."""

    def __init__(self) -> None:
        super().__init__()
        self.heads: list[str] = []
        self.inside = False

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.inside = tag == "h2"

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.heads.append(data)
            self.inside = False


def test_the_four_questions_come_first(run: Path) -> None:
    page = _Order()
    page.feed(report(run).read_text())
    assert tuple(page.heads[:5]) == (*QUESTIONS, "How it was decided")


def test_the_first_answer_has_the_measured_numbers(run: Path) -> None:
    text = "".join(first_screen(run))
    results = pd.read_csv(run / "retrain" / "results.csv", dtype={"key": str})
    mine = results.loc[results["role"] == "found", "test_accuracy"]
    assert f"Test accuracy {100 * mine.mean():.2f} ± {100 * mine.std():.2f} % (3 seeds); the teacher 94.37 %" in text
    best = json.loads((run / "search" / "best.json").read_text())
    share = 100 * best["macs"] / 125_485_706
    assert f"{best['macs']:,} MACs ({share:.3g} % of the teacher&#x27;s)" in text
    folder = next(path for path in results["folder"] if best["key"] in path)
    assert folder.rsplit("/", 2)[0] in text.replace("<wbr>", "")


def test_every_number_of_the_path_is_counted(run: Path) -> None:
    steps = funnel_table(run).set_index("step")["archs"]
    trials = pd.read_csv(run / "search" / "trials.csv", dtype={"key": str})
    results = pd.read_csv(run / "retrain" / "results.csv", dtype={"key": str})
    assert dict(steps) == {
        "space": json.loads((run / "space.json").read_text())["size"],
        "rated": sum(len(pd.read_csv(path)) for path in (run / "blockwise").glob("stage_*.csv")),
        "front": len(pd.read_csv(run / "search" / "front.csv")),
        "scored": trials["key"].nunique(),
        "short trainings": pd.read_csv(run / "search" / "top.csv", dtype={"key": str})["key"].nunique(),
        "retrained": results["key"].nunique(),
        "handed over": 1,
    }


def test_the_found_one_has_its_place_in_each_step(run: Path) -> None:
    found = funnel_table(run).set_index("step")["found"]
    trials = pd.read_csv(run / "search" / "trials.csv", dtype={"key": str}).drop_duplicates("key")
    key = json.loads((run / "search" / "best.json").read_text())["key"]
    kl = trials.set_index("key")["kl"]
    place = sorted(kl).index(kl[key]) + 1
    assert found["scored"] == f"the found one: {kl[key]:.3g}, place {place} of {len(trials)}"
    assert "place 1 of" in found["short trainings"]  # it was chosen by that


def test_a_run_that_has_only_begun_has_a_path_as_far_as_it_came(run: Path) -> None:
    shutil.rmtree(run / "retrain")
    shutil.rmtree(run / "search")
    assert funnel_table(run)["step"].tolist() == ["space", "rated"]
    shutil.rmtree(run / "blockwise")
    (run / "space.json").unlink()
    assert funnel_table(run).empty and funnel_part(funnel_table(run)) == [] and first_screen(run) == []


def test_networks_of_other_sizes_are_trained_ones_and_rated_ones(run: Path) -> None:
    found = sizes_table(run)
    macs = json.loads((run / "search" / "best.json").read_text())["macs"]
    assert found["macs"].is_monotonic_increasing and (found["macs"] / macs).tolist() == found["times"].tolist()
    assert (abs(found["times"] - 1) > 0.05).all()
    trained = found[found["known"] != "ratings alone"]
    assert "teacher" in set(trained["network"]) and len(trained) <= 5
    front = pd.read_csv(run / "search" / "front.csv")
    for factor in ("0.5", "2"):
        row = found[found["network"] == f"best-rated arch up to {factor} times"].iloc[0]
        within = front[front["macs"] <= float(factor) * macs]
        assert row["macs"] == within["macs"].max()
        assert f"sum of ratings {within['score'].min():.3g} " in row["reaches"]


def test_another_budget_of_the_run_is_another_size(run: Path) -> None:
    shutil.copytree(run / "search", run / "search" / "macs_1")
    results = pd.read_csv(run / "retrain" / "results.csv", dtype={"key": str})
    listed = pd.read_csv(run / "search" / "macs_1" / "students.csv", dtype={"key": str})
    listed.assign(macs=listed["macs"] // 3).to_csv(run / "search" / "macs_1" / "students.csv", index=False)
    results = pd.concat([results, results.assign(search="search/macs_1")])
    results.to_csv(run / "retrain" / "results.csv", index=False)
    names = sizes_table(run)["network"]
    assert names.str.endswith("of search/macs_1").any()
    assert names.str.startswith("teacher").sum() == 1


def test_time_is_told_by_stage_and_kind(run: Path) -> None:
    rows = [
        ("teacher", "epoch", 3.0),
        ("teacher", "answers", 1.0),
        ("blockwise", "stage_1 rating", 0.5),
        ("search", "scoring", 4.0),
        ("search/tuned/ab", "epoch", 2.0),
        ("search/tuned/ab", "scoring", 0.25),
        ("retrain/ab/seed_0", "measuring", 0.125),
    ]
    pd.DataFrame(rows, columns=["stage", "what", "seconds"]).to_csv(run / "timing.csv", index=False)
    found = times_table(run).set_index("stage")
    assert found.loc["search"].to_dict() == {
        "training": 2.0,
        "answers": 0.0,
        "scoring": 4.25,
        "measuring": 0.0,
        "seconds": 6.25,
    }
    assert found.loc["all", "seconds"] == sum(seconds for *_, seconds in rows)
    assert found.index.tolist() == ["teacher", "blockwise", "search", "retrain", "all"]
    page = report(run).read_text()
    assert "rating and scoring" in page


def test_what_is_not_certain_is_said_in_the_first_screen(run: Path) -> None:
    decided = pd.read_csv(run / "search" / "handed_over.csv")
    decided.assign(images=20).to_csv(run / "search" / "handed_over.csv", index=False)
    text = "".join(first_screen(run))
    assert "elect has 20 images, which hardly tell students apart" in text
    assert "Students were not compared image by image." in text


def test_names_in_the_answers_are_escaped(run: Path) -> None:
    path = run / "search" / "best.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"label": "<script>alert(1)</script>"}))
    assert "<script>" not in report(run).read_text()
