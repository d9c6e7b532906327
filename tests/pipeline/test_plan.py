"""What a command says before it starts: its stages, steps, seconds and disk; and that saying so changes nothing."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from small_run import Made, Said, changes, numbers

from nas_kd.config.settings import build
from nas_kd.pipeline import commands
from nas_kd.pipeline import plan as planning
from nas_kd.pipeline.config import Config
from nas_kd.pipeline.given import Given
from nas_kd.pipeline.pace import Pace, pace, proposal_seconds, typical_arch
from nas_kd.pipeline.plan import Work, plan, words

ROUND = Pace(
    teacher=0.001, teacher_step=0.01, student=0.0005, student_step=0.002, supernet_step=0.02, params=1000, proposal=0.4
)


def given(**more: object) -> Given:
    settings = {"data.subset": 500, "data.rate": 100, "data.select": 50, "teacher.epochs": 2, "workers": 1}
    settings |= {"teacher.model": "cifar_resnet8", "data.views": 4}
    return Given(build(Config, settings | {name.replace("__", "."): value for name, value in more.items()}))


@pytest.fixture
def round_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "pace", lambda given: ROUND)


def test_amounts_of_the_teacher_as_the_space(round_pace: None) -> None:
    short = {"search__trials": 10, "search__tuned": 2, "search__top": 2, "search__epochs": 3, "search__rounds": 2}
    run = given(**short, retrain__seeds=2, repair__student_epochs=2)
    train = len(run.images.train)
    assert [len(split) for split in run.images.splits][:2] == [train, 100]
    works = {work.stage: work for work in plan(run)}
    assert list(works) == ["teacher", "teacher logits", "the teacher as the space", "units", "search", "retrain"]
    assert works["teacher"].seconds == pytest.approx(2 * (train * 0.01 + 100 * 0.001))
    assert works["teacher"].steps == f"2 epochs of {train // 64} steps"
    assert works["teacher logits"].seconds == pytest.approx(4 * train * 0.001)
    assert works["teacher logits"].steps == f"{4 * train:,} images"
    one = train * 0.002 + 100 * 0.0005  # an epoch of a student
    choices = sum(stage.size for stage in run.outline.stages)
    asking = 10 * 1.5 * 0.4
    scoring = asking + 10 * (train + 100) * 1.3 * 0.0005 + 2 * choices * 100 * 1.3 * 0.0005
    assert works["search"].seconds == pytest.approx(scoring + 2 * one + (6 * 2 + 3 * 3) * one)
    assert works["search"].steps == "10 subnets, 2 tuned for an epoch, 9 short trainings of up to 3 epochs"
    students = 3 + 3 + 6
    epochs = run.config.retrain.epochs
    passes = run.config.repair.student_epochs  # of all but the rivals: the teacher's pass, and a step
    repairs = (3 + 3) * passes * train * (0.001 + 0.002)
    assert works["retrain"].seconds == pytest.approx(students * 2 * epochs * one + 4 * 3 * one + repairs)
    # the even cut that is repaired like the found network: tried briefly, its units and itself repaired
    one_more = given(**short, retrain__seeds=2, repair__student_epochs=2, retrain__rivals=["even_both_repaired"])
    found = {work.stage: work for work in plan(one_more)}
    again = passes * train * (0.001 + 0.002) + found["the teacher as the space"].seconds
    count = 3 + 3 + 1
    assert found["retrain"].seconds == pytest.approx(count * 2 * epochs * one + 4 * 3 * one + repairs + again)
    assert works["retrain"].disk == 4 * 1000 * students * 2
    assert all(work.left == 1 for work in works.values())


def test_amounts_of_steps(round_pace: None) -> None:
    one, three = (given(search__steps=steps, search__step_epochs=2, search__max_macs="20%") for steps in (1, 3))
    amounts = [{work.stage: work for work in plan(run)}["the teacher as the space"] for run in (one, three)]
    train = len(one.images.train)
    choices = sum(stage.size for stage in one.outline.stages)
    each = 2 * train * 0.01 + 2 * choices * 100 * 1.3 * 0.001 + amounts[0].seconds
    assert amounts[1].seconds == pytest.approx(amounts[0].seconds + 2 * each) and amounts[1].left == 1
    assert amounts[1].steps.endswith(", and 2 cuts before the last, 2 epochs each")


def test_amounts_of_a_named_space_and_of_workers(round_pace: None) -> None:
    run = given(space="digits", supernet__epochs=3, retrain__epochs=5, workers=2, teacher__epochs=0)
    works = {work.stage: work for work in plan(run)}
    train = len(run.images.train)
    assert list(works) == ["teacher", "teacher logits", "supernet", "blockwise", "search", "retrain"]
    assert works["teacher"].left == 0 and works["teacher"].steps == "given"
    assert works["supernet"].seconds == pytest.approx(3 * (train * 0.02 + 2 * (train + 100) * 0.0005))
    one = train * 0.002 + 100 * 0.0005
    assert works["retrain"].seconds == pytest.approx(6 * 3 * 5 * one / 2 + 4.0)
    alone = given(space="digits", teacher__model=None, teacher__epochs=0)
    assert [work.stage for work in plan(alone)] == ["supernet", "search", "retrain"]


def test_what_is_left_of_a_search(round_pace: None, tmp_path: Path) -> None:
    run = given(search__trials=10, search__tuned=2, search__top=2, search__epochs=0, search__rerate=0)
    whole = {work.stage: work for work in plan(run)}["search"]
    (tmp_path / "search/tuned/a").mkdir(parents=True)
    (tmp_path / "search/stage.json").write_text('{"done": false}')
    (tmp_path / "search/trials.csv").write_text("kind\nwarm\ntrial\nduplicate\nrandom\ncontrol\n")
    (tmp_path / "search/tuned/a/stage.json").write_text('{"done": true}')
    left = {work.stage: work for work in plan(run, tmp_path)}["search"]
    scoring = 10 * ((len(run.images.train) + 100) * 1.3 * 0.0005 + 1.5 * 0.4)
    tuning = 2 * (len(run.images.train) * 0.002 + 100 * 0.0005)
    assert left.seconds == whole.seconds == pytest.approx(scoring + tuning)
    assert left.left * left.seconds == pytest.approx(0.7 * scoring + 0.5 * tuning)


def test_its_words() -> None:
    works = [Work("teacher", "12 epochs of 15 steps", 60.0, 0.0, 1e6), Work("retrain", "9 students", 200.0, 0.25, 2e6)]
    assert list(words(works, resumed=True)) == [
        "plan: about 50 s left, 3.0 MB on the disk (plan=false leaves this out)",
        "  [1/2] teacher          done  12 epochs of 15 steps",
        "  [2/2] retrain  50 s left (25 %)  9 students",
    ]
    assert next(words(works[1:])).startswith("plan: about 50 s in all")


def test_a_pace_is_measured_and_disturbs_no_generator() -> None:
    run = given(search__max_macs="30%")
    _ = run.lower
    torch.manual_seed(7)
    before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    weights = {name: tensor.clone() for name, tensor in run.untrained.network.state_dict().items()}
    found = pace(run)
    assert torch.equal(torch.get_rng_state(), before[0]) and np.random.get_state()[1].tolist() == before[1]
    assert random.getstate() == before[2]
    assert all(torch.equal(weights[name], tensor) for name, tensor in run.untrained.network.state_dict().items())
    assert 0 < found.teacher < found.teacher_step and 0 < found.student < found.student_step
    assert found.supernet_step == 0 and found.params == run.outline.cost(typical_arch(run), **run.cost).params
    assert run.outline.cost(typical_arch(run), **run.cost).macs <= run.upper["macs"]
    assert found.proposal > 0
    by_lot = given(space="digits", teacher__model=None, teacher__epochs=0, search__engine="random")
    assert proposal_seconds(by_lot) == 0


def test_a_plan_fails_in_words_only_where_a_network_does_not_train(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(error: Exception) -> Callable[..., list[Work]]:
        def plan(*rest: object) -> list[Work]:
            raise error

        return plan

    monkeypatch.setattr(commands, "plan", failing(RuntimeError("mat1 and mat2")))
    assert commands._planned(given()) == ([], ["no plan: mat1 and mat2"])
    monkeypatch.setattr(commands, "plan", failing(AttributeError("of our own")))
    with pytest.raises(AttributeError):
        commands._planned(given())


@pytest.mark.slow
def test_a_run_with_it_has_the_same_bits(made: Made, tmp_path: Path, nas_kd_main: Callable[..., Said]) -> None:
    said = nas_kd_main("run", made.config, "--run", tmp_path / "run", "--plan", "true")
    assert said.code == 0, said.err
    assert changes(numbers(made.run), numbers(tmp_path / "run")) == []
    assert re.search(r"^plan: about .* in all, [\d.]+ MB on the disk", said.err, re.MULTILINE)
    assert re.search(r"^  \[6/6\] retrain +\S.* s  4 students from 2 seeds, 2 epochs each$", said.err, re.MULTILINE)
    assert "plan:" not in made.err
    again = nas_kd_main("run", made.config, "--run", tmp_path / "run", "--plan", "true")
    assert re.search(r"^  \[5/6\] search +done", again.err, re.MULTILINE)


def test_describe_prints_it(nas_kd_main: Callable[..., Said]) -> None:
    given = ("describe", "--space", "digits", "--data.subset", 300, "--data.rate", 30, "--data.select", 30)
    said = nas_kd_main(*given)
    assert said.code == 0 and re.search(r"^  \[3/6\] supernet +\S.*\d+ epochs of 3 steps$", said.out, re.MULTILINE)
    assert "plan:" not in nas_kd_main(*given, "--plan", "false").out
