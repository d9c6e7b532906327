"""Trees as rivals, and several teachers, from a configuration: what they need is said before anything trains."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import nas_kd
from nas_kd.data.config import DataConfig
from nas_kd.distill import SoftTree
from nas_kd.errors import SettingError
from nas_kd.export.handover import factory_of
from nas_kd.pipeline.config import Config
from nas_kd.pipeline.given import Given
from nas_kd.pipeline.ready_made import check_rivals
from nas_kd.pipeline.tree_rival import soft_tree
from nas_kd.searcher.config import SearchConfig
from nas_kd.teacher import build_model, save_weights
from nas_kd.train.config import RetrainConfig
from nas_kd.train.teacher_config import TeacherConfig


def config(**settings: Any) -> Config:
    data = DataConfig(subset=300, rate=0.2, select=0.2)
    given = Config(data=data, teacher=TeacherConfig(model="cifar_resnet8"), search=SearchConfig(max_macs="1000M"))
    return replace(given, **settings)


def test_a_tree_is_a_rival_of_its_own_method(tmp_path: Path) -> None:
    given = Given(config())
    rival = soft_tree(given, "soft_tree=3")
    tree, again, other = rival.make(0), rival.make(0), rival.make(1)
    assert isinstance(tree, SoftTree) and len(tree.leaves) == 8
    assert torch.equal(tree.nodes.weight, again.nodes.weight) and not torch.equal(tree.nodes.weight, other.nodes.weight)
    assert rival.cost.macs >= 7 * 64 and rival.method == "soft_tree" and rival.key == "soft_tree-3"
    factory, arguments = factory_of(tree, given.data, None, None, needed=True)
    info = {"factory": factory, "factory_kwargs": dict(arguments or {})}
    loaded = nas_kd.load_student(nas_kd.save_student(tree, tmp_path / "student", info=info))
    x = next(iter(given.data.test.clean(8))).x
    with torch.no_grad():
        assert torch.equal(loaded(x), tree(x))


def test_a_tree_that_cannot_be_is_refused() -> None:
    for text in ("soft_tree=0", "soft_tree=13", "soft_tree=deep", "soft_tree=-1"):
        with pytest.raises(SettingError, match=r"retrain\.rivals.*soft_tree=DEPTH"):
            check_rivals(Given(config(retrain=RetrainConfig(rivals=(text,)))))
    alone = config(space="digits", teacher=TeacherConfig(model=None))
    with pytest.raises(SettingError, match="learns from a teacher"):
        soft_tree(Given(alone), "soft_tree")
    small = config(search=SearchConfig(max_macs="1000M", max_params="12000"))
    with pytest.raises(SettingError, match="within the budget, 12,000 params; it has 19,135"):
        soft_tree(Given(small), "soft_tree")


def test_further_teachers_are_loaded_with_their_weights(tmp_path: Path) -> None:
    network = build_model("cifar_resnet14", num_classes=10, in_chans=1)
    save_weights(network, tmp_path / "own.safetensors")
    others = (f"cifar_resnet14={tmp_path / 'own.safetensors'}",)
    (teacher,) = Given(config(teacher=TeacherConfig(model="cifar_resnet8", others=others))).further
    x = torch.randn(2, 1, 8, 8)
    with torch.no_grad():
        assert torch.allclose(teacher.network(x), network.eval()(x), atol=1e-5)
    with pytest.raises(SettingError, match=r"teacher\.others='resnet18'.*write resnet18=FILE"):
        TeacherConfig(model="cifar_resnet8", epochs=1, others=("resnet18",)).need_weights()
    missing = TeacherConfig(model="cifar_resnet8", others=(f"cifar_resnet14={tmp_path / 'no.pt'}",))
    with pytest.raises(SettingError, match=r"existing file"):
        _ = Given(config(teacher=missing)).further
