"""Kernel transforms and resizing against their definitions."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

import nas_kd
from nas_kd.blocks import ConvStem, LinearHead, MBStage
from nas_kd.nn import KernelTransform, at_resolution, centre
from nas_kd.space import ElasticSpace

KERNELS = (3, 5, 7)
SPACE = ElasticSpace(
    "kernels",
    ConvStem(8),
    (MBStage(widths=(8, 12), depths=(1, 2), kernels=KERNELS, expands=(1, 3)),),
    LinearHead(),
    9,
)


def shaken(seed: int = 0) -> KernelTransform:
    transform = KernelTransform(KERNELS).double()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for matrix in transform.parameters():
            matrix.copy_(torch.randn(matrix.shape, generator=generator))
    return transform


def test_it_begins_as_the_centre_crop_to_the_bit() -> None:
    weight = torch.randn(10, 1, 7, 7)
    transform = KernelTransform(KERNELS)
    for kernel in KERNELS:
        assert torch.equal(transform(weight, kernel), centre(weight, kernel))
    shapes = {name: tuple(p.shape) for name, p in transform.matrices.items()}
    assert shapes == {"7to5": (25, 25), "5to3": (9, 9)}
    assert not list(KernelTransform((5,)).parameters())


def test_small_kernels_pass_through_every_matrix() -> None:
    transform, weight = shaken(), torch.randn(4, 1, 7, 7, dtype=torch.float64)
    assert torch.equal(transform(weight, 7), weight)
    to5, to3 = transform.matrices["7to5"], transform.matrices["5to3"]
    for channel in range(4):
        five = (to5 @ weight[channel, 0, 1:6, 1:6].reshape(25)).reshape(5, 5)
        three = (to3 @ five[1:4, 1:4].reshape(9)).reshape(3, 3)
        torch.testing.assert_close(transform(weight, 5)[channel, 0], five)
        torch.testing.assert_close(transform(weight, 3)[channel, 0], three)


def test_its_gradient_is_the_numerical_one() -> None:
    transform, weight = shaken(), torch.randn(2, 1, 7, 7, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda w, *_: transform(w, 3), (weight, *transform.parameters()))
    transform(weight, 5).sum().backward()
    assert transform.matrices["5to3"].grad is None and transform.matrices["7to5"].grad is not None
    assert weight.grad is not None and not weight.grad[:, :, 0].any()  # the outer ring is the 7's alone


@pytest.mark.parametrize("training", [True, False])
def test_a_subnet_and_its_extraction_agree_to_the_bit(training: bool) -> None:
    net = nas_kd.Supernet(SPACE, kernel_transform=True)
    plain = nas_kd.Supernet(SPACE)
    x = torch.randn(4, 3, 9, 9)
    archs = [SPACE.largest(), SPACE.smallest(), *(SPACE.sample(seed) for seed in range(10))]
    assert all(torch.equal(net(x, arch), plain(x, arch)) for arch in archs)  # at the start it changes nothing
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if "matrices" in name:
                parameter += 0.2 * torch.randn_like(parameter)
            elif parameter.ndim == 1:
                parameter += 0.5
    assert not torch.equal(net(x, SPACE.smallest()), plain(x, SPACE.smallest()))
    norms = nas_kd.calibrate(net, [x], archs)
    net.train(training)
    for arch, norm in zip(archs, norms, strict=True):
        student = net.extract(arch, norm)
        assert torch.equal(student(x), net(x, arch, None if training else norm)), arch.label
        assert sum(p.numel() for p in student.parameters()) == SPACE.cost(arch, num_classes=10).params


def test_images_at_another_size() -> None:
    x = torch.rand(2, 3, 8, 8)
    assert at_resolution(x, None) is x and at_resolution(x, 8) is x
    for size in (6, 12):
        wanted = F.interpolate(x, size=(size, size), mode="bicubic", align_corners=False)
        assert torch.equal(at_resolution(x, size), wanted)
    flat = torch.full((1, 1, 8, 8), 0.25)
    torch.testing.assert_close(at_resolution(flat, 13), torch.full((1, 1, 13, 13), 0.25))
