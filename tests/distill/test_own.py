"""A network as its own teacher: averages, pairs, views, exits, peers."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from toy import CLASSES, beside, bound, fit, images, student, teacher

from nas_kd.data import Batch
from nas_kd.distill import Distiller, pair_of
from nas_kd.distill.own import MeanTeacher, Privileged
from nas_kd.distill.peers import entropy, fresh, graft, grafting_weight
from nas_kd.errors import SettingError
from nas_kd.teacher import as_targets

BATCH = beside(images())


def mean_teacher(model: torch.nn.Module, **settings: object) -> MeanTeacher:
    recipe = Distiller("mean_teacher").recipe
    return MeanTeacher(pair_of(model, recipe, None, (3, 8, 8), CLASSES), **settings)


def test_the_mean_teacher_after_n_steps_of_a_constant_student():
    model = student().double()
    ema = mean_teacher(model, decay=0.9, ramp=False)
    begun = {name: tensor.clone() for name, tensor in ema.network.state_dict().items()}
    for tensor in model.state_dict().values():
        tensor.copy_(torch.full_like(tensor, 3))
    for _ in range(5):
        ema.update()
    for name, tensor in ema.network.state_dict().items():
        expected = begun[name] * 0.9**5 + 3 * (1 - 0.9**5) if tensor.is_floating_point() else torch.tensor(3)
        torch.testing.assert_close(tensor, expected)


def test_a_decay_of_0_is_the_student_and_the_ramp_starts_there():
    for settings in ({"decay": 0.0, "ramp": False}, {"decay": 0.99}):
        model = student()
        ema = mean_teacher(student(seed=5), **settings)
        ema._student = (model,)
        found = ema.logits(BATCH)
        assert torch.equal(found, model.eval()(BATCH.other).detach()) and not found.requires_grad
    with pytest.raises(SettingError, match="decay"):
        mean_teacher(model, decay=1.0)


def test_the_average_is_saved_and_learns_nothing_itself():
    model = student()
    distiller = bound("mean_teacher", model)
    assert all(not p.requires_grad for p in distiller.trained.parameters())
    fit(distiller, model, BATCH, steps=5)
    saved = {name: tensor.clone() for name, tensor in distiller.trained.state_dict().items()}
    assert saved["source.steps"] == 5 and any("source.network" in name for name in saved)
    again = bound("mean_teacher", student(seed=9))
    again.trained.load_state_dict(saved)
    both = [d.source.network.eval()(BATCH.x) for d in (again, distiller)]
    assert torch.equal(*both)
    with pytest.raises(SettingError, match="image pairs"):
        distiller.step(images(), 0.0)


def test_cs_kd_targets_are_the_student_on_the_partner_without_gradient():
    model = student()
    distiller = bound("cs_kd", model)
    model.eval()
    target = distiller.source.logits(BATCH)
    assert torch.equal(target, model(BATCH.other)) and not target.requires_grad
    same = BATCH._replace(other=BATCH.x)
    parts = distiller(model(same.x), distiller.target(same), same.y, 0.0, same)[1]
    assert parts["cs_kd"].abs() < 1e-7  # x' = x in eval mode
    model.train()
    before = model.bn1.running_mean.clone()
    distiller.source.logits(BATCH)
    assert not torch.equal(model.bn1.running_mean, before)  # the second pass counts in the statistics


def test_ddgsd_of_identical_views_is_twice_the_label_loss():
    model = student()
    distiller = bound("ddgsd", model, temperature=3.0)
    same = BATCH._replace(other=BATCH.x)
    parts = distiller.step(same, 0.0)
    assert parts["ddgsd"].abs() < 1e-6 and parts["mmd"] < 1e-10
    torch.testing.assert_close(parts["loss"], 2 * parts["ce"])
    doubled = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    F.cross_entropy(model(BATCH.x), BATCH.y).backward()
    for name, p in model.named_parameters():
        torch.testing.assert_close(doubled[name], 2 * p.grad, rtol=1e-4, atol=1e-6)


def test_a_privileged_teacher_sees_the_other_image():
    source = teacher()
    assert torch.equal(Privileged(source).logits(BATCH), source.teacher(BATCH.other))
    brighter = Privileged(source, view=lambda batch: batch.x + 1)
    assert torch.equal(brighter.logits(images()), source.teacher(images().x + 1))
    seen: list[Batch] = []
    Privileged(as_targets(seen.append)).logits(BATCH._replace(view=torch.zeros(16).long()))
    assert (seen[0].view == -1).all()  # no cache may answer for it
    with pytest.raises(SettingError, match="teacher="):
        Privileged(None)
    assert isinstance(bound("privileged", student(), source).source, Privileged)


def darker(batch: Batch) -> torch.Tensor:
    """What a test's teacher sees."""
    return batch.other - 1


def test_the_view_of_a_privileged_teacher_is_named_in_the_settings():
    source = teacher()
    distiller = bound("privileged", student(), source, view=f"{__name__}:darker")
    assert torch.equal(distiller.target(BATCH), source.teacher(BATCH.other - 1))
    with pytest.raises(SettingError, match=r"privileged\.view='nowhere:f'"):
        bound("privileged", student(), source, view="nowhere:f")
    with pytest.raises(SettingError, match=r"package\.module:function"):
        bound("privileged", student(), source, view=f"{__name__}:BATCH")
    with pytest.raises(SettingError, match=r"privileged\.view=\(1, .*16 images"):
        Privileged(source, lambda batch: batch.x[:1]).logits(BATCH)


def test_the_deepest_exit_gets_no_gradient_from_the_exits():
    model = student()
    distiller = bound("byot", model)
    exits = distiller.trained["byot"]
    out = model.forward_stages(BATCH.x)
    exits(out, BATCH.y).backward()
    grads = {name for name, p in model.named_parameters() if p.grad is not None}
    assert grads == {"conv1.weight", "bn1.weight", "bn1.bias"}  # all that stands before the first exit
    assert [x.shape for x in exits.logits(out)] == [(16, CLASSES)]


def test_byot_with_all_weights_0_is_the_exits_label_loss():
    model = student()
    distiller = bound("byot", model, alpha=0.0, hint=0.0)
    out = model.forward_stages(BATCH.x)
    exits = distiller.trained["byot"].eval()
    torch.testing.assert_close(exits(out, BATCH.y), F.cross_entropy(exits.logits(out)[0], BATCH.y))
    plain = Distiller("byot", weight=0.0).recipe
    assert [term.name for term in plain.terms] == ["ce"]
    with pytest.raises(SettingError, match="alpha"):
        bound("byot", student(), alpha=1.5)


def test_peers_have_other_weights_and_equal_ones_never_part():
    model = student()
    distiller = bound("dml", model, peers=3)
    networks = distiller.source.networks
    assert len(networks) == 2 and not torch.equal(networks[0].conv1.weight, networks[1].conv1.weight)
    assert not torch.equal(networks[0].conv1.weight, model.conv1.weight)
    twin = bound("dml", model)
    twin.source.networks[0].load_state_dict(model.state_dict())
    rows = fit(twin, model, BATCH, steps=10)
    assert max(row["dml"] for row in rows) < 1e-12
    with pytest.raises(SettingError, match="2 networks"):
        bound("dml", student(), peers=1)
    assert fresh(model).fc.weight.shape == model.fc.weight.shape


def test_grafting_weights():
    assert grafting_weight(0.0) == 0.5
    for difference in (0.001, 0.3, -2.0):
        w = grafting_weight(difference)
        assert 0.3 < w < 0.7 and w + grafting_weight(-difference) == pytest.approx(1, abs=1e-15)
        assert (w > 0.5) == (difference > 0)
    assert entropy(torch.ones(4, 3)) == 0
    assert float(entropy(torch.arange(10.0))) == pytest.approx(math.log(10))  # the greatest value counts too
    assert float(entropy(torch.tensor([0.0, 0.0, 1.0, 1.0]))) == pytest.approx(math.log(2))


def test_grafting_mixes_layer_by_layer():
    one, other = student(seed=1).state_dict(), student(seed=2).state_dict()
    found = graft(one, other)
    for conv, follows in (("conv1.weight", "bn1.weight"), ("conv2.weight", "fc.weight")):
        w = grafting_weight(float(entropy(one[conv]) - entropy(other[conv])))
        for name in (conv, follows):
            torch.testing.assert_close(found[name], w * one[name] + (1 - w) * other[name])
    assert found["bn1.num_batches_tracked"] == one["bn1.num_batches_tracked"]
    same = graft(one, one)
    assert all(torch.allclose(same[name], one[name]) for name in one)
    scaled = {name: tensor * 3 for name, tensor in one.items()}  # equal entropies: the plain average
    assert torch.allclose(graft(one, scaled)["conv1.weight"], 2 * one["conv1.weight"])


def test_grafting_happens_between_epochs_in_a_ring():
    model = student()
    distiller = bound("grafting", model, peers=3)
    a, b, c = ({k: v.clone() for k, v in n.state_dict().items()} for n in (model, *distiller.source.networks))
    distiller.after_epoch(1)
    for network, own, before in zip((model, *distiller.source.networks), (a, b, c), (c, a, b), strict=True):
        expected = graft(own, before)
        for name, tensor in network.state_dict().items():
            assert torch.equal(tensor, expected[name])
    assert not any("source" in name for name in model.state_dict())
