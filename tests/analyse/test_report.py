"""The report is one file, says what is missing, draws what is there, and does not flatter."""

from __future__ import annotations

import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import nas_kd.analyse
from nas_kd.analyse import report, trust_table
from nas_kd.analyse.svg import Plot, Style, sheet, ticks
from nas_kd.analyse.trust import verdicts

LATER = ("retrain", "search", "blockwise", "supernet")


@pytest.fixture(scope="module")
def made(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with its report."""
    run = tmp_path_factory.mktemp("reported") / "cifar10"
    shutil.copytree(finished, run)
    assert report(run) == run / "report" / "report.html"
    return run


class _Outside(HTMLParser):
    """Collects what a page would load."""

    def __init__(self) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.loads += [str(value) for name, value in attrs if name in ("src", "href")]


def test_one_file_that_loads_nothing(made: Path) -> None:
    text = (made / "report" / "report.html").read_text()
    page = _Outside()
    page.feed(text)
    assert page.loads == [] and "script" not in page.tags and "link" not in page.tags
    assert "url(" not in text and "@import" not in text
    assert page.tags.count("svg") == 8
    for part in (
        "Results",
        "The found architecture",
        "How far the ranking can be trusted",
        "Training",
        "Settings",
    ):
        assert f"<h2>{part}</h2>" in text
    assert "Still missing" not in text
    assert "nan" not in text


def test_figures_are_well_formed_and_stay_inside(made: Path) -> None:
    drawn = sorted(path.stem for path in (made / "report").glob("*.svg"))
    curves = ["curve_retrain", "curve_supernet", "curve_teacher"]
    assert drawn == ["arch", *curves, "front", "score_accuracy", "students", "trust"]
    for path in (made / "report").glob("*.svg"):
        root = ET.parse(path).getroot()
        width, height = float(root.get("width", 0)), float(root.get("height", 0))
        for mark in root.iter("{http://www.w3.org/2000/svg}circle"):
            assert 0 <= float(mark.get("cx", -1)) <= width and 0 <= float(mark.get("cy", -1)) <= height
        assert "nan" not in path.read_text()


def test_tables_lie_beside_it(made: Path) -> None:
    table = pd.read_csv(made / "report" / "results.csv")
    assert table["role"].tolist()[:2] == ["teacher", "found"]
    assert len(pd.read_csv(made / "report" / "seeds.csv")) == 18
    trust = pd.read_csv(made / "report" / "trust.csv")
    assert set(trust["truth"]) == {"supernet accuracy", "short-training accuracy", "retrained accuracy"}
    main = trust.iloc[0]
    assert main["archs"] >= 100 and 0 < main["low"] <= main["tau"] <= main["high"]


def test_the_same_run_gives_the_same_bytes(made: Path) -> None:
    before = {path.name: path.read_bytes() for path in (made / "report").iterdir()}
    report(made)
    assert {path.name: path.read_bytes() for path in (made / "report").iterdir()} == before


@pytest.mark.parametrize(
    ("gone", "missing", "kept"),
    [
        (("retrain",), "all retrained students", "The found architecture"),
        (("retrain", "search"), "the search&#x27;s result", "<h2>Training</h2>"),
        (LATER, "the trained supernet", "Teacher: accuracy"),
        ((*LATER, "teacher", "space.json", "timing.csv", "env.json", "data.csv"), "blockwise", "Settings"),
    ],
)
def test_a_partly_finished_run(gone: tuple[str, ...], missing: str, kept: str, finished: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run, ignore=lambda folder, names: gone if Path(folder) == finished else ())
    text = report(run).read_text()
    assert "Still missing" in text and missing in text and kept in text


def test_seeds_that_are_still_to_come(finished: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    key = pd.read_csv(run / "search" / "students.csv")["key"].iloc[2]
    (run / "retrain" / "results.csv").unlink()
    shutil.rmtree(run / "retrain" / key / "seed_2")
    text = report(run).read_text()
    assert "random_2 2 of 3" in text


def test_torn_and_empty_files(finished: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    (run / "teacher" / "metrics.csv").write_text("")
    (run / "search" / "best.json").write_text('{"key": "12')
    (run / "search" / "top.csv").write_text("role,key\n")
    (run / "supernet" / "metrics.csv").write_text("epoch,lr,loss,accuracy_largest\n1,0.1,2.0,0.5\n2,0.1,")
    assert report(run).exists()


def test_two_budgets(finished: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    shutil.copytree(run / "search", run / "search" / "macs_5000000")
    text = report(run).read_text()
    assert "<h2>Budgets</h2>" in text
    assert (run / "report" / "front_macs_5000000.svg").exists()


def test_names_are_escaped(finished: Path, tmp_path: Path) -> None:
    run = tmp_path / "<b>&run"
    shutil.copytree(finished, run)
    (run / "config.yaml").write_text("note: '</pre><script>alert(1)</script>'\n")
    text = report(run).read_text()
    assert "<script>" not in text and "&lt;b&gt;&amp;run" in text


def _with_scores(finished: Path, path: Path, score: np.ndarray | None, macs_rank: bool = False) -> list[str]:
    shutil.copytree(finished, path)
    rows = pd.read_csv(path / "search" / "trials.csv")
    if score is not None:
        rows["score"] = score[: len(rows)]
    if macs_rank:
        rows["accuracy"] = rows["macs"] / rows["macs"].max()
    rows.to_csv(path / "search" / "trials.csv", index=False)
    return verdicts(trust_table(path))


def test_a_random_score_is_called_one(finished: Path, tmp_path: Path) -> None:
    said = _with_scores(finished, tmp_path / "run", np.random.default_rng(0).normal(size=500))
    assert said[1].startswith("Caveat: this interval includes 0")


def test_a_score_that_size_beats_is_told_so(finished: Path, tmp_path: Path) -> None:
    said = " ".join(_with_scores(finished, tmp_path / "run", None, macs_rank=True))
    assert "Caveat: MACs alone rank all scored subnets better" in said


def test_a_found_student_that_loses_is_told_so(finished: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    rows = pd.read_csv(run / "retrain" / "results.csv")
    rows.loc[rows["role"] == "found", "test_accuracy"] = 0.1
    rows.to_csv(run / "retrain" / "results.csv", index=False)
    text = report(run).read_text()
    assert "The found student does not beat the mean of the random students" in text
    assert "The best mean accuracy of all retrained students is that of" in text


def test_one_seed_is_said_once(finished: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    assert "the spread over seeds is unknown" not in report(run).read_text()
    rows = pd.read_csv(run / "retrain" / "results.csv")
    rows[rows["seed"] == 0].to_csv(run / "retrain" / "results.csv", index=False)
    for folder in (run / "retrain").glob("*/seed_[12]"):
        shutil.rmtree(folder)
    text = report(run).read_text().partition("In words")[2]
    assert text.count("With one retraining seed, the spread over seeds is unknown") == 1
    assert "points (one seed)." in text and "by seed:" not in text and "with every seed" not in text


def test_analyse_imports_no_torch() -> None:
    root = Path(nas_kd.__file__).parent.parent
    code = "import sys, nas_kd.analyse; sys.exit(any(m in sys.modules for m in ('torch', 'timm', 'matplotlib')))"
    assert subprocess.run([sys.executable, "-c", code], cwd=root).returncode == 0


@pytest.mark.parametrize(
    "values",
    [
        [0, 1],
        [5_837_280, 6_326_912],
        [1e-5, 3e-5],
        [3, 3, 3],
        [0],
        [-1, 1],
        [],
        [float("nan"), 2],
        [1e9, 5e9],
    ],
)
def test_ticks(values: list[float]) -> None:
    marks, (low, high) = ticks(values, 5)
    places = [value for value, _ in marks]
    assert 2 <= len(marks) <= 8 and low < high
    assert all(low <= place <= high for place in places)
    assert len({label for _, label in marks}) == len(marks)
    assert all(low <= value <= high for value in values if value == value)


def test_plot_puts_values_where_the_axes_say() -> None:
    plot = Plot("t", "x", "y").add("a", Style("#000"), [0.0, 10.0, 5.0], [0.0, 1.0, 0.5])
    root = ET.fromstring(sheet("s", [plot]))
    at = [(float(c.get("cx", 0)), float(c.get("cy", 0))) for c in root.iter("{http://www.w3.org/2000/svg}circle")]
    points = at[1:]  # the first is the legend's
    assert points[2][0] == pytest.approx((points[0][0] + points[1][0]) / 2, abs=0.1)
    assert points[1][1] < points[2][1] < points[0][1]  # up is more
