"""The sandwich step against static networks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tiny_spaces import FAMILIES, MOBILE, full_net
from torch import Tensor

import nas_kd
from nas_kd.distill import Classification
from nas_kd.errors import SettingError
from nas_kd.losses import adaptive_alpha_divergence, alpha_divergence, js_divergence, kl_divergence, reverse_kl
from nas_kd.nn import at_resolution
from nas_kd.runtime.device import Runtime
from nas_kd.space import Arch, ElasticSpace
from nas_kd.supernet import Supernet
from nas_kd.train import sandwich
from nas_kd.train.loop import StepInfo
from nas_kd.train.options import divergence_of
from nas_kd.train.rules import Sandwich
from nas_kd.train.sandwich import sandwich_step
from nas_kd.train.supernet_config import SupernetConfig

TASK = Classification(smoothing=0.1)


def spaces() -> list[ElasticSpace]:
    return [nas_kd.load_space("digits"), *FAMILIES]


def make(space: ElasticSpace) -> Supernet:
    return full_net(space)


def batch_for(space: ElasticSpace, count: int = 8) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(1)
    return torch.randn(count, 3, space.resolution, space.resolution, generator=g), torch.arange(count) % 6


def logits_of(net: Supernet, arch: Arch) -> Tensor:
    return net(at_resolution(batch_for(net.space)[0], arch.resolution), arch)


def archs_of(net: Supernet, random: int = 2, step: int = 0) -> list[Arch]:
    return Sandwich(net.space, 0, random).archs(StepInfo(0, step, 0.0))


def gradients(net: Supernet) -> dict[str, Tensor]:
    return {k: torch.zeros_like(p) if p.grad is None else p.grad.clone() for k, p in net.named_parameters()}


def sandwiched(net: Supernet, archs: list[Arch], **changed: Any) -> dict[str, Tensor]:
    x, y = batch_for(net.space)
    net.zero_grad(set_to_none=True)
    settings = {"task": TASK, "divergence": adaptive_alpha_divergence} | changed
    return sandwich_step(net, x, y, archs, **settings)


def scattered(net: Supernet, archs: list[Arch], divergence: Callable[..., Tensor]) -> dict[str, Tensor]:
    """Add up the gradients of the static networks, each where its weights lie in the shared tensors."""
    x, y = batch_for(net.space)
    total = {key: torch.zeros_like(p) for key, p in net.named_parameters()}
    teacher = None
    for arch in archs:
        student = net.extract(arch)
        logits = student(at_resolution(x, arch.resolution))
        if teacher is None:
            teacher = logits.detach()
            loss = F.cross_entropy(logits, y, label_smoothing=0.1)
        else:
            loss = divergence(logits, teacher)
        loss.backward()
        for key, parameter in student.named_parameters():
            there = total[key]
            for dim, size in enumerate(parameter.shape):
                start = (there.shape[dim] - size) // 2 if dim > 1 else 0
                there = there.narrow(dim, start, size)
            there += parameter.grad
    return total


@pytest.mark.parametrize("space", spaces(), ids=lambda s: s.name)
@pytest.mark.parametrize("divergence", [adaptive_alpha_divergence, kl_divergence])
def test_gradient_is_the_sum_of_the_static_networks(space: ElasticSpace, divergence: Any) -> None:
    net = make(space)
    for step in range(2):
        archs = archs_of(net, step=step)
        sandwiched(net, archs, divergence=divergence)
        wanted = scattered(net, archs, divergence)
        for key, gradient in gradients(net).items():
            if gradient.ndim == 2:  # a product of other strides, which the BLAS may add up otherwise
                torch.testing.assert_close(gradient, wanted[key], rtol=1e-5, atol=1e-6)
            else:
                assert torch.equal(gradient, wanted[key]), key


@pytest.mark.parametrize("transform", [False, True])
@pytest.mark.parametrize("space", FAMILIES, ids=lambda s: s.name)
def test_gradient_is_autograds_through_slices_of_the_shared_weights(space: ElasticSpace, transform: bool) -> None:
    """In float64, with kernel matrices too: static networks whose weights are functions of the shared ones."""
    net = full_net(space, kernel_transform=transform).double()
    x, y = (batch_for(space)[0].double(), batch_for(space)[1])
    archs = archs_of(net)
    sandwich_step(net, x, y, archs, task=TASK, divergence=kl_divergence)
    shared = {key: parameter.detach().requires_grad_() for key, parameter in net.named_parameters()}
    total, teacher = torch.zeros((), dtype=torch.float64), None
    for arch in archs:
        student = net.extract(arch)
        sliced = {}
        for key, parameter in student.named_parameters():
            weight, size = shared[key], parameter.shape[-1]
            for large in (7, 5):
                matrix = shared.get(f"{key.removesuffix('.weight')}.transform.matrices.{large}to{large - 2}")
                if matrix is not None and size < large <= shared[key].shape[-1]:
                    weight = weight[..., 1:-1, 1:-1]
                    weight = (matrix @ weight.flatten(1).T).T.reshape(weight.shape)
            for dim, wanted in enumerate(parameter.shape):
                weight = weight.narrow(dim, (weight.shape[dim] - wanted) // 2 if dim > 1 else 0, wanted)
            sliced[key] = weight
        logits = torch.func.functional_call(student, sliced, (at_resolution(x, arch.resolution),))
        total = total + (TASK.loss(logits, y) if teacher is None else kl_divergence(logits, teacher))
        teacher = logits.detach() if teacher is None else teacher
    total.backward()
    for key, parameter in net.named_parameters():
        assert (parameter.grad is None) == (shared[key].grad is None), key
        if parameter.grad is not None:
            torch.testing.assert_close(parameter.grad, shared[key].grad, rtol=1e-9, atol=1e-11, msg=key)


def test_images_are_resized_once_a_size(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []

    def counting(x: Tensor, resolution: int | None) -> Tensor:
        made.append(int(resolution or 0))
        return at_resolution(x, resolution)

    monkeypatch.setattr(sandwich, "at_resolution", counting)
    net = make(MOBILE)
    archs = [replace(MOBILE.sample(seed), resolution=size) for seed, size in enumerate((10, 6, 8, 10, 6, 6))]
    sandwiched(net, archs)
    assert sorted(made) == [6, 10]  # the images have 8 pixels


@pytest.mark.parametrize("space", spaces(), ids=lambda s: s.name)
def test_weights_that_no_subnet_uses_get_no_gradient(space: ElasticSpace) -> None:
    net = make(space)
    small = [space.smallest(), space.smallest()]  # even the first is not the largest here
    sandwiched(net, small)
    used = {k: p.shape for k, p in net.extract(small[0]).named_parameters()}
    for key, parameter in net.named_parameters():
        if key not in used:
            assert parameter.grad is None, key
            continue
        inside = torch.zeros_like(parameter, dtype=torch.bool)
        there = inside
        for dim, size in enumerate(used[key]):
            there = there.narrow(dim, (there.shape[dim] - size) // 2 if dim > 1 else 0, size)
        there.fill_(True)
        assert parameter.grad is not None and not parameter.grad[~inside].any(), key
    assert any(p.grad is None for p in net.parameters())


@pytest.mark.parametrize("space", spaces(), ids=lambda s: s.name)
def test_distillation_sends_nothing_through_the_largest(space: ElasticSpace) -> None:
    """What the smallest cannot reach has the gradient of the labels alone, to the bit."""
    net = make(space)
    sandwiched(net, [space.largest()])
    alone = gradients(net)
    sandwiched(net, [space.largest(), space.smallest(), space.smallest()])
    together = gradients(net)
    used = {k: p.shape for k, p in net.extract(space.smallest()).named_parameters()}
    checked = 0
    for key, gradient in together.items():
        beyond = torch.ones_like(gradient, dtype=torch.bool)
        if key in used:
            there = beyond
            for dim, size in enumerate(used[key]):
                there = there.narrow(dim, (there.shape[dim] - size) // 2 if dim > 1 else 0, size)
            there.fill_(False)
        assert torch.equal(gradient[beyond], alone[key][beyond]), key
        checked += int(beyond.sum())
    assert checked > sum(p.numel() for p in net.parameters()) // 2


def test_the_others_get_detached_logits_and_no_labels() -> None:
    net, seen = make(MOBILE), []

    def watching(student: Tensor, teacher: Tensor) -> Tensor:
        seen.append((student, teacher))
        return kl_divergence(student, teacher)

    archs = archs_of(net)
    sandwiched(net, archs, divergence=watching)
    assert len(seen) == 3 and not any(teacher.requires_grad for _, teacher in seen)
    for (student, teacher), arch in zip(seen, archs[1:], strict=True):
        assert torch.equal(teacher, logits_of(net, archs[0])) and torch.equal(student, logits_of(net, arch))
    others = gradients(net)
    # other labels change the largest's gradient only
    x, y = batch_for(MOBILE)
    net.zero_grad(set_to_none=True)
    sandwich_step(net, x, (y + 1) % 6, archs, task=TASK, divergence=kl_divergence)
    relabelled = gradients(net)
    net.zero_grad(set_to_none=True)
    for labels, sign in ((y, 1.0), ((y + 1) % 6, -1.0)):
        (sign * TASK.loss(logits_of(net, archs[0]), labels)).backward()
    for key, difference in gradients(net).items():
        torch.testing.assert_close(others[key] - relabelled[key], difference, rtol=1e-4, atol=1e-6, msg=key)


@pytest.mark.parametrize("random", [0, 1, 2])
def test_sum_is_mean_times_the_number_of_subnets(random: int) -> None:
    net = make(MOBILE)
    archs = archs_of(net, random)
    total = sandwiched(net, archs, reduction="sum")
    added = gradients(net)
    mean = sandwiched(net, archs, reduction="mean")
    count = 2 + random
    for key, gradient in gradients(net).items():
        torch.testing.assert_close(gradient * count, added[key], rtol=2e-5, atol=1e-7)
        if count in (2, 4):  # a power of two scales to the bit
            assert torch.equal(gradient * count, added[key]), key
    torch.testing.assert_close(mean["loss"] * count, total["loss"])
    for part in ("loss_largest", "loss_others"):
        assert torch.equal(mean[part], total[part])


def test_parts_are_the_losses(monkeypatch: pytest.MonkeyPatch) -> None:
    net = make(MOBILE)
    archs = archs_of(net)
    parts = sandwiched(net, archs)
    _, y = batch_for(MOBILE)
    logits = [logits_of(net, arch).detach() for arch in archs]
    largest = F.cross_entropy(logits[0], y, label_smoothing=0.1)
    smooth = F.one_hot(y, 6) * 0.9 + 0.1 / 6  # a tenth over all classes, the right one too
    torch.testing.assert_close(largest, -(smooth * logits[0].log_softmax(1)).sum(1).mean())
    others = torch.stack([adaptive_alpha_divergence(s, logits[0]) for s in logits[1:]])
    torch.testing.assert_close(parts["loss_largest"], largest)
    torch.testing.assert_close(parts["loss_others"], others.mean())
    torch.testing.assert_close(parts["loss"], largest + others.sum())
    assert not any(value.requires_grad for value in parts.values())


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_a_teacher_teaches_the_largest(weight: float) -> None:
    net = make(MOBILE)
    archs = archs_of(net)
    _, y = batch_for(MOBILE)
    target = torch.randn(8, 6, generator=torch.Generator().manual_seed(2))
    parts = sandwiched(net, archs, target=target, teacher_weight=weight, divergence=kl_divergence)
    logits = logits_of(net, archs[0])
    wanted = (1 - weight) * TASK.loss(logits, y) + weight * kl_divergence(logits, target)
    torch.testing.assert_close(parts["loss_largest"], wanted.detach())
    torch.testing.assert_close(parts["loss_others"], sandwiched(net, archs, divergence=kl_divergence)["loss_others"])


@pytest.mark.parametrize("how", [{"dropout": 0.5}, {"drop_path": 0.5}])
def test_only_the_largest_is_regularised(how: dict[str, float]) -> None:
    net, seen = make(MOBILE), []

    def watching(student: Tensor, teacher: Tensor) -> Tensor:
        seen.append((student.detach(), teacher))
        return kl_divergence(student, teacher)

    archs = archs_of(net)
    for seed in (1, 2, 1):
        torch.manual_seed(seed)
        sandwiched(net, archs, divergence=watching, **how)
    first, second, again = seen[:3], seen[3:6], seen[6:]
    for index, arch in enumerate(archs[1:]):
        assert torch.equal(first[index][0], second[index][0])
        assert torch.equal(first[index][0], logits_of(net, arch))
        assert not torch.equal(first[index][1], second[index][1])
        assert torch.equal(first[index][1], again[index][1])


def test_archs_of_a_step_are_a_function_of_seed_and_step() -> None:
    net = make(MOBILE)
    one = Sandwich(net.space, 7, 3).archs(StepInfo(1, 2, 0.5))
    assert one[:2] == [MOBILE.largest(), MOBILE.smallest()] and len(one) == 5
    assert one == Sandwich(net.space, 7, 3).archs(StepInfo(1, 2, 0.9))
    other = [(8, StepInfo(1, 2, 0.5)), (7, StepInfo(2, 2, 0.5)), (7, StepInfo(1, 3, 0.5))]
    assert all(one[2:] != Sandwich(net.space, seed, 3).archs(info)[2:] for seed, info in other)
    drawn = {a for step in range(200) for a in Sandwich(net.space, 0, 1).archs(StepInfo(0, step, 0.0))[2:]}
    assert len(drawn) > 150


def test_divergence_by_name() -> None:
    s, t = torch.randn(2, 5, 4)
    assert torch.equal(divergence_of(SupernetConfig(divergence="kl"))(s, t), kl_divergence(s, t))
    assert torch.equal(divergence_of(SupernetConfig(divergence="alpha"))(s, t), adaptive_alpha_divergence(s, t))
    unclipped = divergence_of(SupernetConfig(choose="unclipped"))(9 * s, t)
    assert torch.equal(unclipped, adaptive_alpha_divergence(9 * s, t, choose="unclipped"))
    assert torch.equal(divergence_of(SupernetConfig(divergence="reverse_kl"))(s, t), reverse_kl(s, t))
    assert torch.equal(divergence_of(SupernetConfig(divergence="js"))(s, t), js_divergence(s, t))
    for alpha in (-2.0, 0.0, 0.5, 3.0):
        fixed = divergence_of(SupernetConfig(alpha=alpha))(9 * s, t)
        assert torch.equal(fixed, alpha_divergence(9 * s, t, alpha, clip=5.0)) and fixed.isfinite()
    with pytest.raises(SettingError, match="supernet.divergence='jss'.*did you mean 'js'"):
        SupernetConfig(divergence="jss")  # type: ignore[arg-type]
    with pytest.raises(SettingError, match="supernet.choose"):
        SupernetConfig(choose="both")  # type: ignore[arg-type]


def test_bf16_gradients_point_the_same_way() -> None:
    net, runtime = make(MOBILE), Runtime("cpu", "bf16-mixed")
    archs = archs_of(net)
    sandwiched(net, archs)
    exact = torch.cat([g.flatten() for g in gradients(net).values()])
    parts = sandwiched(net, archs, autocast=runtime.autocast())  # one context for several subnets
    rough = torch.cat([g.flatten() for g in gradients(net).values()])
    assert all(value.dtype == torch.float32 and value.isfinite() for value in parts.values())
    assert F.cosine_similarity(exact, rough, dim=0) > 0.99
