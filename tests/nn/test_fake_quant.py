"""Rounding in training is what an int8 runtime computes, with the gradient of what lies within its range."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nas_kd.export.formats.onnx import save_program
from nas_kd.export.formats.onnx_int8 import quantise
from nas_kd.nn.fake_quant import HIGH, LOW, RANGE, ActivationRange, WeightRounding, faked, rounded


def drawn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def test_values_are_those_of_whole_numbers_and_gradients_pass_where_they_are_within() -> None:
    x = (3 * drawn(200, dtype=torch.float64)).requires_grad_()
    scale, zero = torch.tensor(0.02, dtype=torch.float64), torch.tensor(-7.0, dtype=torch.float64)
    found = rounded(x, scale, zero, LOW, HIGH)
    place = np.clip(np.rint(x.detach().numpy() / 0.02 - 7), -128, 127)
    np.testing.assert_allclose(found.detach().numpy(), (place + 7) * 0.02, rtol=0, atol=1e-12)
    cotangent = drawn(200, seed=1, dtype=torch.float64)
    (gradient,) = torch.autograd.grad(found, x, cotangent)
    exact = x.detach() / 0.02 - 7
    inside = (exact >= -128) & (exact <= 127)
    assert 20 < int(inside.sum()) < 180
    torch.testing.assert_close(gradient, torch.where(inside, cotangent, 0.0))


def test_a_norm_behind_a_convolution_changes_nothing_in_what_is_rounded() -> None:
    weight, factor = drawn(4, 3, 3, 3), torch.tensor([0.1, -2.0, 30.0, 1.0]).view(4, 1, 1, 1)
    torch.testing.assert_close(WeightRounding()(weight * factor), WeightRounding()(weight) * factor)
    assert all(len(channel.unique()) <= 255 for channel in WeightRounding()(weight))
    dead = WeightRounding()(torch.zeros(2, 3, 1, 1))
    assert torch.equal(dead, torch.zeros(2, 3, 1, 1))


def test_ranges_hold_zero_and_stay_in_evaluation() -> None:
    part = ActivationRange()
    x = 2 + drawn(50).abs()
    assert torch.equal(part.eval()(x), x)  # nothing is known
    part.train()(x)
    assert part.ends.tolist() == [0.0, pytest.approx(float(x.max()))]
    part.train()(-x)
    assert part.ends[0] == pytest.approx(-0.01 * float(x.max())) and part.ends[1] < x.max()
    kept = part.ends.clone()
    part.eval()(100 * x)
    assert torch.equal(part.ends, kept)
    zeros = torch.zeros(3)
    assert float(part(zeros).abs().max()) == 0.0  # padding stays exact


def chain() -> nn.Sequential:
    torch.manual_seed(0)
    convs = [nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, stride=2, padding=1), nn.ReLU()]
    return nn.Sequential(*convs, nn.Flatten(), nn.Linear(8 * 4 * 4, 5))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_zeros_stay_zeros_in_every_precision(dtype: torch.dtype) -> None:
    zeros = torch.zeros(4, 3, dtype=dtype)
    assert torch.equal(WeightRounding()(zeros), zeros)
    assert torch.equal(ActivationRange().train()(zeros), zeros)


def test_it_computes_what_the_int8_file_computes(tmp_path: Path) -> None:
    """Against onnxruntime's own quantisation of the same network, ranges from the same images."""
    onnx = pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    network, images = chain().eval(), drawn(64, 3, 8, 8, seed=1)
    whole, small = tmp_path / "net.onnx", tmp_path / "net.int8.onnx"
    save_program(network, images[:2], whole, ["images"], ["logits"])
    quantise(whole, small, iter([images]))
    session = runtime.InferenceSession(str(small))
    wanted = torch.from_numpy(session.run(None, {session.get_inputs()[0].name: images.numpy()})[0])
    arrays = {one.name: onnx.numpy_helper.to_array(one) for one in onnx.load(str(small)).graph.initializer}
    tensors = [name.removesuffix("_zero_point") for name, value in arrays.items() if name.endswith("zero_point")]
    activations = [name for name in tensors if arrays[f"{name}_scale"].ndim == 0]  # input, hidden ones, output
    steps = [(float(arrays[f"{name}_scale"]), float(arrays[f"{name}_zero_point"])) for name in activations]
    steps = list(dict.fromkeys(steps))  # torch 2.6 counts what only has another shape once more
    assert len(steps) == 4
    layers = [network[0], network[2], network[5]]
    with faked(network):
        network.train()(images)  # one batch, whose ends are the ranges: those of the file but for earlier rounding
        for layer, (scale, zero) in zip(layers, steps, strict=False):
            ends = torch.tensor([(LOW - zero) * scale, (HIGH - zero) * scale])
            torch.testing.assert_close(getattr(layer, RANGE).ends, ends, rtol=0, atol=2 * scale)
            getattr(layer, RANGE).ends.copy_(ends)
        found = network.eval()(images).detach()
        weights = [layer.weight.detach().numpy() for layer in layers]
    for name, weight in zip(("0.weight", "2.weight", "5.weight"), weights, strict=True):
        scales = arrays[f"{name}_scale"].reshape(-1, *[1] * (weight.ndim - 1))
        np.testing.assert_allclose(weight, arrays[f"{name}_quantized"] * scales, rtol=0, atol=1e-6)
    scale, zero = steps[-1]
    apart = (rounded(found, torch.tensor(scale), zero, LOW, HIGH) - wanted).abs() / scale  # it rounds its output too
    assert float(apart.max()) < 1.01 and float((apart < 0.01).double().mean()) > 0.95


def test_the_network_comes_out_as_it_went_in() -> None:
    network = chain()
    before, names = {name: value.clone() for name, value in network.state_dict().items()}, list(network.state_dict())
    kinds = [type(module) for module in network.modules()]
    seen: list[Any] = []
    with pytest.raises(RuntimeError, match="in the middle"), faked(network):
        seen.append([hasattr(module, RANGE) for module in network])
        network(drawn(2, 3, 8, 8)).sum().backward()
        assert network[0].parametrizations.weight.original.grad.abs().sum() > 0
        raise RuntimeError("in the middle")
    assert seen == [[True, False, True, False, False, True]]
    assert list(network.state_dict()) == names and [type(module) for module in network.modules()] == kinds
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert not any(hasattr(module, RANGE) for module in network)
    torch.testing.assert_close(network(drawn(2, 3, 8, 8)), chain()(drawn(2, 3, 8, 8)))
