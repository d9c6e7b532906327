"""Elastic layers against plain functions of cut weights."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from nas_kd.errors import SettingError
from nas_kd.nn.act import activation, drop_path
from nas_kd.nn.elastic import ElasticConv2d, ElasticDepthwise, ElasticLinear, centre, prefix
from nas_kd.nn.shortcut import subsample


def test_prefix_of_everything_is_the_tensor_itself() -> None:
    weight = torch.randn(6, 5, 3, 3)
    assert prefix(weight, 6, 5) is weight and prefix(weight) is weight
    assert torch.equal(prefix(weight, 4, 2), weight[:4, :2])
    assert prefix(weight, 4, 2).data_ptr() == weight.data_ptr()  # a view, no copy


@pytest.mark.parametrize("kernel", [1, 3, 5, 7])
def test_centre(kernel: int) -> None:
    weight = torch.randn(2, 1, 7, 7)
    edge = 3 - kernel // 2
    assert torch.equal(centre(weight, kernel), weight[:, :, edge : 7 - edge, edge : 7 - edge])
    assert centre(weight, 7) is weight


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_a_cut_is_one_node_and_its_gradient_is_zero_outside(memory_format: torch.memory_format) -> None:
    weight = torch.randn(6, 5, 7, 7).to(memory_format=memory_format).requires_grad_()
    for cut, index in (
        (prefix(weight, 4, 2), (slice(4), slice(2))),
        (prefix(weight[1:, 2:], 3, 2), (slice(1, 4), slice(2, 4))),  # a view itself, with an offset
        (centre(weight, 3, 4), (slice(4), slice(None), slice(2, 5), slice(2, 5))),
        (centre(weight[2:], 5), (slice(2, 6), slice(None), slice(1, 6), slice(1, 6))),
    ):
        assert torch.equal(cut, weight[index])
        upstream = torch.randn(cut.shape)
        wanted = torch.zeros(weight.shape)
        wanted[index] = upstream
        (gradient,) = torch.autograd.grad(cut, weight, upstream)
        assert torch.equal(gradient, wanted)
    for cut in (prefix(weight, 4, 2), centre(weight, 3, 4)):
        assert cut.grad_fn is not None
        assert [type(node).__name__ for node, _ in cut.grad_fn.next_functions] == ["AccumulateGrad"]
        (gradient,) = torch.autograd.grad(cut.sum(), weight)
        assert gradient.stride() == weight.stride()  # or adding it to the next subnet's would shuffle memory


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [1, 3])
def test_conv_is_a_conv_of_the_cut_weight(kernel: int, stride: int) -> None:
    conv = ElasticConv2d(8, 10, kernel, stride, bias=True)
    x = torch.randn(2, 5, 7, 7)
    wanted = F.conv2d(x, conv.weight[:4, :5], conv.bias[:4], stride, kernel // 2)
    assert torch.equal(conv(x, 4), wanted)
    assert torch.equal(conv(torch.ones(1, 8, 4, 4), 10), super(ElasticConv2d, conv).forward(torch.ones(1, 8, 4, 4)))


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [3, 5, 7])
def test_depthwise_uses_the_middle_of_the_kernel(kernel: int, stride: int) -> None:
    conv = ElasticDepthwise(6, 7, stride)
    x = torch.randn(2, 4, 9, 9)
    edge = 3 - kernel // 2
    # a small kernel is the large one with zeros around it
    padded = torch.zeros(4, 1, 7, 7)
    padded[:, :, edge : 7 - edge, edge : 7 - edge] = conv.weight[:4, :, edge : 7 - edge, edge : 7 - edge].detach()
    torch.testing.assert_close(conv(x, kernel), F.conv2d(x, padded, None, stride, 3, groups=4))


def test_linear_reads_its_width_from_the_input() -> None:
    linear = ElasticLinear(8, 3)
    x = torch.randn(2, 5)
    assert torch.equal(linear(x), F.linear(x, linear.weight[:, :5], linear.bias))


@pytest.mark.parametrize("batch", [1, 2])
def test_linear_is_equal_to_the_bit_whatever_its_width(batch: int) -> None:
    """One image is a matrix times a vector, which BLAS rounds by the length of the rows in memory."""
    linear = ElasticLinear(32, 10)
    for width in range(1, 33):
        x = torch.randn(batch, width)
        assert torch.equal(linear(x), F.linear(x, linear.weight[:, :width].clone(), linear.bias)), width


@pytest.mark.parametrize("size", [4, 5, 1])
def test_subsample_is_what_a_strided_pointwise_convolution_sees(size: int) -> None:
    x, weight = torch.randn(2, 3, size, size), torch.randn(6, 3, 1, 1)
    torch.testing.assert_close(F.conv2d(subsample(x, 2), weight), F.conv2d(x, weight, stride=2))
    assert subsample(x, 1) is x


def test_activation_by_name() -> None:
    x = torch.linspace(-4, 4, 9)
    for name in ("relu", "silu", "hardswish"):
        assert torch.equal(activation(name)(x), getattr(F, name)(x))
    with pytest.raises(SettingError, match="did you mean 'silu'"):
        activation("sillu")


def test_drop_path_drops_whole_images_and_keeps_the_mean() -> None:
    x = torch.rand(20_000, 2, 2, 1) + 0.5
    assert drop_path(x, 0.0) is x
    torch.manual_seed(0)
    out = drop_path(x, 0.25)
    dropped = out.flatten(1)[:, 0] == 0
    assert not out[dropped].any()
    torch.testing.assert_close(out[~dropped], x[~dropped] * 4 / 3)
    assert abs(dropped.float().mean() - 0.25) < 4 * (0.25 * 0.75 / 20_000) ** 0.5


@pytest.mark.parametrize("size", [8, 7])
def test_subsampling_is_slicing_and_keeps_the_layout_of_its_gradient(size: int) -> None:
    x = torch.randn(2, 6, size, size).to(memory_format=torch.channels_last).requires_grad_()
    out = subsample(x, 2)
    assert torch.equal(out, x[:, :, ::2, ::2])
    (gradient,) = torch.autograd.grad(out.square().sum(), x)
    (sliced,) = torch.autograd.grad(x[:, :, ::2, ::2].square().sum(), x)
    assert torch.equal(gradient, sliced)
    assert gradient.is_contiguous(memory_format=torch.channels_last)
    assert subsample(x, 1) is x
