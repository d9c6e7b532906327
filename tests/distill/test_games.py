"""Critics, attacks, generators and trees: whose turn changes whom."""

from __future__ import annotations

import io

import pytest
import torch
import torch.nn.functional as F
from toy import BATCH, CLASSES, Toy, bound, fit, images, noise, student, teacher

from nas_kd.data import load_data
from nas_kd.distill import Distiller, SoftTree
from nas_kd.distill.boundary import attack
from nas_kd.distill.game import norm_inputs, norms
from nas_kd.distill.generator import WIDTH, GeneratorNet, Noise, Switches
from nas_kd.errors import SettingError
from nas_kd.losses import disagreement, norm_statistics
from nas_kd.teacher import as_targets


def state(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: t.clone() for name, t in module.state_dict().items() if isinstance(t, torch.Tensor)}


def same(module: torch.nn.Module, before: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(t, before[name]) for name, t in state(module).items())


def test_the_critics_turn_changes_the_critic_alone():
    torch.manual_seed(0)
    model, source = student(), teacher()
    distiller = bound("gan_kd", model, source)
    critic = distiller.trained["gan_kd"]
    logits, target, y = model(images().x), source.logits(images()), images().y
    before, net = state(model), state(critic.net)
    critic.learn(logits, target, y)
    assert all(p.grad is None for p in model.parameters()) and same(model, before)
    assert not same(critic.net, net)
    net = state(critic.net)
    student_loss = critic.judge(logits)[0].sum()
    student_loss.backward()  # the student's turn reaches the student through the critic, and stops there
    assert all(p.grad is None for p in critic.parameters()) and model.fc.weight.grad.abs().sum() > 0
    assert same(critic.net, net) and not any(p.requires_grad for p in distiller.trained.parameters())


def test_without_its_adversary_gan_kd_is_the_labels_and_an_l1_of_the_logits():
    model, source = student().eval(), teacher()
    distiller = bound("gan_kd", model, source, weight=0)
    assert len(distiller.trained) == 0
    parts = distiller.step(images(), 0.0)
    expected = F.cross_entropy(model(images().x), images().y) + F.l1_loss(model(images().x), source.logits(images()))
    torch.testing.assert_close(parts["loss"], expected.detach())


def test_a_players_optimiser_is_part_of_its_state():
    rows = []
    for cut in (False, True):
        torch.manual_seed(0)
        model, batch = student(), images()
        distiller = bound("gan_kd", model, teacher())
        fit(distiller, model, batch, steps=3)
        if cut:  # through a file, as checkpoints go, into new objects
            file = io.BytesIO()
            torch.save(distiller.trained.state_dict(), file)
            file.seek(0)
            again = bound("gan_kd", model, teacher())
            again.trained.load_state_dict(torch.load(file, weights_only=True))
            distiller = again
        assert distiller.trained["gan_kd"].turns == 3
        rows.append(fit(distiller, model, batch, steps=3))
    assert rows[0] == rows[1]


def test_attacked_images_come_to_the_boundary():
    source = teacher()
    network = source.teacher.network
    batch = images(64)
    answers = network(batch.x)
    y = answers.argmax(1)
    y[:8] = (y[:8] + 1) % CLASSES  # these are not what the teacher says
    toward = answers.scatter(1, y[:, None], -1e9).argmax(1)
    moved, hit = attack(network, batch.x, y, toward, steps=30, rate=0.3)
    assert not hit[:8].any() and torch.equal(moved[:8], batch.x[:8])
    assert hit.sum() > 20 and moved[hit].abs().max() <= 2.5
    gap = lambda x: network(x).gather(1, y[:, None]) - network(x).gather(1, toward[:, None])  # noqa: E731
    near, far = gap(moved)[hit].abs().mean(), gap(batch.x)[hit].abs().mean()
    assert near < 0.3 * far
    assert (network(moved).argmax(1) != y)[hit].all()
    assert all(p.grad is None for p in network.parameters())
    still = attack(network, batch.x, y, toward, steps=0)
    assert torch.equal(still[0], batch.x) and not still[1].any()


def test_bss_of_a_student_that_equals_its_teacher_is_0_and_its_weight_ends():
    source = teacher()
    model = Toy((6, 10))
    model.load_state_dict(source.teacher.network.state_dict())
    batch = images()._replace(y=source.logits(images()).argmax(1))
    distiller = bound("bss", model.eval(), source)
    parts = distiller.step(batch, 0.0)
    assert parts["bss"].abs() < 1e-6 and parts["kd"].abs() < 1e-5
    weights = {t.name: [t.weight_at(p) for p in (0.0, 0.375, 0.75, 1.0)] for t in distiller.recipe.terms}
    assert weights["bss"] == [2.0, 1.0, 0.0, 0.0]
    assert [9 * w for w in weights["kd"]] == pytest.approx([4.0, 2.5, 1.0, 1.0])
    with pytest.raises(SettingError, match="live teacher"):
        bound("bss", student(), as_targets(lambda batch: batch.x))


@pytest.mark.parametrize("name", ["dafl", "zskt", "dfad", "dfq"])
def test_turns_of_the_generator(name):
    model, source = student(), teacher()
    distiller = bound(name, model, source, base=4, student_steps=3)
    generator, network = distiller.trained["inputs"], source.teacher.network
    frozen, before = state(network), state(model)
    batch = noise()
    made = generator(batch)
    assert made.x.shape == (BATCH, 3, 8, 8) and not made.x.requires_grad and generator.turns == 1
    assert same(network, frozen) and same(model, before)
    assert all(p.grad is None for net in (network, model, generator) for p in net.parameters())
    for _ in range(5):
        generator(batch)
    assert generator.turns == 2  # of 6 calls
    net = state(generator.net.start)
    distiller.step(batch, 0.0)  # calls it a seventh time
    assert generator.turns == 3 and not same(generator.net.start, net) and same(network, frozen)
    model.zero_grad()
    net = state(generator.net.start)
    distiller.step(batch, 0.0)
    assert same(generator.net.start, net) and model.fc.weight.grad.abs().sum() > 0


def test_the_generator_learns_what_its_switches_say():
    torch.manual_seed(0)
    source = teacher()
    for name, worse in {"dafl": False, "dfad": True}.items():
        model = student()
        distiller = bound(name, model, source, base=8)
        generator = distiller.trained["inputs"]
        z = noise().x
        first = float(generator.loss(z).detach())
        for _ in range(30):
            generator.step(lambda: generator.loss(z))  # noqa: B023
        assert float(generator.loss(z).detach()) < first
        if worse:  # the adversary finds images on which the two differ more
            x = generator.net(z)
            apart = disagreement(model.eval()(x), source.teacher.network(x), "l1")
            assert float(apart.detach()) < first


def test_norm_inputs_of_a_batch_that_has_the_kept_statistics():
    network = teacher().teacher.network
    x = images(64).x
    with norm_inputs(network) as found:
        network(x)
    assert len(found) == len(norms(network)) == 2
    torch.testing.assert_close(found[0][0], network.conv1(x).mean((0, 2, 3)))
    assert not network.bn1._forward_pre_hooks
    one = torch.nn.Sequential(network.conv1, torch.nn.BatchNorm2d(6, momentum=1.0)).double()
    with norm_inputs(one) as first:
        one(x.double())  # keeps exactly this batch's statistics, the variance unbiased
    count = 64 * 8 * 8
    kept = [(one[1].running_mean, one[1].running_var * (count - 1) / count)]
    with norm_inputs(one.eval()) as found:
        one(x.double())
    assert float(norm_statistics(found, kept)) < 1e-12
    assert float(norm_statistics(found, [(kept[0][0] + 1, kept[0][1])])) == pytest.approx(6**0.5)
    assert len(first) == 1


def test_what_a_game_cannot_be_played_with_is_refused():
    with pytest.raises(SettingError, match="weights of 0 or more"):
        Switches()
    with pytest.raises(SettingError, match="student_steps"):
        Switches(one_hot=1.0, student_steps=0)
    with pytest.raises(SettingError, match="live teacher"):
        bound("dafl", student(), as_targets(lambda batch: batch.x))
    odd = GeneratorNet((1, 7, 7), base=4)
    assert odd(torch.randn(3, WIDTH)).shape == (3, 1, 7, 7)


def test_noise_is_a_function_of_seed_epoch_and_step():
    y = torch.arange(40) % 2
    x = torch.zeros(40, 1, 4, 4, dtype=torch.uint8)
    data = load_data((x, y), test=(x[:2], y[:2]), duplicates="keep", views=0)
    sampled = Noise(data.train)
    one, again = (list(sampled.batches(8, epoch=1, seed=0)) for _ in range(2))
    assert len(one) == data.train.steps(8) and one[0].x.shape == (8, WIDTH) and (one[0].view == -1).all()
    assert all(torch.equal(a.x, b.x) for a, b in zip(one, again, strict=True)) and not torch.equal(one[0].x, one[1].x)
    half = next(sampled.batches(8, epoch=1, seed=0, rank=1, world=2)).x
    assert torch.equal(half, one[0].x[1::2])


def test_a_soft_tree_is_a_mixture_of_its_leaves():
    torch.manual_seed(0)
    tree = SoftTree(3, 192, CLASSES)
    x = images().x
    found = tree(x)
    torch.testing.assert_close(found.exp().sum(1), torch.ones(BATCH))
    one = SoftTree(1, 192, CLASSES)
    right = one.decisions(x)
    leaves = one.leaves.softmax(1)
    torch.testing.assert_close(one(x).exp(), (1 - right) * leaves[0] + right * leaves[1])
    with pytest.raises(SettingError, match="SoftTree"):
        bound("soft_tree", student(), teacher())
    with pytest.raises(SettingError, match="depth"):
        SoftTree(0, 4, 2)
    assert Distiller("soft_tree").needs == {"logits", "batch"}
