"""What a configuration asks for is refused before the first epoch, by the name of the setting."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from nas_kd.data.config import DataConfig
from nas_kd.derive.config import DeriveConfig
from nas_kd.distill import Classification
from nas_kd.errors import SettingError
from nas_kd.export import save_student
from nas_kd.pipeline.config import Config
from nas_kd.pipeline.pipeline import Pipeline
from nas_kd.pipeline.places import check_places
from nas_kd.runs.run import Run
from nas_kd.searcher.config import SearchConfig
from nas_kd.space import load_space
from nas_kd.supernet import Supernet
from nas_kd.train import save_weights, weights_hash
from nas_kd.train.config import RetrainConfig
from nas_kd.train.supernet_config import SupernetConfig
from nas_kd.train.teacher_config import TeacherConfig

home = import_module("nas_kd.pipeline.pipeline")


def pipeline(run: Path, **retrain: Any) -> Pipeline:
    teacher = TeacherConfig(model="cifar_resnet8", epochs=2)
    data = DataConfig(subset=300, rate=0.2, select=0.2)
    return Pipeline(Config(run=str(run), data=data, teacher=teacher, retrain=RetrainConfig(**retrain)))


@pytest.mark.parametrize(
    ("retrain", "field", "part"),
    [
        ({"method": "dkdd"}, "retrain.method", "dkd"),
        ({"method": "dkd", "method_settings": {"heat": 4}}, "retrain.method_settings.heat", "alpha, beta, temperature"),
        ({"method": "dkd", "method_settings": {"beta": "x"}}, "retrain.method_settings.beta", "finite number"),
        ({"method": "kd", "method_settings": {"temperature": 0}}, "retrain.method_settings.temperature", "above 0"),
        ({"method": "ce", "method_settings": {"temperature": 4}}, "retrain.method_settings.temperature", "no settings"),
        ({"method": [("kd", 1.0)], "method_settings": {"temperature": 4}}, "retrain.method", "no settings"),
        ({"method": [("kdd", 1.0)]}, "retrain.method", "did you mean 'kd'"),
        ({"method": "takd"}, "retrain.method", "assistants"),
        ({"method": "soft_tree"}, "retrain.method", r"--retrain\.rivals '\[soft_tree\]'"),
        ({"method": "multi_teacher"}, "teacher.others", "name more teachers"),
        (
            {"method": "inject", "method_settings": {"layers": "a="}},
            "retrain.method_settings.layers",
            "STUDENT=TEACHER",
        ),
        (
            {"method": "privileged", "method_settings": {"view": "no:f"}},
            "retrain.method_settings.view",
            "module:object",
        ),
    ],
)
def test_methods(retrain: dict[str, Any], field: str, part: str, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=part) as caught:
        pipeline(tmp_path, **retrain).check()
    assert caught.value.field == field
    assert not (tmp_path / "config.yaml").exists()


def test_an_ensemble_of_several_input_sizes_is_refused_before_anything_trains(tmp_path: Path) -> None:
    made = Pipeline(replace(pipeline(tmp_path, ensemble=2).config, derive=DeriveConfig(resolutions=[4, 8])))
    with pytest.raises(SettingError, match=r"retrain\.ensemble=2.*\(4, 8\): members share their input"):
        made.check()


@pytest.mark.parametrize(
    ("retrain", "live"),
    [
        ({"method": "kd"}, False),
        ({"method": "sp"}, True),
        ({"method": "bss"}, True),
        ({"method": "ddgsd"}, False),
        ({"method": "kd", "mixup": 0.2}, True),
        ({"method": "ce", "cutmix": 1.0}, False),
    ],
)
def test_what_no_cache_serves_is_taught_live(
    retrain: dict[str, Any], live: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Pipeline, "teacher", "the teacher")
    monkeypatch.setattr(Pipeline, "cache", "its answers")
    assert pipeline(tmp_path, **retrain).teaching == ("the teacher" if live else "its answers")


def test_the_manner_reaches_students_and_short_trainings(tmp_path: Path) -> None:
    made = pipeline(tmp_path, optimizer="adamw", schedule="step", milestones=[10, 20], ema=0.9)
    assert made.training | {"optimizer": "adamw", "ema": 0.9, "milestones": [10, 20]} == made.training
    assert made.training["mixup"] == 0.0
    with pytest.raises(SettingError, match=r"retrain\.optimizer='adamm'.*did you mean 'adam'"):
        pipeline(tmp_path, optimizer="adamm").check()
    with pytest.raises(SettingError, match=r"retrain\.mixup=0\.2"):
        pipeline(tmp_path, method="dkd", mixup=0.2).check()


def test_settings_and_weights_reach_the_recipe(tmp_path: Path) -> None:
    made = pipeline(tmp_path, method="born_again", method_settings={"generations": 2})
    assert made.recipe.generations == 2
    both = pipeline(tmp_path, method=[("ce", 0.5), ("kd", 2.0)]).recipe.terms
    assert [(term.name, term.weight) for term in both] == [("ce", 0.5), ("kd", 2.0)]


@pytest.mark.parametrize(("others", "method"), [((), "kd_ls"), (("resnet18=pretrained",), "kd")])
def test_students_of_a_round_learn_from_its_one_teacher(
    others: tuple[str, ...], method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, Any] = {}
    monkeypatch.setattr(home, "teacher_rounds", lambda net, teacher, data, rounds, **more: given.update(more))
    made = Pipeline(
        Config(
            run=str(tmp_path),
            space="digits",
            teacher=TeacherConfig(model="cifar_resnet8", others=others or None),
            search=SearchConfig(rounds_of_teachers=2),
            retrain=RetrainConfig(method="multi_teacher" if others else "kd_ls"),
        )
    )
    task = Classification()
    known = {"further": [*others], "supernet": None, "teacher": None, "data": None, "task": task, "runtime": None}
    vars(made).update(known, upper={})
    _ = made.rater
    assert given["training"].method == method


@pytest.mark.parametrize("paths", [0, 2])
def test_a_board_without_paths_is_no_file_of_archs(paths: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[SearchConfig] = []
    monkeypatch.setattr(home, "search", lambda net, teacher, data, tables, config, **more: given.append(config))
    alone = TeacherConfig(model=None)
    made = Pipeline(Config(run=str(tmp_path), space="digits", teacher=alone, search=SearchConfig(max_macs=100)))
    data = SimpleNamespace()
    known = {"supernet": None, "data": data, "task": Classification(), "runtime": None, "further": []}
    vars(made).update(known, upper={"macs": 100}, lower={})
    board = tmp_path / "supernet" / "board.json"
    board.parent.mkdir(parents=True)
    board.write_text(json.dumps({"paths": [{"arch": {}}] * paths}))
    made.searched()
    assert [config.first for config in given] == [str(board) if paths else None]


OWN = """
from nas_kd.teacher.cifar_resnet import CifarResNet

def built(num_classes=10, in_chans=1):
    network = CifarResNet(8, num_classes, in_chans)
    del network.factory
    return network
"""


@pytest.mark.parametrize("ensemble", [0, 2])
def test_an_ensemble_of_cuts_that_a_users_function_builds_is_refused_first(
    ensemble: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_network.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_network", raising=False)  # of another folder
    teacher = TeacherConfig(model="own_network:built", epochs=2)
    config = pipeline(tmp_path / "run", ensemble=ensemble).config
    made = Pipeline(replace(config, teacher=teacher, plan=False))
    if not ensemble:
        made.check()
        return
    with pytest.raises(SettingError, match=r"retrain\.ensemble=2.*cuts of own_network:built.*installed package"):
        made.check()


def after(run: Path, engine: str, search: SearchConfig | None = None, **retrain: Any) -> Pipeline:
    """A pipeline in a run whose first search was by an engine and, where that is exact, kd, within 100 MACs."""
    method = repr("kd" if engine == "exact" else "ce")
    inputs = {"search.engine": engine, "search.method": method, "search.training": {}, "search.caps": {"macs": 100}}
    inputs |= {"search.max_latency_ms": None, "search.floors": {}, "search.weights": None}
    kept = Run(run)
    kept.record_env({})
    kept.stage("search", inputs)
    teacher = TeacherConfig(model="cifar_resnet8", epochs=2)
    search = search or SearchConfig(max_macs=100)
    made = Pipeline(
        Config(run=str(run), space="digits", teacher=teacher, search=search, retrain=RetrainConfig(**retrain))
    )
    vars(made).update(upper={"macs": 100}, lower={})  # what data and space would say
    return made


@pytest.mark.parametrize(
    ("weights", "retrain", "folder"),
    [
        ([1000.0, 1.0, 1.0], {}, "search/macs_100_weights_1e03_1_1"),
        ("learned", {}, "search/macs_100_weights_learned"),
        (None, {"method": [("ce", 1.0), ("sp", 3e6)]}, "search/ce_1_sp_3e06_macs_100"),
        (None, {"method": "dkd", "method_settings": {"beta": 1e16}}, "search/dkd_beta_1e16_macs_100"),
        (None, {"method": "dkd", "method_settings": {"layers": "1, 2"}}, "search/dkd_layers_1_2_macs_100"),
    ],
)
def test_any_number_makes_a_legal_folder(
    weights: list[float] | str | None, retrain: dict[str, Any], folder: str, tmp_path: Path
) -> None:
    made = after(tmp_path, "exact", SearchConfig(max_macs=100, weights=weights), **retrain)
    assert made.search_folder == folder
    assert Run(tmp_path).stage(folder, {}).name == folder  # a name that is not legal raises
    assert after(tmp_path, "exact").search_folder == "search"


@pytest.mark.parametrize(
    ("begun", "now", "folder"),
    [
        (None, None, "search"),
        (None, ["kl"], "search"),
        (["kl", "macs"], ["kl", "macs"], "search"),
        (None, ["kl", "macs"], "search/macs_100_kl_macs"),
        (["kl", "macs"], None, "search/macs_100_kl"),
    ],
)
def test_other_objectives_have_their_own_folder(
    begun: list[str] | None, now: list[str] | None, folder: str, tmp_path: Path
) -> None:
    made = after(tmp_path, "exact", SearchConfig(max_macs=100, objectives=now))
    stage = tmp_path / "search" / "stage.json"
    record = json.loads(stage.read_text())
    if begun is not None:
        stage.write_text(json.dumps(record | {"inputs": record["inputs"] | {"search.objectives": begun}}))
    assert made.search_folder == folder


def test_two_methods_after_a_search_without_any_do_not_share_a_folder(tmp_path: Path) -> None:
    exact = SearchConfig(max_macs=100, engine="exact")
    made = [after(tmp_path, "nsga2", exact, method=method) for method in ("kd_ls", "dkd")]
    assert [one.search_folder for one in made] == ["search/exact_kd_ls_macs_100", "search/exact_dkd_macs_100"]
    assert [one.other_method for one in made] == ["kd_ls", "dkd"]  # nor do their students
    first = after(tmp_path, "nsga2", SearchConfig(max_macs=100, engine="nsga2"), method="dkd")
    assert (first.search_folder, first.other_method) == ("search", "")


def with_supernet(run: Path, **supernet: Any) -> Pipeline:
    data = DataConfig(subset=300, rate=0.2, select=0.2)
    alone = TeacherConfig(model=None)
    settings = SupernetConfig(**supernet)
    return Pipeline(Config(space="digits", run=str(run), data=data, teacher=alone, supernet=settings))


def test_a_supernet_of_given_weights_is_used_as_it_is(tmp_path: Path) -> None:
    given = Supernet(load_space("digits"), 10, 1, seed=5)
    save_weights(given, tmp_path / "given.safetensors")
    made = with_supernet(tmp_path / "run", epochs=0, checkpoint=str(tmp_path / "given.safetensors"))
    made.check()
    assert weights_hash(made.supernet) == weights_hash(given)
    inputs = json.loads((tmp_path / "run/supernet/stage.json").read_text())["inputs"]
    assert len(inputs["supernet.checkpoint"]) == 12 and inputs["supernet.epochs"] == 0


def test_the_data_are_normalised_as_a_given_students(tmp_path: Path) -> None:
    network = Supernet(load_space("digits"), 10, 1, seed=5).extract(load_space("digits").largest())
    save_student(network, tmp_path / "student", info={"mean": [0.25], "std": [0.5]})
    made = with_supernet(tmp_path / "run", epochs=0, checkpoint=str(tmp_path / "student"))
    own = made.images
    assert (made.data.mean, made.data.std) == ((0.25,), (0.5,)) != (own.mean, own.std)
    assert made.data.fingerprint != own.fingerprint


@pytest.mark.parametrize("epochs", [0, 2])
def test_weights_of_another_supernet_are_refused_at_once(epochs: int, tmp_path: Path) -> None:
    save_weights(Supernet(load_space("resnet_cifar"), 10, 1), tmp_path / "other.safetensors")
    with pytest.raises(SettingError, match="weights of digits") as caught:
        with_supernet(tmp_path / "run", epochs=epochs, checkpoint=str(tmp_path / "other.safetensors")).check()
    assert caught.value.field == "supernet.checkpoint"
    assert not (tmp_path / "run/config.yaml").exists()


def test_a_teacher_that_is_the_space_has_its_own_weights(tmp_path: Path) -> None:
    teacher = TeacherConfig(model="cifar_resnet8", epochs=2)
    with pytest.raises(SettingError, match=r"^supernet\.checkpoint='x'.*null where the space is the teacher"):
        Config(run=str(tmp_path), teacher=teacher, supernet=SupernetConfig(checkpoint="x"))


def test_weights_that_are_not_there_are_missed_early(tmp_path: Path) -> None:
    config = with_supernet(tmp_path / "run", epochs=0, checkpoint=str(tmp_path / "absent")).config
    with pytest.raises(SettingError, match=r"^supernet\.checkpoint=.*does not exist"):
        check_places(config)
