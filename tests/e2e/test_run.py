"""One command does everything; the same again does nothing; the student opens anywhere."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import yaml
from small_run import CONFIG, Made, Said, changes, digests, environment, numbers

import nas_kd
from nas_kd.runs.files import read_frame
from nas_kd.space import Arch

COST = {"resolution": 8, "in_chans": 1, "num_classes": 10}
FILES = """
    config.yaml env.json status.json log.txt space.json data.csv timing.csv teacher/weights.safetensors
    teacher/metrics.csv teacher/stages.json supernet/metrics.csv supernet/weights.safetensors supernet/last.pt
    blockwise/metrics.csv blockwise/stage_1.csv blockwise/stage_2.csv blockwise/stage_3.csv
    blockwise/summary.csv blockwise/adapters.safetensors search/front.csv search/trials.csv search/top.csv
    search/best.json search/study.journal search/students.csv retrain/results.csv retrain/teacher.json
    report/report.html
""".split()
Main = Callable[..., Said]


@pytest.fixture(scope="module")
def results(made: Made) -> pd.DataFrame:
    return read_frame(made.run / "retrain/results.csv")


@pytest.fixture(scope="module")
def best(made: Made) -> dict[str, object]:
    return json.loads((made.run / "search/best.json").read_text())


def test_the_command_succeeds_and_leaves_every_file(made: Made, best: dict[str, object]) -> None:
    assert made.code == 0, made.err
    assert "Traceback" not in made.err and "Warning" not in made.err
    for name in FILES:
        assert (made.run / name).stat().st_size > 0, name
    for key in pd.read_csv(made.run / "search/students.csv", dtype={"key": str})["key"]:
        for seed in (0, 1):
            folder = made.run / "retrain" / key / f"seed_{seed}"
            assert (folder / "metrics.csv").is_file()
            assert {p.name for p in (folder / "student").iterdir()} == {
                "README.md",
                "arch.json",
                "env.json",
                "student.json",
                "weights.safetensors",
            }
            card = (folder / "student" / "README.md").read_text()
            assert "| budget | at most 207,264 MACs |" in card
    timing = pd.read_csv(made.run / "timing.csv")
    spent = {
        (stage.split("/")[0], what.split("_")[0]) for stage, what in zip(timing["stage"], timing["what"], strict=True)
    }
    assert {("search", "scoring"), ("retrain", "measuring"), ("teacher", "answers"), ("search", "epoch")} <= spent
    assert not list(made.run.rglob("*.tmp"))
    assert yaml.safe_load((made.run / "config.yaml").read_text())["search"]["trials"] == 30
    assert best["key"] in {p.name for p in (made.run / "retrain").iterdir()}


def test_it_says_what_it_does(made: Made) -> None:
    for line in (
        "space: digits, 46,656 archs",
        "smallest: 35,488 MACs",
        "largest: 414,528 MACs",
        "feasible from 35,488",
        "[1/6] teacher",
        "learns from teacher layer1.0",
        "[6/6] retrain",
        "supernet 2/2 epochs",
        "ETA",
    ):
        assert line in made.err
    for text in ("teacher", "found", "random_1", "largest_macs", "largest_params", "report.html", "student: "):
        assert text in made.out
    said = made.out[made.out.index("student: ") :].split("\n")[0].removeprefix("student: ")
    assert (Path(said) / "arch.json").is_file()


def test_the_feasible_range_comes_before_any_training(made: Made) -> None:
    assert made.err.index("feasible from") < made.err.index("teacher 0/3 epochs")


def test_trials_are_distinct_enough_and_within_the_budget(made: Made) -> None:
    space = nas_kd.load_space("digits")
    trials = pd.read_csv(made.run / "search/trials.csv", dtype={"key": str})
    cap = int(space.cost(space.largest(), **COST).macs * 0.5)
    scored = trials[trials["kind"].isin(["warm", "trial", "random"])]
    assert scored["key"].nunique() == len(scored) == 30
    assert scored["kl"].notna().all() and (scored["macs"] <= cap).all() and scored["feasible"].all()
    assert (trials.loc[trials["kind"] == "infeasible", "macs"] > cap).all()
    assert trials["number"].tolist() == list(range(len(trials)))
    controls = trials[trials["kind"] == "control"]
    assert controls["role"].tolist() == ["largest_macs", "largest_params", "random"]
    assert (controls["macs"] <= cap).all() and controls["kl"].notna().all()


def test_costs_in_the_tables_are_those_of_the_space(made: Made, best: dict[str, object]) -> None:
    space = nas_kd.load_space("digits")
    tables = [pd.read_csv(made.run / f"blockwise/stage_{n}.csv") for n in (1, 2, 3)]
    front = pd.read_csv(made.run / "search/front.csv")
    assert len(front) > 3 and front["macs"].is_monotonic_increasing and (front["score"].diff()[1:] < 0).all()
    for _, row in front.iterrows():
        parts = [table.loc[int(row[f"row_{n}"])] for n, table in enumerate(tables, 1)]
        arch = space.decode([[int(part["candidate"]) for part in parts]])[0]
        assert (row["macs"], row["params"]) == space.cost(arch, **COST)
        assert row["score"] == pytest.approx(sum(part["score"] for part in parts), rel=1e-12)
        assert [int(part["in_width"]) for part in parts] == [8, *(candidate.width for candidate in arch.stages[:-1])]
    trials = pd.read_csv(made.run / "search/trials.csv", dtype={"key": str})
    arch = Arch.from_dict(best["arch"])
    for frame in (trials, pd.read_csv(made.run / "search/top.csv", dtype={"key": str})):
        row = frame[frame["key"] == arch.key].iloc[0]
        assert (row["macs"], row["params"]) == space.cost(arch, **COST) == (best["macs"], best["params"])


def test_the_best_of_the_short_training_wins(made: Made, best: dict[str, object]) -> None:
    top = pd.read_csv(made.run / "search/top.csv", dtype={"key": str})
    assert {"tuned", "score"} <= set(top["role"]) and len(top) <= 5
    measured = ["select_accuracy", "select_agreement", "tuned_kl", "kl"]
    order = top.sort_values(measured, ascending=[False, False, True, True])
    assert best["key"] == order["key"].iloc[0]


def test_the_student_is_decided_on_select_image_by_image(made: Made, results: pd.DataFrame) -> None:
    data = pd.read_csv(made.run / "data.csv")
    for row in results.to_dict("records"):
        for split in ("select", "test"):
            scores = pd.read_csv((made.run / row["folder"]).parent / f"{split}.csv")["score"]
            assert len(scores) == (data["split"] == split).sum()
            assert scores.mean() == pytest.approx(row[f"{split}_accuracy"], abs=1e-12)
    decided = pd.read_csv(made.run / "search/handed_over.csv").set_index("role")
    assert decided.index.tolist() == results["role"].unique().tolist()
    better = decided[decided["minus_found"] > decided["standard_error"]]
    role = "found" if better.empty else better["minus_found"].idxmax()
    assert decided["handed_over"].idxmax() == role and decided["handed_over"].sum() == 1
    mine = results[results["role"] == role].sort_values("select_accuracy", ascending=False, kind="stable")
    assert f"student: {made.run / mine['folder'].iloc[0]}\n" in made.out
    assert "Handed over: " in made.err


def test_results_hold_every_role_and_seed(made: Made, results: pd.DataFrame, best: dict[str, object]) -> None:
    assert results.groupby("role")["seed"].apply(list).to_dict() == dict.fromkeys(
        ["found", "random_1", "largest_macs", "largest_params"], [0, 1]
    )
    for name in ("select_accuracy", "select_agreement", "test_accuracy", "test_agreement"):
        assert results[name].between(0, 1).all()
    found = results[results["role"] == "found"].iloc[0]
    assert found["key"] == best["key"]
    random = results[results["role"] == "random_1"].iloc[0]
    assert abs(random["macs"] - found["macs"]) <= 0.2 * found["macs"] and random["key"] != found["key"]
    teacher = json.loads((made.run / "retrain/teacher.json").read_text())
    assert teacher["name"] == "cifar_resnet8" and 0.5 < teacher["test_accuracy"] <= 1
    mean = 100 * results.loc[results["role"] == "found", "test_accuracy"].mean()
    shown = pd.read_csv(made.run / "report/results.csv").set_index("role")
    assert shown.loc["found", "accuracy_mean_percent"] == pytest.approx(mean)
    row = next(line for line in made.out.splitlines() if "│ found" in line)
    assert f"{mean:.2f}" in row


def test_the_report_is_one_file_that_needs_no_other(made: Made, best: dict[str, object]) -> None:
    page = (made.run / "report/report.html").read_text()
    assert str(best["key"]) in page and page.count("<svg") >= 4
    for outside in ("<script src", "<link ", "Still missing"):
        assert outside not in page
    assert "Where student and teacher differ" in page
    assert set(re.findall(r'src="([^"]{22})', page)) == {"data:image/png;base64,"}


def test_the_same_command_again_does_nothing(made: Made, copied: Path, nas_kd_main: Main) -> None:
    before, timing = digests(copied), (copied / "timing.csv").read_bytes()
    again = nas_kd_main("run", made.config, "--run", copied)
    assert again.code == 0, again.err
    # the page shows the settings, and with them the name of the folder, which is that of the copy now
    assert changes(before, digests(copied)) == ["report/report.html"]
    assert _rows(again.out) == _rows(made.out)
    before = digests(copied)
    own = nas_kd_main("run", copied)  # a run folder stands for its own config.yaml
    assert own.code == 0, own.err
    assert changes(before, digests(copied)) == [] and _rows(own.out) == _rows(made.out)
    assert (copied / "timing.csv").read_bytes() == timing  # no epoch, no rating


def _rows(out: str) -> list[str]:
    return [line for line in out.splitlines() if line.startswith("│")]


def test_status_tells_every_stage(made: Made, results: pd.DataFrame, nas_kd_main: Main) -> None:
    said = nas_kd_main("status", "--run", made.run)
    assert said.code == 0
    first, *rest = said.out.splitlines()
    assert first.startswith("finished (nas-kd run), ") and len(rest) < 19
    lines = {line.split()[0]: line for line in rest}
    for stage in ("teacher", "supernet", "blockwise", "search"):
        assert lines[stage].split()[1] == "done"
    assert "accuracy_largest=" in lines["supernet"] and "epoch=2" in lines["supernet"]
    students = 2 * results["key"].nunique()  # two roles of one arch are trained once
    assert students >= 6 and f"{students} of {students} done" in lines["retrain"]
    state = json.loads((made.run / "status.json").read_text())
    assert (state["state"], state["command"]) == ("finished", "run")
    assert (state["stage"], state["done"], state["total"]) == ("retrain", students, students)


def test_describe_prints_the_range_and_writes_nothing(made: Made, nas_kd_main: Main) -> None:
    said = nas_kd_main("describe", made.config)
    assert said.code == 0
    assert "46,656 archs" in said.out and "at most 207,264 MACs (27.7% of the teacher)" in said.out
    assert "largest: 414,528 MACs, 44,226 params (55.5% and 59%)" in said.out and "resnet_cifar: " in said.out
    assert "student stage 1 (8 px) learns from teacher layer1.0 (16 channels, 8 px)\n" in said.out
    assert list(Path.cwd().iterdir()) == []
    refused = nas_kd_main("describe", made.config, "--search.max_macs", "1000")
    assert refused.code == 2 and "35,488" in refused.err


def test_a_command_a_stage_gives_the_same_as_run(
    made: Made, tmp_path: Path, fork: Callable[..., tuple[int, str]]
) -> None:
    run = tmp_path / "stages"
    for stage in ("teacher", "supernet", "blockwise", "search", "retrain", "report"):
        code, text = fork(stage, made.config, "--run", run)
        assert code == 0, text
        assert "Traceback" not in text
        assert (run / stage).is_dir()
    assert changes(numbers(made.run), numbers(run)) == []


def test_a_later_command_does_what_is_missing_before_it(
    made: Made, tmp_path: Path, fork: Callable[..., tuple[int, str]]
) -> None:
    config = tmp_path / "tiny.yaml"
    config.write_text(CONFIG.replace("epochs: 3", "epochs: 1, warmup_epochs: 0"))
    code, text = fork("supernet", config, "--run", tmp_path / "run", "--data.views", "1")
    assert code == 0, text
    assert (tmp_path / "run/supernet/weights.safetensors").exists()
    assert not (tmp_path / "run/teacher").exists()  # the supernet learns from labels only


def test_the_student_opens_in_an_empty_folder(made: Made, results: pd.DataFrame, tmp_path: Path) -> None:
    row = results[(results["role"] == "found") & (results["seed"] == 1)].iloc[0]
    shutil.copytree(made.run / str(row["folder"]), tmp_path / "elsewhere/student")
    listed = pd.read_csv(made.run / "data.csv")
    listed[listed["split"] == "test"].to_csv(tmp_path / "elsewhere/test.csv", index=False)
    (tmp_path / "elsewhere/check.py").write_text(
        """
import csv, sys
import numpy as np, torch
from sklearn.datasets import load_digits
import nas_kd
from nas_kd.runs.files import read_frame

student = nas_kd.load_student("student")
assert not student.training
bunch, info = load_digits(), student.info
names = [row["name"] for row in csv.DictReader(open("test.csv"))]
at = [int(name.split("/")[1]) for name in names]
pixels = torch.from_numpy(np.rint(bunch.images[at] * (255 / 16))).float()[:, None] / 255
x = (pixels - info["mean"][0]) / info["std"][0]
with torch.no_grad():
    guess = student(x).argmax(1)
truth = [info["classes"].index(str(bunch.target[i])) for i in at]
right = int((guess == torch.tensor(truth)).sum())
print(repr(right / len(at)), repr(info["metrics"]["test_accuracy"]), info["arch"]["space"], len(at))
assert "timm" not in sys.modules and "optuna" not in sys.modules
"""
    )
    done = subprocess.run(
        [sys.executable, "check.py"],
        capture_output=True,
        text=True,
        cwd=tmp_path / "elsewhere",
        env=environment(),
    )
    assert done.returncode == 0, done.stderr
    accuracy, told, space, images = done.stdout.split()
    assert float(accuracy) == float(told) == row["test_accuracy"]
    assert space == nas_kd.load_space("digits").hash and int(images) > 300


def test_shares_of_the_teacher_bound_a_search_without_it(made: Made, copied: Path, nas_kd_main: Main) -> None:
    options = ("--search.engine", "random", "--search.max_macs", "30%", "--retrain.seeds", "1")
    assert nas_kd_main("retrain", made.config, "--run", copied, *options).code == 0
    whole = nas_kd.load_teacher("cifar_resnet8", num_classes=10, in_chans=1).bind(nas_kd.load_data("digits")).macs
    (found,) = copied.glob("search/random_macs_*/best.json")
    assert json.loads(found.read_text())["budget"]["macs"] == int(0.3 * whole)
