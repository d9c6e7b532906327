"""Every method through retrain: a student folder that holds the student alone, and the same weights after a kill."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from plain_net import Plain
from safetensors.torch import load_file
from toys import equal, state

from nas_kd import load_student, losses, retrain
from nas_kd.data import Data, load_data
from nas_kd.distill import METHODS, Classification, Decay, Distiller, Recipe, SoftTree, Term, Warmup
from nas_kd.errors import SettingError
from nas_kd.runtime.device import Runtime
from nas_kd.space import ElasticSpace
from nas_kd.supernet import Supernet
from nas_kd.teacher import Teacher
from nas_kd.train.assistants import as_teacher

SHORT: dict[str, Any] = {"epochs": 2, "batch_size": 16, "lr": 0.02, "warmup_epochs": 0.5}
SMALL: dict[str, dict[str, Any]] = {
    "bss": {"attacked": 4, "steps": 2},
    "born_again": {"generations": 2},
    "cc": {"classes": 3},
    **{name: {"base": 4} for name in ("dafl", "zskt", "dfad", "dfq")},
}


@pytest.mark.parametrize(
    "name", [name for name in sorted(set(METHODS) - {"soft_tree", "fsp", "inject"}) if not METHODS[name].texts]
)
def test_every_method_leaves_a_student_and_nothing_else(
    name: str, space: ElasticSpace, teacher: Teacher, data: Data, runtime: Runtime, tmp_path: Path
) -> None:
    arch = space.sample(seed=3)
    more: dict[str, Any] = {"assistants": [space.largest()]} if name == "takd" else {}
    teaches: Any = [teacher, teacher] if name == "multi_teacher" else teacher
    student = retrain(
        arch,
        teaches,
        data,
        space=space,
        run=tmp_path,
        runtime=runtime,
        method=name,
        test=False,
        method_settings=SMALL.get(name, {}),
        **more,
        **SHORT,
    )
    folder = tmp_path / "retrain" / arch.key / "seed_0"
    weights = load_file(folder / "student" / "weights.safetensors")
    plain = space.build(arch, data.num_classes, data.in_chans)
    assert weights.keys() == plain.state_dict().keys()
    assert equal(state(load_student(folder / "student")), state(student))
    rows = pd.read_csv(folder / "metrics.csv")
    terms = {term.name for term in Distiller(name, **SMALL.get(name, {})).recipe.terms}
    seen = rows.columns.drop(["epoch", "lr", "loss", "rate_accuracy", "rate_agreement"], errors="ignore")
    assert set(seen) <= terms and rows["epoch"].tolist() == [1, 2] and rows["rate_accuracy"].between(0, 1).all()
    assert "rate_agreement" in rows or name == "born_again"


@pytest.mark.parametrize("name", ["crd", "gan_kd", "mean_teacher", "grafting", "dfq", "ft"])
def test_a_killed_training_goes_on_with_all_that_is_trained_beside_the_student(
    name: str,
    space: ElasticSpace,
    teacher: Teacher,
    data: Data,
    runtime: Runtime,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    arch = space.sample(seed=4)
    settings: dict[str, Any] = (
        {
            "space": space,
            "runtime": runtime,
            "method": name,
            "method_settings": SMALL.get(name, {}),
            "test": False,
        }
        | SHORT
        | {"epochs": 3}
    )
    whole = retrain(arch, teacher, data, run=tmp_path / "whole", **settings)
    real, calls = Distiller.step, 0

    def stops(self: Distiller, *rest: Any, **more: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 6:
            os.kill(os.getpid(), signal.SIGINT)  # ends this step and saves the middle of the epoch
        if calls == 14:
            raise KeyboardInterrupt
        return real(self, *rest, **more)

    monkeypatch.setattr(Distiller, "step", stops)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            retrain(arch, teacher, data, run=tmp_path / "cut", **settings)
        torch.manual_seed(99)
    cut = retrain(arch, teacher, data, run=tmp_path / "cut", **settings)
    assert equal(state(whole), state(cut))


def recipe() -> Recipe:
    labels = Term("ce", Classification(0.0).loss, Decay(1.0, 0.1, 0.5), frozenset({"labels"}))
    return Recipe.of([labels, Term("kd", losses.kd, Warmup(0.9, 0.25))])


@pytest.mark.parametrize("network", ["arch", "timm", "module"])
@pytest.mark.parametrize("form", ["name", "list", "recipe"])
def test_every_form_of_a_method_on_every_kind_of_network(
    form: str, network: str, space: ElasticSpace, teacher: Teacher, data: Data, runtime: Runtime, tmp_path: Path
) -> None:
    import timm

    method: Any = {"name": "dkd", "list": [("kd", 0.9), ("sp", 3000.0)], "recipe": recipe()}[form]
    more: dict[str, Any] = {}
    if network == "arch":
        model: Any = space.sample(seed=3)
        more["space"] = space
    elif network == "timm":
        model = timm.create_model("resnet10t", num_classes=3, in_chans=1)
    else:
        model = Plain()
        more["factory"] = "plain_net:Plain"
    student = retrain(model, teacher, data, run=tmp_path, runtime=runtime, method=method, test=False, **more, **SHORT)
    rows = pd.read_csv(next((tmp_path / "retrain").glob("*/seed_0/metrics.csv")))
    terms = {"name": {"ce", "dkd"}, "list": {"kd", "sp"}, "recipe": {"ce", "kd"}}[form]
    assert set(rows.columns) == {"epoch", "lr", "loss", "rate_accuracy", "rate_agreement"} | terms
    assert rows["epoch"].tolist() == [1, 2] and rows.notna().all(axis=None)
    opened = load_student(next((tmp_path / "retrain").glob("*/seed_0/student")))
    assert equal(state(opened), state(student))


@pytest.mark.parametrize("name", ["vid", "rkd", "byot"])
def test_any_module_learns_from_features_and_keeps_no_reader(
    name: str, teacher: Teacher, data: Data, runtime: Runtime
) -> None:
    model = Plain()
    retrain(model, teacher, data, method=name, runtime=runtime, test=False, **SHORT)
    assert not any(module._forward_hooks for module in model.modules())
    assert set(model.state_dict()) == set(Plain().state_dict())


def test_a_timm_model_learns_from_features(teacher: Teacher, data: Data, runtime: Runtime, tmp_path: Path) -> None:
    import timm

    model = timm.create_model("resnet10t", num_classes=3, in_chans=1)
    with pytest.raises(SettingError, match="at"):  # its maps are smaller than any of the teacher's: 2 and 1 pixels
        retrain(model, teacher, load_data_of_32(), method="at", runtime=runtime, **SHORT | {"batch_size": 8})
    retrain(model, teacher, data, method="sp", runtime=runtime, run=tmp_path, test=False, **SHORT | {"epochs": 1})


def load_data_of_32() -> Data:
    y = torch.arange(60) % 5
    x = torch.randint(0, 255, (60, 1, 8, 8)).to(torch.uint8)
    return load_data((x, y), test=(x, y), duplicates="keep", rate=0.2, select=0.2, views=2)


def test_a_soft_tree_is_a_student(teacher: Teacher, data: Data, runtime: Runtime, tmp_path: Path) -> None:
    kwargs = {"depth": 3, "inputs": 64, "classes": 3}
    tree = retrain(
        SoftTree(**kwargs),
        teacher,
        data,
        method="soft_tree",
        run=tmp_path,
        folder="retrain/tree/seed_0",
        factory=("nas_kd.distill.tree:SoftTree", kwargs),
        runtime=runtime,
        **SHORT | {"epochs": 20, "lr": 0.3},
    )
    opened = load_student(tmp_path / "retrain/tree/seed_0/student")
    assert isinstance(opened, SoftTree) and equal(state(opened), state(tree))
    assert opened.info["metrics"]["test_accuracy"] > 0.5


def test_assistants_and_generations_teach_in_turn(
    space: ElasticSpace, teacher: Teacher, data: Data, runtime: Runtime, tmp_path: Path
) -> None:
    arch, between = space.smallest(), space.largest()
    common: dict[str, Any] = {"space": space, "runtime": runtime, "test": False, **SHORT}
    student = retrain(arch, teacher, data, run=tmp_path, method="takd", assistants=[between], **common)
    folder = tmp_path / "retrain" / arch.key / "seed_0"
    assistant = load_student(folder / "assistant_1" / "student")
    by_hand = retrain(arch, as_teacher(assistant, "assistant_1", data), data, method="kd", **common)
    alone = retrain(arch, teacher, data, method="kd", **common)
    if not equal(state(student), state(by_hand)):  # a cache of its answers is rounded to half precision
        for name, tensor in state(by_hand).items():
            torch.testing.assert_close(state(student)[name], tensor, rtol=0.05, atol=0.01)
    assert not equal(state(alone), state(by_hand))
    with pytest.raises(SettingError, match="assistants"):
        retrain(arch, teacher, data, method="takd", **common)
    again = {"generations": 1}  # no earlier one: plain distillation at temperature 1
    once = retrain(arch, teacher, data, method="born_again", method_settings=again, **common)
    plain = retrain(arch, teacher, data, method="kd", method_settings={"temperature": 1.0}, **common)
    assert equal(state(once), state(plain))
    torch.manual_seed(0)
    net = Supernet(space, num_classes=data.num_classes, in_chans=data.in_chans)
    twice = {"method_settings": {"generations": 2}, "supernet": net, "run": tmp_path / "born"} | common
    retrain(arch, teacher, data, method="born_again", **twice | {"lr": 1e-9})
    born = load_student(tmp_path / "born/retrain" / arch.key / "seed_0/generation_1/student")
    for name, tensor in net.extract(arch).state_dict().items():  # an earlier generation begins there too
        if name.endswith("weight"):
            torch.testing.assert_close(born.state_dict()[name], tensor)


def test_images_without_labels(teacher: Teacher, data: Data, runtime: Runtime) -> None:
    settings: dict[str, Any] = {"runtime": runtime, "test": False, **SHORT}
    torch.manual_seed(0)
    model = Plain()
    begun = state(model)
    retrain(model, teacher, data, unlabelled=data, **settings)
    torch.manual_seed(0)
    other = Plain()
    retrain(other, teacher, data, **settings)
    assert not equal(state(model), state(other)) and not equal(state(model), begun)
    with pytest.raises(SettingError, match=r"unlabelled=\['dkd'\]"):
        retrain(Plain(), teacher, data, unlabelled=data, method="dkd", **settings)
    with pytest.raises(SettingError, match="own batches"):
        retrain(Plain(), teacher, data, unlabelled=data, method="mean_teacher", **settings)


def test_settings_of_a_method_are_part_of_the_record(
    space: ElasticSpace, teacher: Teacher, data: Data, runtime: Runtime, tmp_path: Path
) -> None:
    common: dict[str, Any] = {"space": space, "run": tmp_path, "runtime": runtime, "method": "kd", **SHORT}
    retrain(space.smallest(), teacher, data, method_settings={"temperature": 2.0}, **common)
    with pytest.raises(SettingError, match=r"retrain\.method_settings=.*temperature': 3\.0.*temperature': 2\.0"):
        retrain(space.smallest(), teacher, data, method_settings={"temperature": 3.0}, **common)
    with pytest.raises(SettingError, match=r"kd\.heat"):
        retrain(space.smallest(), teacher, data, method_settings={"heat": 3.0}, **common)


def test_bf16_keeps_the_losses_in_fp32(space: ElasticSpace, teacher: Teacher, data: Data) -> None:
    half = Runtime("cpu", precision="bf16-mixed")
    for name in ("rkd", "crd", "kd_ls", "vid", "cs_kd"):
        student = retrain(space.smallest(), teacher, data, space=space, method=name, runtime=half, test=False, **SHORT)
        assert all(torch.isfinite(p).all() and p.dtype == torch.float32 for p in student.parameters())
