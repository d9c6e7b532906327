"""DFA: softmax weights over the blocks of a teacher's stage, learned on held-out images against two paths."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from toy import BATCH, Toy, bound, images, teacher

from nas_kd.distill import Classification, Distiller, pair_of
from nas_kd.distill.aggregation import HELD_OUT, Aggregation, still_statistics
from nas_kd.errors import SettingError
from nas_kd.nn.output import Output
from nas_kd.teacher import Teacher, TeacherEnsemble, load_teacher
from nas_kd.teacher.cifar_resnet import CifarResNet

SIZE = (3, 16, 16)


@pytest.fixture
def resnet() -> Teacher:
    torch.manual_seed(0)
    return load_teacher("cifar_resnet20", num_classes=4)


@pytest.fixture
def student() -> CifarResNet:
    torch.manual_seed(1)
    return CifarResNet(8, 4)


def dfa(student: torch.nn.Module, source: Any, **settings: Any) -> Distiller:
    distiller = Distiller("dfa", Classification(0.0), **settings)
    return distiller.bind(pair_of(student, distiller.recipe, source, SIZE, 4, BATCH))


def module_of(distiller: Distiller) -> Aggregation:
    module = distiller.trained["dfa"]
    assert isinstance(module, Aggregation)
    return module


def batch_of(seed: int = 0) -> Any:
    x = torch.randn(BATCH, *SIZE, generator=torch.Generator().manual_seed(seed))
    return images()._replace(x=x)


def outputs(student: CifarResNet, source: Teacher, x: torch.Tensor) -> tuple[Output, Output]:
    return student.forward_stages(x), source.forward_stages(x)


def test_every_block_of_a_stage_is_read_and_a_weight_of_one_is_a_hint(student: CifarResNet, resnet: Teacher) -> None:
    module = module_of(dfa(student, resnet))
    assert module.groups == [3, 3, 3]  # ResNet-20 has three blocks a stage
    assert [tap.path for tap in resnet.taps or ()] == [f"layer{s}.{b}" for s in (1, 2, 3) for b in range(3)]
    assert all(torch.allclose(share, torch.full((3,), 1 / 3)) for share in module.shares)
    x = batch_of().x
    ours, theirs = outputs(student, resnet, x)
    means = [torch.stack(theirs.stages[3 * s : 3 * s + 3]).mean(0) for s in range(3)]
    for one, other in zip(module.aggregated(theirs), means, strict=True):
        torch.testing.assert_close(one, other)
    for number, score in enumerate(module.scores.net.parameters()):
        score[number] = 200.0  # block 1 of stage 1, 2 of 2, 3 of 3
    chosen = [theirs.stages[3 * s + s] for s in range(3)]
    hints = sum(F.mse_loss(module.to_teacher[s](ours.stages[s]), chosen[s]) for s in range(3))
    torch.testing.assert_close(module(ours, theirs), hints)


def test_the_weights_move_by_held_out_images_alone_and_the_student_by_the_others(
    student: CifarResNet, resnet: Teacher
) -> None:
    distiller = dfa(student, resnet, lr=0.1)
    module = module_of(distiller)
    batch = batch_of()
    held = batch.index % HELD_OUT == 0
    student.train()

    def moved(changed: torch.Tensor) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Take the first step with other images in some rows; return weights and gradients."""
        torch.manual_seed(0)
        fresh = dfa(CifarResNet(8, 4), resnet, lr=0.1)
        model = fresh._pair.model.eval()  # type: ignore[union-attr]  # statistics of the batch would mix its images
        x = batch.x.clone()
        x[changed] = 0.0
        fresh.step(batch._replace(x=x), 0.0)
        return module_of(fresh).shares, [p.grad.clone() for p in model.parameters() if p.grad is not None]

    none = torch.zeros_like(held)
    shares, gradients = moved(none)
    assert any((share - 1 / 3).abs().max() > 0.01 for share in shares)
    by_others, same = moved(~held), moved(held)
    assert all(torch.equal(one, other) for one, other in zip(shares, by_others[0], strict=True))
    assert any(not torch.equal(one, other) for one, other in zip(gradients, by_others[1], strict=True))
    for one, other in zip(gradients, same[1], strict=True):  # the weights differ, from which they learn
        assert one.shape == other.shape
    assert any(not torch.equal(one, other) for one, other in zip(shares, same[0], strict=True))
    assert not any(parameter.requires_grad for parameter in module.scores.net.parameters())


def test_the_bridge_is_both_paths(student: CifarResNet, resnet: Teacher) -> None:
    """By hand: squared distances of connected features, and the label loss of the student run on from each stage."""
    module = module_of(dfa(student, resnet))
    student.eval()
    batch = batch_of()
    ours, theirs = outputs(student, resnet, batch.x)
    rows = torch.arange(BATCH) % 2 == 0
    parts = []
    for number, feature in enumerate(module.aggregated(theirs, rows)):
        parts.append(F.mse_loss(module.to_teacher[number](ours.stages[number][rows]), feature))
        logits = student.forward_after(module.to_student[number](feature), student.block_names[number])
        parts.append(F.cross_entropy(logits, batch.y[rows]))
    found = module.bridge(ours, theirs, batch.y, batch.x, rows, learns=True)
    torch.testing.assert_close(found, torch.stack(parts).sum())


def test_a_block_that_says_the_class_is_found(student: CifarResNet, resnet: Teacher) -> None:
    """Of three features of a stage two are noise; in the third each class has its own map."""
    distiller = dfa(student, resnet, lr=0.05)
    module = module_of(distiller)
    batch = batch_of()
    maps = torch.randn(4, 16, 16, 16, generator=torch.Generator().manual_seed(5))
    student.train()
    optimiser = torch.optim.Adam([*student.parameters(), *module.parameters()], lr=0.005)
    for step in range(25):
        noise = torch.Generator().manual_seed(step)
        _, theirs = outputs(student, resnet, batch.x)
        first, last = (torch.randn(theirs.stages[0].shape, generator=noise) for _ in range(2))
        optimiser.zero_grad()
        planted = theirs._replace(stages=[first, maps[batch.y], last, *theirs.stages[3:]])
        module.search(student.forward_stages(batch.x), planted, batch.y, batch).backward()
        optimiser.step()
    assert int(module.shares[0].argmax()) == 1 and float(module.shares[0][1]) > 0.4


def test_statistics_of_the_student_stay_while_it_is_run_on() -> None:
    model = Toy().train()
    before = model.bn1.running_mean.clone()
    with still_statistics(model):
        model(images().x)
    assert torch.equal(model.bn1.running_mean, before) and model.bn1.momentum == 0.1
    model(images().x)
    assert not torch.equal(model.bn1.running_mean, before)


def test_what_it_cannot_do_is_said() -> None:
    with pytest.raises(SettingError, match=r"dfa\.first=1"):
        Distiller("dfa", Classification(0.0), first=1.0)
    with pytest.raises(SettingError, match=r"dfa\.lr=0"):
        Distiller("dfa", Classification(0.0), lr=0.0)
    with pytest.raises(SettingError, match="one live teacher"):
        bound("dfa", Toy(), TeacherEnsemble([teacher(1), teacher(2)]))
