"""What the networks of every space of search_spaces must keep; a new space is tested by being there."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import product
from typing import Any

import pytest
import torch
from space_cases import CASES, CHANNELS, CLASSES, fit, images, odd, quick, shaken, some_archs
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

import nas_kd
from nas_kd.blocks import ViTStage
from nas_kd.errors import SettingError
from nas_kd.space import Arch, ElasticSpace


@pytest.fixture(scope="module", params=CASES)
def net(request: pytest.FixtureRequest) -> nas_kd.Supernet:
    """A supernet with random weights that no test changes."""
    return shaken(CASES[request.param])


@pytest.fixture(autouse=True)
def untouched(net: nas_kd.Supernet) -> Iterator[None]:
    yield
    net.train().zero_grad()


# ---- what they cost ----------------------------------------------------------------------------------

WEIGHTED = {torch.ops.aten.convolution, torch.ops.aten.addmm, torch.ops.aten.mm}


class Counter(TorchDispatchMode):
    """torch's own formulas of flop_counter, without its slow attribution to modules."""

    def __init__(self) -> None:
        super().__init__()
        self.flops, self.without_weights = 0, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if (op := func._overloadpacket) in flop_registry:
            flops = flop_registry[op](*args, **(kwargs or {}), out_val=out)
            if op in WEIGHTED:
                self.flops += flops
            else:
                self.without_weights += flops
        return out


def attention(space: ElasticSpace, arch: Arch, resolution: int) -> int:
    """Return the multiply-adds of queries with keys and of their weights with values."""
    tokens = space.stage_sizes(resolution)[-1] ** 2
    layers = [layer for layer in space.layers(arch, CLASSES) if layer["op"] == "vit"]
    return sum(2 * tokens**2 * layer["heads"] * layer["head_dim"] for layer in layers)


@pytest.mark.parametrize("shape", ["quick", "odd"])
def test_closed_form_equals_the_counted_network(net: nas_kd.Supernet, shape: str) -> None:
    space = net.space
    resolution = (quick if shape == "quick" else odd)(space)
    in_chans, classes = (CHANNELS, CLASSES) if shape == "quick" else (1, 3)
    for arch in some_archs(space, 8) if shape == "quick" else (space.smallest(), space.sample(0)):
        student = net.extract(arch) if shape == "quick" else space.build(arch, classes, in_chans)
        nas_kd.calibrate(student, [images(2, resolution, channels=in_chans)])
        student.eval()
        # attention as two matrix products: fused, some versions of torch have no formula for it
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), Counter() as counter:
            out = student(images(1, resolution, channels=in_chans))
        cost = space.cost(arch, resolution=resolution, num_classes=classes, in_chans=in_chans)
        assert out.shape == (1, classes)
        assert (counter.flops, sum(p.numel() for p in student.parameters())) == (2 * cost.macs, cost.params), arch.label
        assert counter.without_weights == 2 * attention(space, arch, resolution), arch.label


# ---- extraction --------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["nchw", "nhwc"])
@torch.no_grad()
def test_extract_is_equal_to_the_bit(net: nas_kd.Supernet, layout: torch.memory_format) -> None:
    space, size = net.space, quick(net.space)
    if layout == torch.channels_last:
        net = copy.deepcopy(net).to(memory_format=layout)
    archs = some_archs(space, 1)
    norms = nas_kd.calibrate(net, [images(6, size, seed).to(memory_format=layout) for seed in (1, 2)], archs)
    inputs = [images(4, size), images(1, size), images(3, odd(space))]
    if space.resolution <= 16:
        inputs.append(images(2, space.resolution))
    elif layout == torch.channels_last:
        inputs = inputs[:1]  # the small spaces have every kind of stage
    for training, (arch, norm) in product((True, False), list(zip(archs, norms, strict=True))):
        student = net.train(training).extract(arch, norm=norm)
        assert student.training == training and not any(isinstance(m, nas_kd.Supernet) for m in student.modules())
        for x in (x.to(memory_format=layout) for x in inputs):
            mine, theirs = net.forward_stages(x, arch, None if training else norm), student.forward_stages(x)
            assert mine.logits.isfinite().all() and mine.logits.shape == (len(x), CLASSES)
            assert torch.equal(mine.logits, theirs.logits) and torch.equal(mine.pooled, theirs.pooled)
            for a, b in zip(mine.stages + mine.pre, theirs.stages + theirs.pre, strict=True):
                assert torch.equal(a, b)


def test_calibrated_subnet_equals_calibrated_student(net: nas_kd.Supernet) -> None:
    space, size = net.space, quick(net.space)
    archs = [space.smallest(), space.sample(0)]
    batches = [images(n, size, seed=n) for n in (5, 8)]
    norms = nas_kd.calibrate(net, batches, archs)
    net.eval()
    for arch, norm in zip(archs, norms, strict=True):
        student = net.extract(arch)
        nas_kd.calibrate(student, batches)
        assert torch.equal(student(images(4, size)), net(images(4, size), arch, norm))


def test_stages_have_the_sizes_and_widths_the_space_says(net: nas_kd.Supernet) -> None:
    space = net.space
    for resolution in (quick(space), odd(space)):
        for arch in some_archs(space, 1):
            x = images(2, resolution)
            with torch.no_grad():
                out = net.forward_stages(x, arch)
                assert torch.equal(out.logits, net(x, arch))
            assert [s.shape[2] for s in out.stages] == space.stage_sizes(resolution)
            assert [s.shape[1] for s in out.stages] == [c.width for c in arch.stages]
            assert space.stem.width_of(arch.stem) in space.in_widths(0)
            assert all(c.width in space.in_widths(i + 1) for i, c in enumerate(arch.stages[:-1]))


# ---- sharing -----------------------------------------------------------------------------------------


def slices(net: nas_kd.Supernet, arch: Arch) -> dict[str, tuple[slice, ...]]:
    """Return where the parameters of the static network lie in the shared tensors, from shapes alone."""
    shared = dict(net.named_parameters())
    found = {}
    with torch.device("meta"):
        student = net.space.build(arch, CLASSES, CHANNELS)
    for key, value in student.named_parameters():
        cut = [slice(0, n) for n in value.shape]
        for dim in range(2, value.ndim):  # the middle of the kernel
            edge = (shared[key].shape[dim] - value.shape[dim]) // 2
            cut[dim] = slice(edge, edge + value.shape[dim])
        found[key] = tuple(cut)
    return found


def beyond(weight: Tensor, inside: tuple[slice, ...] | None) -> Tensor:
    """Return which entries of a shared tensor an arch does not have."""
    outside = torch.ones_like(weight, dtype=torch.bool)
    if inside is not None:
        outside[inside] = False
    return outside


@pytest.mark.parametrize("which", ["smallest", 0])
def test_weights_outside_the_slice_never_matter(net: nas_kd.Supernet, which: str | int) -> None:
    """Fewer layers, channels, heads and kernel pixels: what an arch leaves out may be NaN."""
    space = net.space
    arch = space.smallest() if which == "smallest" else space.sample(int(which))
    x = images(4, quick(space))
    dirty, inside = copy.deepcopy(net), slices(net, arch)
    with torch.no_grad():
        for key, parameter in dirty.named_parameters():
            parameter[beyond(parameter, inside.get(key))] = torch.nan
    (norm,), (same,) = nas_kd.calibrate(dirty, [x], [arch]), nas_kd.calibrate(net, [x], [arch])
    assert all(torch.equal(a, b) for k in norm for a, b in zip(norm[k], same[k], strict=True))
    assert norm.keys() == {k for k, m in dirty.extract(arch).named_modules() if isinstance(m, nn.BatchNorm2d)}
    out = net(x, arch)
    assert out.isfinite().all() and torch.equal(dirty(x, arch), out)
    for one in (net, dirty):
        nn.functional.cross_entropy(one(x, arch), torch.arange(len(x))).backward()
    for (key, a), (_, b) in zip(net.named_parameters(), dirty.named_parameters(), strict=True):
        if key not in inside:
            assert a.grad is None and b.grad is None, key
            continue
        assert a.grad is not None and b.grad is not None and torch.equal(a.grad, b.grad), key
        assert a.grad.any() and not a.grad[beyond(a, inside[key])].any(), key


def test_deeper_is_shallower_at_the_start(net: nas_kd.Supernet) -> None:
    """Zero-gamma: a supernet's inner layers begin as identities, so depth does not change the output."""
    space = net.space
    if any(isinstance(stage, ViTStage) for stage in space.stages):
        pytest.skip("a transformer layer begins with random branches, as in the literature")
    fresh, x = nas_kd.Supernet(space, CLASSES, CHANNELS), images(4, quick(space))
    for arch in (space.largest(), space.sample(0)):
        flat = [
            replace(c, layers=c.layers[: stage.depths[0]]) for stage, c in zip(space.stages, arch.stages, strict=True)
        ]
        deep = [
            replace(c, layers=c.layers + c.layers[-1:] * (stage.depths[-1] - c.depth))
            for stage, c in zip(space.stages, arch.stages, strict=True)
        ]
        with torch.no_grad():
            outs = [fresh(x, replace(arch, stages=tuple(stages))) for stages in (flat, deep)]
        assert torch.equal(*outs) and outs[0].std() > 0


# ---- mistakes ----------------------------------------------------------------------------------------


def test_a_foreign_arch_is_refused_everywhere(net: nas_kd.Supernet) -> None:
    space = net.space
    x, foreign = images(2, quick(space)), replace(space.largest(), space="0123456789ab")
    calls: dict[str, Callable[[], object]] = {
        "validate": lambda: space.validate(foreign),
        "layers": lambda: space.layers(foreign, CLASSES),
        "cost": lambda: space.cost(foreign, num_classes=CLASSES),
        "build": lambda: space.build(foreign, CLASSES),
        "encode": lambda: space.encode([space.smallest(), foreign]),
        "forward": lambda: net(x, foreign),
        "forward_stages": lambda: net.forward_stages(x, foreign),
        "extract": lambda: net.extract(foreign),
        "calibrate": lambda: nas_kd.calibrate(net, [x], [foreign]),
    }
    for call in calls.values():
        with pytest.raises(SettingError, match=f"0123456789ab.*{space.hash}"):
            call()


def test_images_that_are_no_whole_patches_are_refused(net: nas_kd.Supernet) -> None:
    space = net.space
    size = fit(space, 1) + 1
    if fit(space, size) == size:
        assert net(images(2, fit(space, 2 * space.stride - 1)), space.smallest()).shape == (2, CLASSES)
        return
    for run in (lambda x: net(x, space.smallest()), net.extract(space.smallest())):
        with pytest.raises(SettingError, match=r"resolution.*multiples of the patch"):
            run(images(2, size))
