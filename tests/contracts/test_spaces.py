"""What every space of search_spaces must keep; a new space is tested by being there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter as Tally
from dataclasses import replace
from functools import cache
from itertools import product

import numpy as np
import pytest
import torch
from scipy.stats import chisquare
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode, flop_registry

import nas_kd
from nas_kd.errors import SettingError
from nas_kd.space import Arch, Candidate, ElasticSpace, space_names

NAMES = space_names()
CLASSES, CHANNELS = 7, 3

pytestmark = pytest.mark.parametrize("name", NAMES)


@cache
def space_of(name: str) -> ElasticSpace:
    return nas_kd.load_space(name)


@cache
def random_weights(name: str) -> dict[str, Tensor]:
    """Weights in which nothing is 0 or 1, so that every residual branch and every norm matters."""
    generator = torch.Generator().manual_seed(3)
    net = nas_kd.Supernet(space_of(name), CLASSES, CHANNELS)
    weights = {}
    for key, value in net.state_dict().items():
        fan = max(1.0, value[0].numel()) if value.ndim > 1 else 4.0
        weights[key] = torch.randn(value.shape, generator=generator) / fan**0.5 + (value.ndim == 1) * 0.7
    return weights


def supernet(name: str) -> nas_kd.Supernet:
    net = nas_kd.Supernet(space_of(name), CLASSES, CHANNELS)
    net.load_state_dict(random_weights(name))
    return net


def images(name: str, count: int = 4, resolution: int | None = None, seed: int = 0) -> Tensor:
    size = resolution or space_of(name).resolution
    return torch.randn(count, CHANNELS, size, size, generator=torch.Generator().manual_seed(seed))


def some_archs(space: ElasticSpace, count: int) -> list[Arch]:
    return [space.smallest(), space.largest(), *(space.sample(seed) for seed in range(count))]


# ---- values ------------------------------------------------------------------------------------------


def test_json_round_trip(name: str) -> None:
    for arch in some_archs(space_of(name), 30):
        again = Arch.from_dict(json.loads(json.dumps(arch.to_dict())))
        assert again == arch and hash(again) == hash(arch) and again.key == arch.key
        assert again.to_dict() == arch.to_dict()
        assert len(arch.key) == 12 and set(arch.key) <= set("0123456789abcdef")


def test_size_counts_distinct_archs(name: str) -> None:
    space = space_of(name)
    for stage in space.stages:
        candidates = stage.candidates()
        assert len(set(candidates)) == len(candidates) == stage.size
        assert {stage.largest(), stage.smallest()} <= set(candidates)
        assert all(stage.contains(candidate) for candidate in candidates)
    assert space.size == np.prod([len(stage.candidates()) for stage in space.stages], dtype=object)
    if space.size <= 100_000:
        assert len(set(space)) == sum(1 for _ in space) == space.size
    else:
        first = [arch for arch, _ in zip(space, range(500), strict=False)]
        assert len(set(first)) == 500


def test_distinct_candidates_are_distinct_networks(name: str) -> None:
    """Then distinct archs are distinct networks: the widths between stages are part of the lists."""
    space = space_of(name)
    for index, stage in enumerate(space.stages):
        for in_width in space.in_widths(index):
            networks = Tally(str(stage.resolve(c, in_width)) for c in stage.candidates())
            assert len(networks) == stage.size, networks.most_common(2)


def test_samples_are_uniform_in_every_dimension(name: str) -> None:
    space, draws = space_of(name), 2000
    archs = [space.sample(seed) for seed in range(draws)]
    for index, stage in enumerate(space.stages):
        chosen = [arch.stages[index] for arch in archs]
        counts = {
            "width": ([c.width for c in chosen], stage.widths),
            "depth": ([c.depth for c in chosen], stage.depths),
        }
        fields = [sorted({layer[f] for g in stage.groups() for layer in g}) for f in range(len(stage.fields))]
        for position, (f, values) in product(range(stage.depths[-1]), enumerate(fields)):
            drawn = [c.layers[position][f] for c in chosen if c.depth > position]
            counts[f"layer {position} {stage.fields[f]}"] = (drawn, values)
        for what, (drawn, values) in counts.items():
            assert set(drawn) == set(values), (index, what)
            if len(values) > 1:
                assert chisquare([drawn.count(v) for v in values]).pvalue > 1e-4, (index, what)


def test_same_seed_same_arch_in_another_process(name: str) -> None:
    code = (
        f"import nas_kd; s = nas_kd.load_space({name!r});"
        "print(s.hash, *(s.sample(i).key for i in range(20)), s.largest().key, s.smallest().key)"
    )
    space = space_of(name)
    mine = [space.hash, *(space.sample(i).key for i in range(20)), space.largest().key, space.smallest().key]
    env = os.environ | {"PYTHONHASHSEED": "123", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    theirs = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert theirs.stdout.split() == mine


def test_a_foreign_arch_is_refused_everywhere(name: str) -> None:
    space, net = space_of(name), supernet(name)
    foreign = replace(space.largest(), space="0123456789ab")
    calls = {
        "validate": lambda: space.validate(foreign),
        "layers": lambda: space.layers(foreign, CLASSES),
        "cost": lambda: space.cost(foreign, num_classes=CLASSES),
        "build": lambda: space.build(foreign, CLASSES),
        "encode": lambda: space.encode([space.smallest(), foreign]),
        "forward": lambda: net(images(name), foreign),
        "forward_stages": lambda: net.forward_stages(images(name), foreign),
        "extract": lambda: net.extract(foreign),
        "calibrate": lambda: nas_kd.calibrate(net, [images(name)], [foreign]),
    }
    for call in calls.values():
        with pytest.raises(SettingError, match=f"0123456789ab.*{space.hash}"):
            call()


def test_settings_that_are_not_offered_are_refused(name: str) -> None:
    space = space_of(name)
    good = space.smallest()
    first = good.stages[0]
    wrong = [
        replace(first, width=first.width + 1000),
        replace(first, layers=first.layers * 100),
        replace(first, layers=()),
        replace(first, layers=(tuple(1001 for _ in first.layers[0]), *first.layers[1:])),
        replace(first, layers=((*first.layers[0], 1), *first.layers[1:])),
    ]
    space.validate(good)
    for candidate in wrong:
        with pytest.raises(SettingError, match=r"arch\.stages\[0\]"):
            space.validate(replace(good, stages=(candidate, *good.stages[1:])))
    with pytest.raises(SettingError, match="stages"):
        space.validate(replace(good, stages=good.stages[1:]))
    with pytest.raises(SettingError, match=r"arch\.stages\[0\]"):
        space.arch((wrong[0], *good.stages[1:]))


def test_describe_is_json_and_holds_the_hash(name: str) -> None:
    space = space_of(name)
    described = json.loads(json.dumps(space.describe()))
    assert (described["name"], described["hash"], described["size"]) == (space.name, space.hash, space.size)
    assert space.name == name


# ---- cost --------------------------------------------------------------------------------------------


class Counter(TorchDispatchMode):
    """torch's own formulas of flop_counter without its slow attribution to modules."""

    flops = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        out = func(*args, **(kwargs or {}))
        if func._overloadpacket in flop_registry:
            self.flops += flop_registry[func._overloadpacket](*args, **(kwargs or {}), out_val=out)
        return out


def test_closed_form_equals_the_counted_network(name: str) -> None:
    space, net = space_of(name), supernet(name).eval()
    x = images(name, 1)
    for arch in some_archs(space, 200):
        student = net.extract(arch)
        with torch.no_grad(), Counter() as counter:
            student(x)
            cost = space.cost(arch, num_classes=CLASSES, in_chans=CHANNELS)
            assert counter.flops == 2 * cost.macs, arch.label
            assert sum(p.numel() for p in student.parameters()) == cost.params, arch.label


@pytest.mark.parametrize(("resolution", "in_chans", "num_classes"), [(13, 1, 3), (24, 4, 100)])
def test_closed_form_at_other_shapes(name: str, resolution: int, in_chans: int, num_classes: int) -> None:
    space = space_of(name)
    for arch in some_archs(space, 1):
        model = space.build(arch, num_classes=num_classes, in_chans=in_chans).eval()
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            out = model(torch.randn(1, in_chans, resolution, resolution))
        cost = space.cost(arch, resolution=resolution, in_chans=in_chans, num_classes=num_classes)
        assert (counter.get_total_flops(), out.shape) == (2 * cost.macs, (1, num_classes))
        assert sum(p.numel() for p in model.parameters()) == cost.params


def test_codes_and_vectorised_costs(name: str) -> None:
    space = space_of(name)
    archs = some_archs(space, 100)
    codes = space.encode(archs)
    assert codes.shape == (len(archs), len(space.stages)) and codes.dtype.kind == "i"
    assert space.decode(codes) == archs
    assert space.encode([]).shape == (0, len(space.stages))
    shape = {"resolution": 20, "in_chans": 1, "num_classes": CLASSES}
    frame = space.costs(codes, **shape)
    assert list(frame.columns) == ["macs", "params"]
    assert list(frame.itertuples(index=False, name=None)) == [tuple(space.cost(a, **shape)) for a in archs]


@pytest.mark.parametrize("resolution", [None, 19])
def test_stage_costs_add_up_to_the_cost(name: str, resolution: int | None) -> None:
    space = space_of(name)
    shape = {"resolution": resolution, "in_chans": 1, "num_classes": CLASSES}
    for arch in some_archs(space, 100):
        widths = [space.stem.width, *(stage.width for stage in arch.stages)]
        parts = [space.stage_cost(i, widths[i], c, **shape) for i, c in enumerate(arch.stages)]
        assert tuple(sum(column) for column in zip(*parts, strict=True)) == space.cost(arch, **shape)


def test_cost_never_falls_when_one_setting_rises(name: str) -> None:
    space = space_of(name)
    rng = np.random.default_rng(0)

    def larger(index: int, candidate: Candidate) -> list[Candidate]:
        stage = space.stages[index]
        group = next(g for g in stage.groups() if all(layer in g for layer in candidate.layers))
        wider = [replace(candidate, width=w) for w in stage.widths if w > candidate.width]
        deeper = [
            replace(candidate, layers=candidate.layers + (group[0],) * (d - candidate.depth))
            for d in stage.depths
            if d > candidate.depth
        ]
        at = int(rng.integers(candidate.depth))
        now = candidate.layers[at]
        richer = [
            replace(candidate, layers=(*candidate.layers[:at], layer, *candidate.layers[at + 1 :]))
            for layer in group
            if layer != now and all(new >= old for new, old in zip(layer, now, strict=True))
        ]
        return wider + deeper + richer

    for arch in some_archs(space, 5):
        cost = space.cost(arch, num_classes=CLASSES)
        for index, candidate in enumerate(arch.stages):
            for changed in larger(index, candidate):
                stages = (*arch.stages[:index], changed, *arch.stages[index + 1 :])
                more = space.cost(replace(arch, stages=stages), num_classes=CLASSES)
                # a wider stage may turn a projecting shortcut into an identity, which saves one convolution
                if changed.width == candidate.width:
                    assert more.macs >= cost.macs and more.params >= cost.params
    largest, smallest = (space.cost(a, num_classes=CLASSES) for a in (space.largest(), space.smallest()))
    for cost in (space.cost(space.sample(seed), num_classes=CLASSES) for seed in range(200)):
        assert smallest.macs <= cost.macs <= largest.macs and smallest.params <= cost.params <= largest.params


# ---- networks ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["nchw", "nhwc"])
def test_extract_is_equal_to_the_bit(name: str, layout: torch.memory_format, training: bool) -> None:
    space = space_of(name)
    net = supernet(name).to(memory_format=layout)
    archs = some_archs(space, 1)
    norms = nas_kd.calibrate(net, [images(name, 8, seed=s) for s in (1, 2)], archs)
    net.train(training)
    odd = space.resolution * 3 // 4 + 1 - space.resolution * 3 // 4 % 2
    inputs = [images(name, 4), images(name, 1), images(name, 3, odd)]
    for arch, norm in zip(archs, norms, strict=True):
        student = net.extract(arch, norm=norm).to(memory_format=layout)
        assert student.training == training and not any(isinstance(m, nas_kd.Supernet) for m in student.modules())
        for x in (x.to(memory_format=layout) for x in inputs):
            mine, theirs = net.forward_stages(x, arch, None if training else norm), student.forward_stages(x)
            assert torch.equal(mine.logits, theirs.logits) and torch.equal(mine.pooled, theirs.pooled)
            for a, b in zip(mine.stages + mine.pre, theirs.stages + theirs.pre, strict=True):
                assert torch.equal(a, b)


def test_stages_have_the_sizes_and_widths_the_space_says(name: str) -> None:
    space, net = space_of(name), supernet(name)
    for resolution in (space.resolution, 21):
        for arch in some_archs(space, 2):
            out = net.forward_stages(images(name, 2, resolution), arch)
            assert [s.shape[2] for s in out.stages] == space.stage_sizes(resolution)
            assert [s.shape[1] for s in out.stages] == [c.width for c in arch.stages]
            assert all(c.width in space.in_widths(i + 1) for i, c in enumerate(arch.stages[:-1]))
            assert out.logits.shape == (2, CLASSES)
            assert torch.equal(out.logits, net(images(name, 2, resolution), arch))


def slices(net: nas_kd.Supernet, arch: Arch) -> dict[str, tuple[slice, ...]]:
    """Return where the parameters of the static network lie in the shared tensors, from shapes alone."""
    shared = dict(net.named_parameters())
    found = {}
    for key, value in net.space.build(arch, CLASSES, CHANNELS).named_parameters():
        cut = [slice(0, n) for n in value.shape]
        for dim in range(2, value.ndim):  # the middle of the kernel
            edge = (shared[key].shape[dim] - value.shape[dim]) // 2
            cut[dim] = slice(edge, edge + value.shape[dim])
        found[key] = tuple(cut)
    return found


def test_weights_outside_the_slice_never_matter(name: str) -> None:
    space = space_of(name)
    x = images(name)
    y = torch.arange(len(x))
    for arch in (space.smallest(), *(space.sample(seed) for seed in range(3))):
        clean, dirty = supernet(name), supernet(name)
        inside = slices(clean, arch)
        with torch.no_grad():
            for key, parameter in dirty.named_parameters():
                outside = torch.ones_like(parameter, dtype=torch.bool)
                if key in inside:
                    outside[inside[key]] = False
                parameter[outside] = torch.nan
        (norm,) = nas_kd.calibrate(dirty, [x], [arch])
        (same,) = nas_kd.calibrate(clean, [x], [arch])
        assert all(torch.equal(a, b) for k in norm for a, b in zip(norm[k], same[k], strict=True))
        assert norm.keys() == {k for k, m in dirty.extract(arch).named_modules() if isinstance(m, nn.BatchNorm2d)}
        out = clean(x, arch)
        assert out.isfinite().all() and torch.equal(dirty(x, arch), out)
        for net in (clean, dirty):
            nn.functional.cross_entropy(net(x, arch), y).backward()
        for (key, a), (_, b) in zip(clean.named_parameters(), dirty.named_parameters(), strict=True):
            if key not in inside:
                assert a.grad is None and b.grad is None, key
                continue
            assert torch.equal(a.grad, b.grad), key
            beyond = torch.ones_like(a, dtype=torch.bool)
            beyond[inside[key]] = False
            assert not a.grad[beyond].any(), key


def test_calibrated_subnet_equals_calibrated_student(name: str) -> None:
    space, net = space_of(name), supernet(name)
    archs = some_archs(space, 2)
    batches = [images(name, n, seed=n) for n in (5, 8)]
    norms = nas_kd.calibrate(net, batches, archs)
    net.eval()
    for arch, norm in zip(archs, norms, strict=True):
        student = net.extract(arch)
        nas_kd.calibrate(student, batches)
        assert torch.equal(student(images(name)), net(images(name), arch, norm))


def test_a_space_keeps_its_largest_and_smallest_inside(name: str) -> None:
    space = space_of(name)
    for arch in (space.largest(), space.smallest()):
        space.validate(arch)
        assert space.arch(arch.stages) == arch
