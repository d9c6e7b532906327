"""Whole steps of games, self-distillation and trees beside their papers' equations, written out here, in float64.

Nothing of the package computes what is expected: networks run by `functional_call` or by hand, losses and Adam's first
step are written from the papers. Whose gradient goes where is part of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from toy import BATCH, CLASSES, Toy, beside, bound, images, noise, student, teacher

from nas_kd.distill import SoftTree
from nas_kd.distill.game import norms


@pytest.fixture(autouse=True)
def in_float64() -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


def kl(p: Tensor, q: Tensor) -> Tensor:
    """The mean over the batch of sum_c p log p / q."""
    return (p * (p.log() - q.log())).sum(1).mean()


def ce(logits: Tensor, y: Tensor) -> Tensor:
    return -torch.stack([row.log_softmax(0)[c] for row, c in zip(logits, y.tolist(), strict=True)]).mean()


def softened(logits: Tensor, temperature: float) -> Tensor:
    powers = (logits / temperature).exp()
    return powers / powers.sum(1, keepdim=True)


def features(model: Toy, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """A toy's first map, last map and logits in training mode, its norms written out."""

    def norm(x: Tensor, layer: nn.BatchNorm2d) -> Tensor:
        mean = x.mean((0, 2, 3), keepdim=True)
        scale = ((x - mean).square().mean((0, 2, 3), keepdim=True) + layer.eps).sqrt()
        return (x - mean) / scale * layer.weight[:, None, None] + layer.bias[:, None, None]

    first = norm(F.conv2d(x, model.conv1.weight, padding=1), model.bn1).relu()
    last = norm(F.conv2d(first, model.conv2.weight, stride=2, padding=1), model.bn2).relu()
    return first, last, last.mean((2, 3)) @ model.fc.weight.T + model.fc.bias


def first_adam_step(weights: list[Tensor], loss: Tensor, lr: float = 1e-3) -> list[Tensor]:
    """Adam's first step from no moments: both are corrected to the gradient and its square."""
    gradients = torch.autograd.grad(loss, weights)
    return [(w - lr * g / (g.abs() + 1e-8)).detach() for w, g in zip(weights, gradients, strict=True)]


def close(found: Any, expected: Any, rtol: float = 1e-6) -> None:
    torch.testing.assert_close(found, expected, rtol=rtol, atol=1e-9)


def same_gradients(model: nn.Module, expected: Tensor) -> None:
    """What a step has left in a network's parameters is the gradient of the expected loss."""
    weights = list(model.parameters())
    for weight, gradient in zip(weights, torch.autograd.grad(expected, weights, allow_unused=True), strict=True):
        close(weight.grad, gradient)


@pytest.mark.parametrize("variant", ["paper", "code"])
def test_byot(variant: str) -> None:
    """Zhang et al., eq. 1 to 4: every exit learns from labels, the deepest logits and the deepest feature.

    The deepest classifier has the labels alone (alpha and lambda 0); the code weighs them by 1 - alpha there as well,
    and counts only those elements of features where either side is above 0.
    """
    model, batch = student().train(), images()
    distiller = bound("byot", model, variant=variant, hint=0.01)
    exits = distiller.trained["byot"].train()
    alpha, temperature = 0.1, 3.0
    parts = distiller.step(batch, 0.0)
    first, last, logits = features(model, batch.x)
    down, norm1, _, point, norm2, _ = exits.bottlenecks[0]
    x = F.conv2d(first, down.weight, stride=2, padding=1)
    x = F.batch_norm(x, None, None, norm1.weight, norm1.bias, training=True).relu()
    x = F.conv2d(x, point.weight)
    x = F.batch_norm(x, None, None, norm2.weight, norm2.bias, training=True).relu()
    early = x.mean((2, 3)) @ exits.classifiers[0].weight.T + exits.classifiers[0].bias
    squares = (x - last.detach()).square()
    if variant == "code":
        squares = squares * ((x > 0) | (last > 0))
    taught = temperature**2 * kl(softened(logits.detach(), temperature), softened(early, temperature))
    deepest = 1.0 if variant == "paper" else 1 - alpha
    expected = deepest * ce(logits, batch.y) + (1 - alpha) * ce(early, batch.y) + alpha * taught
    expected = expected + 0.01 * squares.sum() / BATCH
    close(parts["loss"], expected.detach())
    model_and_exits = nn.ModuleList([model, exits])
    same_gradients(model_and_exits, expected)


def test_ddgsd() -> None:
    """Xu and Liu, eq. 2 to 7: two views, each with the labels, the other's logits, and the other's mean feature."""
    model, batch = student().train(), beside(images())
    parts = bound("ddgsd", model).step(batch, 0.0)  # type: ignore[arg-type]
    (_, one, a), (_, two, b) = features(model, batch.x), features(model, batch.other)
    pa, pb = softened(a, 3.0), softened(b, 3.0)
    gap = one.mean((0, 2, 3)) - two.mean((0, 2, 3))
    expected = ce(a, batch.y) + ce(b, batch.y) + 9 * (kl(pa.detach(), pb) + kl(pb.detach(), pa)) + 0.005 * gap @ gap
    close(parts["loss"], expected.detach())
    same_gradients(model, expected)


def test_gan_kd() -> None:
    """Xu et al., eq. 3 to 7: the critic tells teacher from student and the class; then the student goes against it."""
    model, source, batch = student().train(), teacher(), images()
    distiller = bound("gan_kd", model, source)
    critic = distiller.trained["gan_kd"].net
    target = source.logits(batch)
    _, _, logits = features(model, batch.x)
    weights = [w.detach().clone().requires_grad_() for w in critic.parameters()]

    def judge(z: Tensor, w: list[Tensor]) -> tuple[Tensor, Tensor]:
        hidden = ((z @ w[0].T + w[1]).relu() @ w[2].T + w[3]).relu()
        found = hidden @ w[4].T + w[5]
        return 1 / (1 + (-found[:, 0]).exp()), found[:, 1:]  # the probability of the teacher; classes

    (real, its_class), (fake, other_class) = judge(target, weights), judge(logits.detach(), weights)
    of_critic = -(real.log() + (1 - fake).log()).mean() + ce(its_class, batch.y) + ce(other_class, batch.y)
    learned = first_adam_step(weights, of_critic)
    taken, named = judge(logits, learned)
    against = -taken.log().mean() + ce(named, batch.y)
    expected = ce(logits, batch.y) + (logits - target).abs().mean() + 0.1 * against
    parts = distiller.step(batch, 0.0)
    for found, hand in zip(critic.parameters(), learned, strict=True):
        close(found.detach(), hand)
    close(parts["loss"], expected.detach())
    same_gradients(model, expected)


def at_code(s: Tensor, t: Tensor) -> Tensor:
    """Mean squared difference of the maps of mean squares, each of length 1."""
    one, other = (x.square().mean(1).flatten(1) for x in (s, t))
    one, other = (x / x.square().sum(1, keepdim=True).sqrt() for x in (one, other))
    return (one - other).square().mean()


def of_generator(name: str, t: Tensor, s: Tensor, pooled: Tensor, statistics: Tensor) -> Tensor:
    """What the images are made for.

    DAFL (Chen et al., eq. 2 to 5): one-hot answers, large features, balanced classes, by a logarithm to base 10.
    ZSKT (Micaelli and Storkey, eq. 1): answers far apart by KL. DFAD (Fang et al., eq. 5): by the mean absolute
    difference of logits. DFQ (Choi et al., eq. 5 to 7): the same by KL, one-hot, balanced, with the norms' statistics.
    """
    p = t.softmax(1)
    one_hot = -p.amax(1).log().mean()
    mean = p.mean(0)
    if name == "dafl":
        return one_hot - 0.1 * pooled.abs().mean() + 5 * (mean * mean.log10()).sum()
    if name == "dfad":
        return -(t - s).abs().mean()
    apart = -kl(p, s.softmax(1))
    return apart if name == "zskt" else apart + statistics + one_hot + 20 * (mean * mean.log()).sum()


@pytest.mark.parametrize("name", ["dafl", "zskt", "dfad", "dfq"])
def test_games_without_data(name: str) -> None:
    """The generator's step against teacher and student, then the student's on the images made after it."""
    model, source, batch = student().train(), teacher(), noise()
    distiller = bound(name, model, source, base=4)
    net = distiller.trained["inputs"].net
    network = source.network
    inputs: list[Tensor] = []
    handles = [n.register_forward_pre_hook(lambda module, args: inputs.append(args[0])) for n in norms(network)]
    names = [key for key, _ in net.named_parameters()]

    def made_by(weights: list[Tensor]) -> Tensor:
        own = {key: value.clone() for key, value in net.state_dict().items()}
        return torch.func.functional_call(net, own | dict(zip(names, weights, strict=True)), batch.x)

    weights = [w.detach().clone().requires_grad_() for w in net.parameters()]
    x = made_by(weights)
    told = network.forward_stages(x)
    said = model.eval()(x)  # the student's statistics are those of its own steps
    model.train()
    statistics = sum(
        (z.mean((0, 2, 3)) - n.running_mean).norm() + (z.var((0, 2, 3), unbiased=False) - n.running_var).norm()
        for z, n in zip(inputs, norms(network), strict=True)
    )
    loss = of_generator(name, told.logits, said, told.pooled, statistics)  # type: ignore[arg-type]
    learned = first_adam_step(weights, loss)
    for handle in handles:
        handle.remove()
    made = made_by(learned).detach()
    parts = distiller.step(batch, 0.0)
    for found, hand in zip(net.parameters(), learned, strict=True):
        close(found.detach(), hand)
    first, last, logits = features(model, made)
    answers = network.forward_stages(made)
    if name == "dfad":
        expected = (logits - answers.logits).abs().mean()
    else:
        expected = kl(answers.logits.softmax(1), logits.softmax(1))
    if name == "zskt":
        maps = zip((first, last), answers.stages, strict=True)
        expected = expected + 250 * sum(at_code(s, t) for s, t in maps)
    close(parts["loss"], expected.detach())
    same_gradients(model, expected)
    assert all(w.grad is None for w in network.parameters())


def test_a_soft_tree() -> None:
    """Frosst and Hinton, eq. 1 to 5: each leaf's cross-entropy by its path, and how evenly nodes split the batch."""
    torch.manual_seed(0)
    source, batch = teacher(), images()
    tree = SoftTree(3, 192, CLASSES)
    parts = bound("soft_tree", tree, source).step(batch, 0.0)
    target = source.logits(batch).softmax(1)
    right = 1 / (1 + (-(batch.x.flatten(1) @ tree.nodes.weight.T + tree.nodes.bias)).exp())
    losses: list[Tensor] = []
    penalties: list[Tensor] = []

    def descend(node: int, level: int, path: Tensor) -> None:
        if level == 3:
            leaf = tree.leaves[node - 7].softmax(0)
            losses.append(path * -(target * leaf.log()).sum(1))
            return
        p = right[:, node]
        share = (path * p).sum() / path.sum()
        penalties.append(-(2.0**-level) * (0.5 * share.log() + 0.5 * (1 - share).log()))
        descend(2 * node + 1, level + 1, path * (1 - p))
        descend(2 * node + 2, level + 1, path * p)

    descend(0, 0, torch.ones(BATCH))
    expected = sum(losses).mean() + 0.1 * sum(penalties)  # type: ignore[union-attr]
    assert len(losses) == 8 and len(penalties) == 7
    close(parts["loss"], expected.detach())
    same_gradients(tree, expected)
