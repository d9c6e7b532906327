"""No space is named: the teacher is cut down, and its cuts are searched, retrained and compared with simple ones."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import pytest
import torch
from small_run import Said, environment

import nas_kd
from nas_kd.pipeline.pipeline import Pipeline
from nas_kd.pipeline.read_config import read_config
from nas_kd.pipeline.rivals import rivals
from nas_kd.searcher.budget import Budget
from nas_kd.teacher.cifar_resnet import CifarResNet
from nas_kd.train.many import TrainingSetup
from nas_kd.train.weights import load_weights, weights_hash

CONFIG = """\
device: cpu
threads: 1
workers: 1
data: {train: digits, subset: 400, rate: 0.15, select: 0.15, views: 2}
teacher: {model: cifar_resnet14, epochs: 3, batch_size: 32, lr: 0.1}
derive: {rate_images: 32}
repair: {student_epochs: 1}
search: {max_macs: 25%, trials: 10, top: 2, epochs: 1, tuned: 2, calibration_images: 64}
retrain: {epochs: 1, batch_size: 32, seeds: 1, random_students: 1, band: 0.3}
"""
WHOLE = 1_631_872  # MACs of cifar_resnet14 on digits
ROLES = {"found", "random_1", "largest_macs", "largest_params", "new_weights", "even_width", "even_both", "taylor"}


class Made(NamedTuple):
    run: Path
    config: Path
    err: str


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("derived")
    config = folder / "mine.yaml"
    config.write_text(CONFIG)
    command = [sys.executable, "-m", "nas_kd", "run", str(config), "--run", str(folder / "run")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment())
    assert done.returncode == 0, done.stderr
    return Made(folder / "run", config, done.stderr)


def test_every_step_leaves_its_files(made: Made) -> None:
    assert "the teacher as the space" in made.err and not (made.run / "supernet").exists()
    space = json.loads((made.run / "space.json").read_text())
    assert space["name"] == "teacher:cifar_resnet14" and len(space["stages"]) == 6
    tables = [pd.read_csv(made.run / f"blockwise/stage_{number}.csv") for number in range(1, 7)]
    assert all((table["score"] >= 0).all() and table["score"].iloc[-1] == 0 for table in tables)
    best = json.loads((made.run / "search/best.json").read_text())
    assert best["budget"] == {"macs": WHOLE // 4} and best["macs"] <= WHOLE // 4
    assert (made.run / "report/report.html").is_file()


def test_students_begin_where_their_units_were_repaired(made: Made) -> None:
    results = pd.read_csv(made.run / "retrain/results.csv").set_index("role")
    for role in ("found", "random_1", "even_width"):
        folder = made.run / "retrain" / results.loc[role, "key"]
        assert (folder / "repaired/weights.safetensors").exists() is (role != "even_width")
        begun = json.loads((folder / "seed_0/stage.json").read_text())["inputs"]["start"]
        weights = folder / "repaired/weights.safetensors"
        if weights.exists():
            student = nas_kd.load_student(folder / "seed_0/student")
            load_weights(student, weights)
            assert weights_hash(student, measured=False) == begun


def test_rivals_stand_in_the_same_table(made: Made) -> None:
    results = pd.read_csv(made.run / "retrain/results.csv").set_index("role")
    assert set(results.index) >= ROLES - {"even_depth", "small_images"}
    assert (results["macs"] <= WHOLE // 4).all()
    assert results.loc["new_weights", ["macs", "params"]].tolist() == results.loc["found", ["macs", "params"]].tolist()
    assert results.loc["new_weights", "folder"] != results.loc["found", "folder"]
    starts = [
        json.loads((made.run / folder).parent.joinpath("stage.json").read_text())["inputs"]["start"]
        for folder in results.loc[["found", "new_weights"], "folder"]
    ]
    assert starts[0] != starts[1]
    for role, row in results.iterrows():  # equal epochs, data and method
        facts = json.loads((made.run / str(row["folder"])).parent.joinpath("stage.json").read_text())["inputs"]
        assert (facts["retrain.epochs"], facts["retrain.method"]) == (1, "kd"), role
        assert facts["retrain.lr"] == (0.1 if role == "new_weights" else 0.01), role  # that suits trained weights


def test_a_student_is_the_teachers_class_and_opens_alone(made: Made, tmp_path: Path) -> None:
    results = pd.read_csv(made.run / "retrain/results.csv").set_index("role")
    for role in ("found", "even_both", "taylor"):
        student = nas_kd.load_student(made.run / results.loc[role, "folder"])
        assert isinstance(student, CifarResNet)
        assert sum(p.numel() for p in student.parameters()) == results.loc[role, "params"]
        assert student(torch.zeros(2, 1, 8, 8)).shape == (2, 10)


def test_the_same_command_does_nothing_again(
    made: Made, nas_kd_main: Callable[..., Said], monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("the library prunes again")

    monkeypatch.setattr("nas_kd.pipeline.rivals.taylor_cut", never)
    before = {path: path.read_bytes() for path in made.run.rglob("*.csv") if path.name != "timing.csv"}
    said = nas_kd_main("run", made.config, "--run", made.run)
    assert said.code == 0, said.err
    assert {path: path.read_bytes() for path in before} == before


def test_a_second_budget_reuses_the_ratings(made: Made, nas_kd_main: Callable[..., Said]) -> None:
    kept = (made.run / "blockwise/stage_2.csv").stat().st_mtime_ns
    said = nas_kd_main("search", made.config, "--run", made.run, "--search.max_macs", "20%", "--search.epochs", "0")
    assert said.code == 0, said.err
    (best,) = (json.loads(path.read_text()) for path in (made.run / "search").glob("macs_*/best.json"))
    assert best["macs"] <= int(0.2 * WHOLE) and (made.run / "blockwise/stage_2.csv").stat().st_mtime_ns == kept


def test_an_even_cut_can_be_repaired_too(made: Made, nas_kd_main: Callable[..., Said]) -> None:
    said = nas_kd_main("retrain", made.config, "--run", made.run, "--retrain.rivals", "[even_both, even_both_repaired]")
    assert said.code == 0, said.err
    results = pd.read_csv(made.run / "retrain/results.csv")
    plain, repaired = (results[results["role"] == role].iloc[0] for role in ("even_both", "even_both_repaired"))
    assert (plain["macs"], plain["params"]) == (repaired["macs"], repaired["params"])
    starts = [
        json.loads((made.run / row["folder"]).parent.joinpath("stage.json").read_text())["inputs"]["start"]
        for row in (plain, repaired)
    ]
    assert starts[0] != starts[1] and repaired["key"] == f"{plain['key']}-repaired"
    assert (
        "found, random and largest were repaired" in said.out and "--retrain.rivals '[even_both_repaired]'" in said.out
    )


def test_a_rival_that_is_too_slow_is_told(made: Made, tmp_path: Path) -> None:
    pipeline = Pipeline(replace(read_config([str(made.config), "--run", str(made.run)]), run=str(made.run)))
    slow = replace(pipeline.config.search, max_latency_ms=1e-6)
    pipeline.config = replace(
        pipeline.config, search=slow, retrain=replace(pipeline.config.retrain, rivals=["even_width", "taylor"])
    )
    pipeline.budget = Budget(pipeline.space, pipeline.cost, pipeline.upper)  # MACs alone, as the run was searched
    setup = TrainingSetup(None, pipeline.data, pipeline.space, None, pipeline.runtime)
    assert rivals(pipeline, setup) == []
    log = (made.run / "log.txt").read_text()
    assert "no rival even_width: it takes" in log and "no rival taylor: it takes" in log


def test_smaller_images_reach_smaller_budgets(tmp_path: Path) -> None:
    data = nas_kd.load_data("digits", subset=300, rate=0.15, select=0.15, views=2)
    teacher = nas_kd.train_teacher("cifar_resnet8", data, epochs=1, batch_size=32, lr=0.1)
    space = nas_kd.teacher_space(teacher, data, resolutions=(4,))
    net = nas_kd.Supernet(space)
    tables = nas_kd.rate_units(net, teacher, data, images=32)
    cost = {"in_chans": 1, "num_classes": 10}
    cheapest = [space.cost(space.arch(space.smallest().stages, resolution=size), **cost).macs for size in (4, 8)]
    given = {"trials": 20, "tuned": 0, "epochs": 0, "calibration_images": 32}
    found = nas_kd.search(net, teacher, data, tables, max_macs=(cheapest[0] + cheapest[1]) // 2, **given)
    assert found.best.resolution == 4
    assert space.cost(found.best, **cost).macs <= (cheapest[0] + cheapest[1]) // 2 < cheapest[1]


def test_describe_needs_no_weights(nas_kd_main: Callable[..., Said]) -> None:
    said = nas_kd_main("describe", "--data.train", "digits", "--teacher.model", "cifar_resnet14")
    assert said.code == 0, said.err
    assert f"teacher: cifar_resnet14, {WHOLE:,} MACs" in said.out and "6 units" in said.out
    assert "layer2.0: 32 of conv1" in said.out and "digits: " in said.out  # the shipped spaces, in shares of it


def test_images_are_normalised_as_the_teachers(made: Made, tmp_path: Path, nas_kd_main: Callable[..., Said]) -> None:
    given = ("--teacher.epochs", "0", "--teacher.checkpoint", made.run / "teacher/weights.safetensors")
    own = ("--teacher.mean", "[0.25]", "--teacher.std", "[0.5]", "--retrain.rivals", "[]", "--search.epochs", "0")
    said = nas_kd_main("run", made.config, "--run", tmp_path / "run", *given, *own, "--search.tuned", "0")
    assert said.code == 0, said.err
    (folder,) = pd.read_csv(tmp_path / "run/retrain/results.csv").set_index("role").loc[["found"], "folder"]
    info = nas_kd.load_student(tmp_path / "run" / folder).info
    assert (info["mean"], info["std"]) == ([0.25], [0.5])


def test_a_budget_is_reached_in_steps(made: Made, tmp_path: Path, nas_kd_main: Callable[..., Said]) -> None:
    given = ("--teacher.epochs", "0", "--teacher.checkpoint", made.run / "teacher/weights.safetensors")
    few = ("--retrain.rivals", "[even_width]", "--search.epochs", "0", "--search.tuned", "0")
    command = ("run", made.config, "--run", tmp_path / "run", *given, *few, "--search.steps", "2")
    said = nas_kd_main(*command)
    assert said.code == 0, said.err
    run = tmp_path / "run"
    (step,) = pd.read_csv(run / "steps/steps.csv").to_dict("records")
    assert step["max_macs"] == int(WHOLE * (WHOLE // 4 / WHOLE) ** 0.5) and step["macs"] <= step["max_macs"]
    assert step["macs_percent"] == pytest.approx(100 * step["macs"] / WHOLE)
    best = json.loads((run / "search/best.json").read_text())
    assert best["budget"] == {"macs": WHOLE // 4} and best["macs"] <= WHOLE // 4
    assert json.loads((run / "space.json").read_text())["name"] == f"teacher:cifar_resnet14-{step['key']}"
    results = pd.read_csv(run / "retrain/results.csv").set_index("role")
    student = nas_kd.load_student(run / results.loc["found", "folder"])
    assert isinstance(student, CifarResNet) and student(torch.zeros(2, 1, 8, 8)).shape == (2, 10)
    found, even = (results.loc[role, "macs"] for role in ("found", "even_width"))
    assert found == best["macs"] and even <= WHOLE // 4 and even != found  # the even cut is of the whole teacher
    before = {path: path.read_bytes() for path in run.rglob("*.csv") if path.name != "timing.csv"}
    assert nas_kd_main(*command).code == 0
    assert {path: path.read_bytes() for path in before} == before
    said = nas_kd_main(*command, "--search.max_macs", "20%")
    assert said.code == 2 and "bounds=" in said.err, said.err


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (("--space", "digits", "--search.steps", "2"), ("search.steps=2", "leave space out")),
        (("--search.steps", "2", "--search.max_macs", "null"), ("search.steps=2", "give search.max_macs")),
        (("--search.max_macs", "1%"), ("search.max_macs='1%'", "the smallest arch of teacher:cifar_resnet14")),
        (
            ("--retrain.rivals", "[resnet18]", "--search.min_macs", "20%"),
            ("retrain.rivals='resnet18'", "within the budget"),
        ),
        (("--retrain.rivals", "[resnet18]"), ("retrain.rivals='resnet18'", "within the budget")),
        (("--retrain.rivals", "[resnet81]"), ("retrain.rivals='resnet81'", "did you mean")),
        (("--space", "digits", "--retrain.init", "inherited"), ("retrain.init='inherited'", "leave space out")),
        (("--space", "digits", "--retrain.rivals", "[taylor]"), ("retrain.rivals='taylor'", "timm model")),
        (("--teacher.model", "null", "--teacher.epochs", "0"), ("space=None", "give teacher.model")),
        (("--derive.widths", "[0]"), ("derive.widths",)),
    ],
)
def test_mistakes_come_before_any_training(
    options: tuple[str, ...], parts: tuple[str, ...], made: Made, tmp_path: Path, nas_kd_main: Callable[..., Said]
) -> None:
    said = nas_kd_main("run", made.config, "--run", tmp_path / "run", *options)
    assert said.code == 2 and all(part in said.err for part in parts), said.err
    assert "teacher 0/" not in said.err


def test_several_processes_have_nothing_to_train_together(
    made: Made, monkeypatch: pytest.MonkeyPatch, nas_kd_main: Callable[..., Said]
) -> None:
    for name, value in {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2", "TORCHELASTIC_RUN_ID": "x"}.items():
        monkeypatch.setenv(name, value)
    said = nas_kd_main("run", made.config, "--run", made.run)
    assert said.code == 2 and "start it without torchrun" in said.err, said.err
