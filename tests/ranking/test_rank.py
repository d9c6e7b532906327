from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from clean_forks import clean_forks

import nas_kd.ranking.rank as verb
from nas_kd import rate_blockwise, stage_weights
from nas_kd.cli import main
from nas_kd.data import Data
from nas_kd.errors import SettingError
from nas_kd.ranking.config import RankConfig
from nas_kd.ranking.ground_truth import StandaloneTraining, ground_truth, trainings_of
from nas_kd.ranking.rank import RankResult, rank
from nas_kd.ranking.sample import OVERALL, archs_of, sample_archs
from nas_kd.rate.scores import SCORES, Score
from nas_kd.runs.run import Run
from nas_kd.runtime.device import Runtime
from nas_kd.space import ElasticSpace
from nas_kd.supernet import Supernet
from nas_kd.teacher import Teacher, ViewCache, load_teacher
from nas_kd.train.many import TrainingSetup
from nas_kd.train.retrain import retrain

SAMPLE: dict[str, Any] = {"bands": (9_500, 15_000), "band": 0.2, "in_band": 8, "overall": 4}
TRAINING: dict[str, Any] = {"epochs": 1, "batch_size": 16, "warmup_epochs": 0.25}
HOW = RankConfig(**TRAINING).settled(inherited=False, texts=False)
CHEAP = ("nmse", "supernet_kl", "macs", "params", "minus_depth", "random")


@pytest.fixture
def ask(space: ElasticSpace, teacher: Teacher, data: Data, net: Supernet, runtime: Runtime, tmp_path: Path) -> object:
    def call(**more: object) -> RankResult:
        given: dict[str, object] = {
            "run": tmp_path / "run",
            "scores": CHEAP,
            "primary": "nmse",
            "control": "params",
            "net": net,
            **SAMPLE,
            **TRAINING,
            "images": 48,
            "calibration_images": 48,
            "resamples": 200,
            "runtime": runtime,
            "blockwise": {"epochs": 1, "batch_size": 16, "calibration_images": 48},
        }
        return rank(space, more.pop("teacher", teacher), data, **(given | more))  # type: ignore[arg-type]

    return call


def test_a_sample_is_spread_over_depths_and_sizes_and_is_the_same_again(cost: dict[str, int]) -> None:
    from nas_kd import load_space

    space, cost = load_space("resnet_cifar"), {"resolution": 32, "in_chans": 3, "num_classes": 10}
    table = sample_archs(RankConfig(bands=(2.5e6, 6e6)), space, cost=cost)
    pd.testing.assert_frame_equal(table, sample_archs(RankConfig(bands=(2.5e6, 6e6)), space, cost=cost))
    assert table["group"].value_counts().to_dict() == {"band 1": 32, "band 2": 32, OVERALL: 16}
    assert table["key"].is_unique
    for number, centre in enumerate((2.5e6, 6e6), 1):
        rows = table[table["group"] == f"band {number}"]
        assert (abs(rows["macs"] - centre) <= 0.05 * centre).all()
        counts = rows["depth"].value_counts()
        assert counts.max() - counts.min() <= 1
    for arch, row in zip(archs_of(table), table.to_dict("records"), strict=True):
        assert arch.key == row["key"] and space.cost(arch, **cost) == (row["macs"], row["params"])
    logs = np.sort(np.log(table.loc[table["group"] == OVERALL, "macs"]))
    assert np.diff(logs).max() < 3 * np.diff(logs).mean()
    for count in (10, 20, 40):  # every beginning holds the groups in proportion
        head = table["group"].head(count).value_counts()
        assert abs(head["band 1"] - count * 32 / 80) <= 1 and abs(head[OVERALL] - count * 16 / 80) <= 1
    other = sample_archs(RankConfig(bands=(2.5e6, 6e6)), space, seed=1, cost=cost)
    assert not set(other["key"]) >= set(table["key"])


def test_bands_that_cannot_be_filled_are_refused(space: ElasticSpace, cost: dict[str, int]) -> None:
    with pytest.raises(SettingError, match=r"at least 32 archs; \d+ of .* random ones are in it"):
        sample_archs(RankConfig(bands=(40_000,)), space, cost=cost)
    with pytest.raises(SettingError, match="do not overlap"):
        sample_archs(RankConfig(bands=(10_000, 10_500)), space, cost=cost)
    with pytest.raises(SettingError, match="at least 8"):
        RankConfig(in_band=7)
    with pytest.raises(SettingError, match=r"rank\.overall=4.*8 or more without rank.bands"):
        RankConfig(bands=[], overall=4)
    with pytest.raises(SettingError, match="lower rank.overall"):
        sample_archs(RankConfig(bands=(10_000,), band=0.3, in_band=8, overall=10**6), space, cost=cost)


def test_rank_writes_its_tables_and_goes_on(ask: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = ask()  # type: ignore[operator]
    folder = tmp_path / "run" / "rank"
    tables = {"archs.csv", "truth.csv", "scores.csv", "noise.csv", "summary.csv"}
    names = tables | {"summary.svg", "plan.json", "scores.json"}
    assert {path.name for path in folder.iterdir() if path.is_file()} == names
    assert len(first.truth) == 20 * 2 and not first.truth.duplicated(["key", "seed"]).any()
    assert set(first.truth["key"]) == set(first.archs["key"])
    assert set(first.summary["score"]) == {SCORES[name].name for name in CHEAP}
    assert (first.summary["archs"] == 20).all()
    assert json.loads((folder / "plan.json").read_text())["primary"] == "normalised MSE"
    assert first.summary.set_index("score").loc["normalised MSE", "preparation_minutes"] > 0

    def never(*args: object, **more: object) -> None:
        raise AssertionError("this was done before")

    monkeypatch.setattr(StandaloneTraining, "train_in", never)
    monkeypatch.setattr("nas_kd.ranking.scoring.measure_scores", never)
    again = ask()  # type: ignore[operator]
    pd.testing.assert_frame_equal(first.summary, again.summary)
    fewer = ask(scores=CHEAP[:4])  # type: ignore[operator]
    assert len(fewer.summary) == 4
    monkeypatch.undo()
    more = ask(seeds=3, scores=(*CHEAP, "depth"))  # type: ignore[operator]
    assert len(more.truth) == 60 and len(more.summary) == len(CHEAP) + 1
    ask(seeds=3, scores=("macs", "params", "gradient_norm", "nmse"))  # type: ignore[operator]
    kept = set(pd.read_csv(folder / "scores.csv")["score"])
    assert kept == {SCORES[name].name for name in (*CHEAP, "depth", "gradient_norm")}  # nothing measured is lost
    both = first.truth.merge(more.truth, on=["key", "seed"])
    assert len(both) == 40 and (both["accuracy_x"] == both["accuracy_y"]).all()


def test_what_is_trained_so_far_can_be_judged(
    ask: Callable[..., RankResult], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SettingError, match="0 archs.*train more"):
        ask(train=False, scores=("macs", "nmse", "params"))
    whole = ask(seeds=1, scores=("macs", "nmse", "params"))
    table = tmp_path / "run/rank/truth.csv"
    table.write_text("".join(table.read_text().splitlines(keepends=True)[:13]))
    monkeypatch.setattr(StandaloneTraining, "train_in", None)
    some = ask(train=False, scores=("macs", "nmse", "params"))
    assert len(some.truth) == 12 and (some.summary["archs"] == 12).all()
    assert "ground truth: 12 of 40 trainings, of 12 of 20 archs" in (tmp_path / "run/log.txt").read_text()
    both = whole.scores.merge(some.scores, on=["score", "key"])
    assert len(both) == 60 and (both["value_x"] == both["value_y"]).all()  # of all archs: more truth asks nothing anew


def test_weights_of_stages_are_learned_from_what_a_ranking_has_trained(
    ask: Callable[..., RankResult], net: Supernet, teacher: Teacher, data: Data, runtime: Runtime, tmp_path: Path
) -> None:
    run = Run(tmp_path / "run")
    given = {"epochs": 1, "batch_size": 16, "calibration_images": 48}
    tables = rate_blockwise(net, teacher, data, run=run, runtime=runtime, **given)  # type: ignore[arg-type]
    call = partial(stage_weights, "learned", tables, net, teacher, data, run=tmp_path / "run", runtime=runtime)
    with pytest.raises(SettingError, match="none are"):
        call()
    found = ask(seeds=1, scores=("nmse", "macs", "params"))
    errors = found.scores[found.scores["score"] == "normalised MSE"].set_index("key")["value"]
    foretold = 0.9 - 0.1 * errors.loc[found.truth["key"]].to_numpy()
    told = found.truth.assign(select_accuracy=foretold, accuracy=1 - foretold, test_accuracy=1 - foretold)
    told.to_csv(run.path / "rank/truth.csv", index=False)
    assert call() == pytest.approx([1.0] * len(tables), abs=0.05)
    (run.path / "blockwise/weights_learned.json").unlink()
    plan = json.loads((run.path / "rank/plan.json").read_text())
    (run.path / "rank/plan.json").write_text(json.dumps(plan | {"teacher": "another"}))
    with pytest.raises(SettingError, match="with the teacher of this search"):
        call()


def test_more_archs_go_on_from_those_that_are_trained(
    ask: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    some = {"scores": ("macs", "params", "random"), "primary": "macs", "seeds": 1}
    first = ask(**some)  # type: ignore[operator]
    trained: list[str] = []
    real = StandaloneTraining.train_in

    def counting(self: StandaloneTraining, *rest: Any) -> Any:
        trained.append(self.arch.key)
        return real(self, *rest)

    monkeypatch.setattr(StandaloneTraining, "train_in", counting)
    more = ask(**some | {"in_band": 10, "overall": 5})  # type: ignore[operator]
    assert more.archs["group"].value_counts().to_dict() == {"band 1": 10, "band 2": 10, OVERALL: 5}
    pd.testing.assert_frame_equal(more.archs.head(20), first.archs)
    assert not more.archs["key"].duplicated().any() and set(trained) == set(more.archs["key"].iloc[20:])
    both = first.truth.merge(more.truth, on=["key", "seed"])
    assert len(more.truth) == 25 and (both["accuracy_x"] == both["accuracy_y"]).all() and len(both) == 20
    assert more.scores.groupby("score")["key"].nunique().tolist() == [25, 25, 25]
    assert (more.summary["archs"] == 25).all()
    plan = json.loads((tmp_path / "run/rank/plan.json").read_text())
    assert plan["grown"] == [[8, 4]] and plan["rank.in_band"] == 10
    trained.clear()
    again = ask(**some | {"in_band": 10, "overall": 5})  # type: ignore[operator]
    pd.testing.assert_frame_equal(again.archs, more.archs)
    third = ask(**some | {"in_band": 11, "overall": 5})  # type: ignore[operator]
    pd.testing.assert_frame_equal(third.archs.head(25), more.archs)
    assert len(trained) == 2 and len(third.truth) == 27
    for name, number in (("in_band", 10), ("overall", 4)):
        with pytest.raises(SettingError, match=f"rank.{name}={number}: expected at least {number + 1}"):
            ask(**some | {"in_band": 11, "overall": 5} | {name: number})  # type: ignore[operator]
    with pytest.raises(SettingError, match="was started with"):
        ask(**some | {"in_band": 12, "overall": 5, "epochs": 2})  # type: ignore[operator]


def test_what_was_named_in_advance_stays(ask: object, tmp_path: Path) -> None:
    ask()  # type: ignore[operator]
    for change in (
        {"primary": "supernet_kl"},
        {"control": "macs"},
        {"epochs": 2},
        {"seed": 1},
        {"band": 0.19},
        {"images": 24},
    ):
        with pytest.raises(SettingError, match="was started with"):
            ask(**change)  # type: ignore[operator]
    table = tmp_path / "run" / "rank" / "truth.csv"
    table.write_text(table.read_text() + "f00,0" + ",0.5" * 7 + "\n")
    with pytest.raises(SettingError, match="another space, seed or sample"):
        ask()  # type: ignore[operator]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"scores": ("nmes", "macs")}, "did you mean 'nmse'"),
        ({"primary": "ridge"}, "rank.primary"),
        ({"control": "nmse", "primary": "macs"}, "choose a size control"),
        ({"control": "macs", "primary": "macs"}, "a score other than rank.control"),
        ({"net": None}, "a supernet, for normalised MSE, supernet KL"),
        ({"seeds": 0}, "rank.seeds"),
        ({"method": "fitnet"}, "a method that only uses stored logits"),
        ({"epochs": 0}, "rank.epochs"),
        ({"run": None}, "a folder"),
        ({"teacher": ["resnet18", "resnet34"]}, "several teachers can retrain a student, not rank"),
        ({"teacher": torch.nn.Identity()}, "nas_kd.load_teacher returns one"),
        ({"bands": (400,)}, "rank.bands"),
    ],
)
def test_mistakes_are_found_before_anything_is_trained(
    ask: object, more: dict[str, object], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verb, "train_many", None)
    with pytest.raises(SettingError, match=message):
        given = {"teacher": lambda: pytest.fail("the teacher is made before this is found")} | more
        ask(**given)  # type: ignore[operator]


def test_stages_that_cannot_be_paired_are_found_before_anything_is_trained(
    monkeypatch: pytest.MonkeyPatch, teacher: Teacher, space: ElasticSpace, data: Data, tmp_path: Path
) -> None:
    coarse = load_teacher(teacher.network, num_classes=3, in_chans=1, stages=["layer3.0"], name="coarse")
    monkeypatch.setattr(verb, "train_many", None)
    with pytest.raises(SettingError, match="teacher.stages"):
        rank(
            space,
            coarse,
            data,
            run=tmp_path / "run",
            scores=("nmse", "params"),
            primary="nmse",
            control="params",
            net=Supernet(space, 3, 1),
            **SAMPLE,
            **TRAINING,
        )
    assert not list(tmp_path.rglob("truth.csv"))


def test_a_score_of_your_own_and_one_that_fails_for_some(ask: object) -> None:
    mine = Score("mine", lambda bench, archs: [float("nan"), *(float(int(a.key, 16)) for a in archs[1:])], True)
    found = ask(scores=(mine, "macs", "params"), primary="mine")  # type: ignore[operator]
    row = found.summary.set_index("score").loc["mine"]
    assert row["without_score"] == 1 and np.isfinite(row["band_tau"])  # of the others
    lost = f"mine has no finite value for 1 archs, which it cannot rank: {found.archs['key'].iloc[0]}."
    assert lost in found.verdict


def test_the_regression_waits_for_enough_truth_and_learns_anew(ask: object, tmp_path: Path) -> None:
    found = ask(scores=("donna", "macs", "params"), primary="macs", control="params")  # type: ignore[operator]
    assert "DONNA regression" in set(found.summary["score"])
    other = ask(scores=("donna", "macs", "params"), primary="macs", control="params", seeds=3)  # type: ignore[operator]
    values = [table.scores[table.scores["score"] == "DONNA regression"]["value"].to_numpy() for table in (found, other)]
    assert not np.array_equal(*values)
    table = tmp_path / "run/rank/truth.csv"
    rows = other.truth[other.truth["key"].isin(other.archs["key"].head(15))]
    rows.to_csv(table, index=False)
    few = ask(scores=("donna", "macs", "params"), primary="macs", control="params", train=False)  # type: ignore[operator]
    assert "DONNA regression" not in set(few.summary["score"]) and len(few.summary) == 2
    said = (tmp_path / "run/log.txt").read_text()
    assert "DONNA regression is left out: it needs at least 16 trained archs to learn from" in said


def test_a_band_with_too_few_trained_archs_is_said_and_not_judged(
    ask: Callable[..., RankResult], tmp_path: Path
) -> None:
    found = ask(seeds=1, scores=("macs", "params", "minus_depth"), primary="macs")
    assert not any("left out" in line for line in found.verdict) and found.summary["band_tau"].notna().any()
    first, second = (found.archs[found.archs["group"] == f"band {number}"]["key"] for number in (1, 2))
    for lost, left in (([second.iloc[0]], "Band 2"), ([first.iloc[0], second.iloc[0]], "Band 1")):
        rows = found.truth[~found.truth["key"].isin(lost)]
        rows.to_csv(tmp_path / "run/rank/truth.csv", index=False)
        again = ask(seeds=1, scores=("macs", "params", "minus_depth"), primary="macs", train=False)
        assert f"{left} is left out: it has 7 trained archs, and a rank correlation needs 8" in again.verdict[0]
        assert "tau band 2" not in again.summary
    assert again.summary["band_tau"].isna().all() and any("inside bands" in line for line in again.verdict)
    assert again.summary["tau"].is_monotonic_decreasing


def test_scores_of_another_supernet_are_not_mixed(
    ask: Callable[..., RankResult], space: ElasticSpace, data: Data, tmp_path: Path
) -> None:
    scores = ("supernet_kl", "nmse", "macs", "params")
    first = ask(seeds=1, scores=scores)
    other = Supernet(space, data.num_classes, data.in_chans, seed=9)
    with pytest.raises(SettingError, match=r"blockwise was made with: supernet"):
        ask(seeds=1, scores=scores, net=other)
    given = {"seeds": 1, "scores": ("supernet_kl", "macs", "params"), "primary": "supernet_kl", "run": tmp_path / "kl"}
    ask(**given)
    with pytest.raises(SettingError, match=r"rank\.supernet.*scores\.csv.*to measure all scores again"):
        ask(**given, net=other)
    with pytest.raises(SettingError, match=r"blockwise\.lr"):
        ask(seeds=1, scores=scores, blockwise={"epochs": 1, "batch_size": 16, "calibration_images": 48, "lr": 0.5})
    pd.testing.assert_frame_equal(ask(seeds=1, scores=scores).scores, first.scores)
    for name in ("archs.csv", "truth.csv", "scores.csv", "scores.json", "plan.json"):  # copied, without the weights
        Run(tmp_path / "copy")
        (tmp_path / "copy/rank").mkdir(exist_ok=True)
        shutil.copy(tmp_path / "run/rank" / name, tmp_path / "copy/rank" / name)
    judged = ask(seeds=1, scores=scores, run=tmp_path / "copy", net=lambda: pytest.fail("nothing is left to measure"))
    pd.testing.assert_frame_equal(
        judged.summary.drop(columns="preparation_minutes"), first.summary.drop(columns="preparation_minutes")
    )


def test_the_truth_is_that_of_retrain(
    space: ElasticSpace, teacher: Teacher, data: Data, runtime: Runtime, tmp_path: Path
) -> None:
    cache = ViewCache.open(tmp_path, teacher, data, epochs=1)
    arch = space.sample(3)
    setup = TrainingSetup(cache, data, space, None, runtime)
    found = StandaloneTraining(setup, arch, 1, HOW).train_in(None)
    student = retrain(
        arch,
        cache,
        data,
        space=space,
        method="kd",
        seed=1,
        epochs=1,
        batch_size=16,
        lr=0.05,
        warmup_epochs=0.25,
        runtime=runtime,
    )
    metrics = student.info["metrics"]  # type: ignore[index]
    assert found["test_accuracy"] == metrics["test_accuracy"]  # type: ignore[index,call-overload]
    total = len(data.select) + len(data.test)
    shares = found["select_accuracy"] * len(data.select) + found["test_accuracy"] * len(data.test)
    assert found["accuracy"] == pytest.approx(shares / total)
    averaged = StandaloneTraining(setup, arch, 1, replace(HOW, ema=0.9)).train_in(None)
    assert averaged["test_loss"] != found["test_loss"]


def test_the_archs_of_another_ranking_are_taught_anew(ask: object, tmp_path: Path) -> None:
    first = ask(scores=("macs", "params"), primary="macs", seeds=1)  # type: ignore[operator]
    given = tmp_path / "run" / "rank" / "archs.csv"
    with pytest.raises(SettingError, match=r"rank\.limit=12"):
        RankConfig(limit=12)
    longer = ask(  # type: ignore[operator]
        scores=("macs", "params"),
        primary="macs",
        seeds=1,
        run=tmp_path / "longer",
        archs=given,
        limit=12,
        epochs=2,
    )
    assert list(longer.archs["key"]) == list(first.archs["key"].head(12)) and len(longer.truth) == 12
    pd.testing.assert_frame_equal(longer.archs, first.archs.head(12))
    with pytest.raises(SettingError, match="check the path"):
        ask(run=tmp_path / "nothing", archs=tmp_path / "nothing.csv")  # type: ignore[operator]
    with pytest.raises(SettingError, match="rank.limit=7: expected an integer of at least 8"):
        ask(run=tmp_path / "few", archs=given, limit=7)  # type: ignore[operator]
    with pytest.raises(SettingError, match="it lacks group, arch"):
        ask(run=tmp_path / "no", archs=tmp_path / "run" / "rank" / "truth.csv")  # type: ignore[operator]
    foreign = given.read_text().replace(first.archs["arch"].iloc[0][12:22], "0" * 10)
    given.write_text(foreign)
    with pytest.raises(SettingError, match="space"):
        ask(run=tmp_path / "foreign", archs=given)  # type: ignore[operator]


def _work(run: Path, folder: Path, space: ElasticSpace, data: Data, keys: list[int], queue: object) -> None:
    torch.set_num_threads(1)
    archs = [space.sample(key) for key in keys]
    setup = TrainingSetup(ViewCache.load(folder), data, space, Run(run), Runtime("cpu"))
    done = int(trainings_of(archs, 2, setup, HOW, Run(run)).train()["trained"])
    queue.put(done)  # type: ignore[attr-defined]


@pytest.mark.usefixtures("one_thread")
def test_two_processes_share_the_trainings_and_do_none_twice(
    space: ElasticSpace, teacher: Teacher, data: Data, tmp_path: Path
) -> None:
    cache = ViewCache.open(tmp_path / "cache", teacher, data, epochs=1)
    cache.split_logits("test")
    distinct = {space.sample(seed).key: seed for seed in range(20)}
    run, keys = tmp_path / "run", list(distinct.values())[:8]
    Run(run)
    context = clean_forks()
    queue = context.Queue()
    started = [context.Process(target=_work, args=(run, cache.folder, space, data, keys, queue)) for _ in range(2)]
    for process in started:
        process.start()
    counts = [queue.get(timeout=120) for _ in started]
    for process in started:
        process.join()
    table = ground_truth(Run(run), "accuracy").frame()
    assert len(table) == 16 == sum(counts) and not table.duplicated(["key", "seed"]).any()
    # what each did is what it would have done alone
    row = table[(table["key"] == space.sample(keys[5]).key) & (table["seed"] == 1)].iloc[0]
    setup = TrainingSetup(cache, data, space, None, Runtime("cpu"))
    alone = StandaloneTraining(setup, space.sample(keys[5]), 1, HOW).train_in(None)
    assert row["accuracy"] == alone["accuracy"] and row["test_loss"] == alone["test_loss"]


def options(folder: Path, **more: object) -> list[str]:
    given = {
        "run": folder,
        "space": "digits",
        "threads": 1,
        "workers": 1,
        "data.subset": 200,
        "data.rate": 0.2,
        "data.select": 0.2,
        "data.views": 2,
        "teacher.model": "cifar_resnet8",
        "teacher.epochs": 1,
        "teacher.warmup_epochs": 0.5,
        "supernet.epochs": 1,
        "supernet.warmup_epochs": 0.5,
        "retrain.batch_size": 64,
        "rank.bands": "[25%]",
        "rank.band": 0.2,
        "rank.in_band": 8,
        "rank.overall": 4,
        "rank.epochs": 1,
        "rank.warmup_epochs": 0.5,
        "rank.scores": "[supernet_accuracy,macs,params]",
        "rank.resamples": 100,
        "rank.primary": "supernet_accuracy",
        "rank.control": "params",
    }
    return [text for name, value in (given | more).items() for text in (f"--{name}", str(value))]


def test_the_command_ranks_from_settings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "run"
    assert main(["rank", *options(folder)]) == 0
    assert "supernet accuracy" in capsys.readouterr().out
    assert len(pd.read_csv(folder / "rank" / "truth.csv")) == 24
    assert main(["rank", str(folder), "--rank.primary", "macs"]) == 2
    assert "was started with" in capsys.readouterr().err


@pytest.mark.slow
def test_two_commands_started_at_once_share_a_run(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "nas_kd", "rank", *options(tmp_path / "run")]
    started = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    ends = [process.communicate(timeout=280) for process in started]
    assert [process.returncode for process in started] == [0, 0], ends
    truth = pd.read_csv(tmp_path / "run" / "rank" / "truth.csv")
    assert len(truth) == 24 and not truth.duplicated(["key", "seed"]).any()
    scores = pd.read_csv(tmp_path / "run" / "rank" / "scores.csv")
    assert len(scores) == 36 and not scores.duplicated(["key", "score"]).any()
    epochs = pd.read_csv(tmp_path / "run" / "teacher" / "metrics.csv")
    assert epochs["epoch"].tolist() == [1]  # one of them trained the teacher
