"""A run without a teacher, a second engine beside it, and a teacher that comes for the retraining only."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from small_run import CONFIG, Made, Said, changes, digests

import nas_kd

ALONE = CONFIG.replace("{model: cifar_resnet8, epochs: 3, lr: 0.1, batch_size: 32}", "{model: null}")


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Configuration and folder of a finished run without a teacher."""
    from nas_kd.cli import main

    folder = tmp_path_factory.mktemp("alone")
    config, run = folder / "alone.yaml", folder / "run"
    config.write_text(ALONE)
    assert "model: null" in ALONE
    assert main(["run", str(config), "--run", str(run)]) == 0
    return config, run


def test_a_run_without_a_teacher_is_whole(alone: tuple[Path, Path]) -> None:
    _, run = alone
    assert not (run / "teacher").exists() and not (run / "blockwise").exists()
    trials = pd.read_csv(run / "search/trials.csv")
    assert trials["kind"].isin(["warm", "trial", "random"]).sum() == 30 and trials["kl"].isna().all()
    best = json.loads((run / "search/best.json").read_text())
    assert best["engine"] == "nsga2" and best["macs"] <= best["budget"]["macs"]
    results = pd.read_csv(run / "retrain/results.csv")
    assert set(results["role"]) == {"found", "random_1", "largest_macs", "largest_params"}
    assert results["test_accuracy"].between(0, 1).all() and not (run / "retrain/teacher.json").exists()
    facts = json.loads((run / "retrain" / best["key"] / "seed_0/stage.json").read_text())["inputs"]
    assert facts["teacher"] is None and facts["retrain.method"] == "ce"
    student = nas_kd.load_student(run / "retrain" / best["key"] / "seed_0/student")
    assert student.info["arch"] == best["arch"]


def test_the_report_says_so_and_misses_nothing(alone: tuple[Path, Path]) -> None:
    page = (alone[1] / "report/report.html").read_text()
    assert "There is no teacher" in page and "Searched with nsga2" in page and "no teacher" in page
    assert "Still missing" not in page and "sum of ratings" not in page and "nan" not in page.lower().split()
    assert (alone[1] / "report/results.csv").exists()


def test_the_same_command_again_does_nothing(alone: tuple[Path, Path], nas_kd_main: Callable[..., Said]) -> None:
    config, run = alone
    before = digests(run)
    assert nas_kd_main("run", config, "--run", run).code == 0
    assert [name for name in changes(before, digests(run)) if not name.startswith("report/")] == []


def test_a_second_engine_lies_beside_the_first(
    alone: tuple[Path, Path], nas_kd_main: Callable[..., Said], tmp_path: Path
) -> None:
    config, run = alone[0], Path(shutil.copytree(alone[1], tmp_path / "run"))
    before = digests(run)
    assert nas_kd_main("search", config, "--run", run, "--search.engine", "coarse").code == 0
    caps = json.loads((run / "search/best.json").read_text())["budget"]
    folder = run / "search" / f"coarse_macs_{caps['macs']}"
    assert json.loads((folder / "best.json").read_text())["engine"] == "coarse"
    assert not [name for name in changes(before, digests(run)) if not name.startswith(f"search/{folder.name}")]
    assert nas_kd_main("report", "--run", run).code == 0
    budgets = pd.read_csv(run / "report/budgets.csv")
    assert budgets["engine"].tolist() == ["nsga2", "coarse"] and budgets["subnets"].gt(29).all()


def test_a_teacher_may_come_for_the_retraining(
    alone: tuple[Path, Path], nas_kd_main: Callable[..., Said], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    assert nas_kd_main("search", alone[0], "--run", run).code == 0
    found = (run / "search/best.json").read_text()
    teacher = ["--teacher.model", "cifar_resnet8", "--teacher.epochs", "1", "--teacher.warmup_epochs", "0"]
    said = nas_kd_main("retrain", alone[0], "--run", run, *teacher, "--search.engine", "nsga2")
    assert said.code == 0, said.err
    assert (run / "search/best.json").read_text() == found and not (run / "blockwise").exists()
    results = pd.read_csv(run / "retrain/results.csv")
    assert results["test_agreement"].between(0, 1).all()
    facts = json.loads(next((run / "retrain").glob("*/seed_0/stage.json")).read_text())["inputs"]
    assert facts["retrain.method"] == "kd" and facts["teacher"] is not None


@pytest.mark.parametrize(
    ("command", "options", "parts"),
    [
        ("teacher", [], ["teacher.model", "nas-kd teacher"]),
        ("blockwise", [], ["teacher.model", "nas-kd blockwise"]),
        ("run", ["--search.engine", "exact"], ["search.engine", "nsga2"]),
        ("run", ["--retrain.method", "kd"], ["retrain.method", "ce"]),
        ("run", ["--supernet.teacher_weight", "0.5"], ["supernet.teacher_weight", "teacher.model"]),
        ("run", ["--teacher.epochs", "2"], ["teacher.model", "epochs"]),
        ("run", ["--search.engine", "nsga3"], ["search.engine", "nsga2"]),
    ],
)
def test_what_needs_a_teacher_says_so(
    alone: tuple[Path, Path],
    nas_kd_main: Callable[..., Said],
    tmp_path: Path,
    command: str,
    options: list[str],
    parts: list[str],
) -> None:
    said = nas_kd_main(command, alone[0], "--run", tmp_path / "run", *options)
    lines = [line for line in said.err.splitlines() if line.startswith("nas-kd: ")]
    assert said.code == 2 and len(lines) == 1 and "Traceback" not in said.err
    assert all(part in lines[0] for part in parts), lines[0]
    assert not (tmp_path / "run" / "supernet").exists()


def test_an_engine_beside_the_guided_search(made: Made, copied: Path, nas_kd_main: Callable[..., Said]) -> None:
    said = nas_kd_main("search", made.config, "--run", copied, "--search.engine", "nsga2")
    assert said.code == 0, said.err
    (folder,) = (copied / "search").glob("nsga2_macs_*")
    best = json.loads((folder / "best.json").read_text())
    assert best["engine"] == "nsga2" and best["teacher"] is False
    first = json.loads((copied / "search/best.json").read_text())
    assert first["engine"] == "exact" and first["budget"] == best["budget"]


SPACE = """\
from nas_kd.blocks import BasicStage, ConvStem, LinearHead
from nas_kd.space import ElasticSpace

SPACE = ElasticSpace(
    "sizes",
    ConvStem((4, 6)),
    (BasicStage(widths=(4, 8), depths=(1, 2), mids=(2, 4), stride=2), BasicStage(widths=(8,), depths=(1,), mids=(4,))),
    LinearHead((4, 8)),
    resolution=6,
    resolutions=(6, 10),
)
"""


def test_archs_may_choose_their_image_size_but_ratings_need_one(
    tmp_path: Path, nas_kd_main: Callable[..., Said]
) -> None:
    space, config, run = (tmp_path / name for name in ("sizes.py", "sizes.yaml", "run"))
    space.write_text(SPACE)
    config.write_text(CONFIG.replace("space: digits", f"space: {space}"))
    said = nas_kd_main("run", config, "--run", run)  # the digits have 8 pixels
    assert said.code == 2 and "data.resolution=8" in said.err and not (run / "supernet").exists()
    config.write_text(ALONE.replace("space: digits", f"space: {space}"))
    said = nas_kd_main("search", config, "--run", tmp_path / "alone", "--search.trials", "12")
    assert said.code == 0, said.err
    labels = pd.read_csv(tmp_path / "alone/search/trials.csv")["label"]
    assert set(labels.str.extract(r"^(\d+)px")[0]) == {"6", "10"}
    assert json.loads((tmp_path / "alone/search/best.json").read_text())["arch"]["resolution"] in (6, 10)
