"""Calibration of many archs in one pass, and over ranks, against one arch at a time."""

from __future__ import annotations

import copy
import weakref
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from clean_forks import clean_forks
from torch import Tensor, nn
from toys import same_norms

import nas_kd
from nas_kd.blocks import (
    BasicStage,
    BottleneckStage,
    ConvStem,
    LinearHead,
    MBStage,
    MobileHead,
    NormHead,
    PatchStem,
    ResNetDStem,
    ViTStage,
)
from nas_kd.nn import Recorder
from nas_kd.space import ElasticSpace

Values = dict[str, tuple[Tensor, Tensor]]

SPACES = {
    "basic": ElasticSpace(
        "basic",
        ConvStem(width=(4, 8)),
        (
            BasicStage(widths=(4, 6), depths=(1, 2), mids=(2, 4)),
            BasicStage(widths=(8, 12), depths=(1, 3), mids=(4, 8), stride=2),
        ),
        LinearHead(features=(8, 16)),
        8,
    ),
    "mobile": ElasticSpace(
        "mobile",
        ConvStem(width=(4, 8), stride=2, act="silu"),
        (
            MBStage(widths=(4, 8), depths=(1, 2), kernels=(3, 5), expands=(1, 2), uniform=True, pooled=True),
            MBStage(widths=(8, 12), depths=(1, 2), kernels=(3, 5), expands=(2, 3), stride=2),
        ),
        MobileHead(features=(16, 24), expand=2),
        9,
    ),
    "bottleneck": ElasticSpace(
        "bottleneck",
        ResNetDStem(mid=(4, 8), width=(8, 12)),
        (BottleneckStage(widths=(16, 24), depths=(1, 2), expands=(0.25, 0.5)),),
        LinearHead(),
        16,
    ),
    "transformer": ElasticSpace(
        "transformer",
        PatchStem(width=(8, 16), patch=4, grid=2),
        (ViTStage(widths=(8, 16), depths=(1, 2), heads=(1, 2), mlp_ratios=(1, 2), head_dim=4),),
        NormHead(),
        8,
    ),
}


def supernet(name: str) -> nas_kd.Supernet:
    torch.manual_seed(0)
    net = nas_kd.Supernet(SPACES[name], num_classes=3, in_chans=2)
    for parameter in net.parameters():
        nn.init.normal_(parameter, 0.3, 0.5)
    return net


def images(name: str, sizes: tuple[int, ...] = (4, 7, 3)) -> list[Tensor]:
    g, size = torch.Generator().manual_seed(1), SPACES[name].resolution
    return [torch.randn(n, 2, size, size, generator=g) * (0.5 + n / 8) + n / 5 for n in sizes]


def some_archs(name: str, count: int = 10) -> list[nas_kd.Arch]:
    space = SPACES[name]
    return [space.largest(), space.smallest(), *(space.sample(seed) for seed in range(count)), space.largest()]


@torch.no_grad()
def on_its_own(net: nas_kd.Supernet, batches: list[Tensor], arch: nas_kd.Arch) -> Values:
    """Run the whole network of one arch, without any tree."""
    recorder = Recorder()
    for x in batches:
        net.forward_stages(x, arch, recorder)
    return recorder.values()


@pytest.mark.parametrize("name", SPACES)
def test_many_archs_equal_each_on_its_own_to_the_bit(name: str) -> None:
    net, batches, archs = supernet(name), images(name), some_archs(name)
    together = nas_kd.calibrate(net, iter(batches), archs)
    for arch, norm in zip(archs, together, strict=True):
        assert same_norms(norm, on_its_own(net, batches, arch)), arch.label
        assert same_norms(norm, nas_kd.calibrate(net, batches, [arch])[0]), arch.label
    assert all(norm for norm in together) == (name != "transformer")  # which has no batch norms


@pytest.mark.parametrize("name", ["basic", "mobile", "bottleneck"])
def test_the_values_make_evaluation_of_one_batch_equal_training(name: str) -> None:
    net, (x,) = supernet(name).double(), images(name, (16,))
    x, archs = x.double(), some_archs(name)
    for arch, norm in zip(archs, nas_kd.calibrate(net, [x], archs), strict=True):
        assert all(part.dtype == torch.float64 for pair in norm.values() for part in pair)
        torch.testing.assert_close(net.eval()(x, arch, norm), net.train()(x, arch), rtol=1e-9, atol=1e-9)


def test_float64_is_pooled_without_loss() -> None:
    net, batches = supernet("mobile").double(), [x.double() for x in images("mobile")]
    arch = net.space.largest()
    features = F.conv2d(torch.cat(batches), net.stem.conv.weight, stride=2, padding=1).transpose(0, 1).flatten(1)
    mean, variance = nas_kd.calibrate(net, batches, [arch])[0]["stem.bn"]
    torch.testing.assert_close(mean, features.mean(1).detach(), rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(variance, features.var(1, unbiased=False).detach(), rtol=1e-13, atol=1e-13)


def layers_of(net: nas_kd.Supernet) -> list[nn.Module]:
    return [layer for stage in net.stages for layer in stage.layers]


def beginnings(archs: list[nas_kd.Arch]) -> Counter[int]:
    """Count for every layer behind how many different beginnings it runs."""
    found = set()
    for arch in archs:
        so_far: list[Any] = [arch.stem]
        for index, candidate in enumerate(arch.stages):
            for depth, layer in enumerate(candidate.layers):
                so_far.append((index, depth, layer, candidate.width))
                found.add(tuple(so_far))
    return Counter(beginning[-1][:2] for beginning in found)


@pytest.mark.parametrize("name", ["basic", "mobile"])
def test_every_beginning_runs_once_a_batch_and_nothing_runs_behind_the_last_norm(name: str) -> None:
    net, batches, archs = supernet(name), images(name), some_archs(name, 30)
    calls: Counter[Any] = Counter()
    for index, stage in enumerate(net.stages):
        for depth, layer in enumerate(stage.layers):
            layer.register_forward_hook(lambda *_, where=(index, depth): calls.update([where]))
    net.stem.register_forward_hook(lambda *_: calls.update(["stem"]))
    net.head.fc.register_forward_hook(lambda *_: calls.update(["classifier"]))
    nas_kd.calibrate(net, batches, archs)
    wanted = Counter({where: count * len(batches) for where, count in beginnings(archs).items()})
    wanted["stem"] = len({arch.stem for arch in archs}) * len(batches)
    assert calls == wanted
    assert sum(calls.values()) < 0.8 * len(batches) * sum(1 + sum(s.depth for s in a.stages) for a in archs)


def test_an_arch_without_batch_norms_runs_nothing() -> None:
    net = supernet("transformer")
    for module in net.modules():
        module.register_forward_pre_hook(lambda *_: pytest.fail("it ran"))
    assert nas_kd.calibrate(net, images("transformer"), some_archs("transformer", 2)) == [{}] * 5


def test_memory_is_a_path_not_a_tree() -> None:
    """Alive are the outputs of one path at most, whatever the number of archs."""
    net, (x,) = supernet("basic"), images("basic", (4,))
    archs = [net.space.sample(seed) for seed in range(100)]
    outputs: list[Any] = []
    most = 0

    def count(module: nn.Module, _: Any, out: tuple[Tensor, Tensor]) -> None:
        nonlocal most
        outputs.append(weakref.ref(out[0]))
        most = max(most, sum(output() is not None for output in outputs))

    for layer in layers_of(net):
        layer.register_forward_hook(count)
    nas_kd.calibrate(net, [x], archs)
    assert len(outputs) > 100 and most <= len(layers_of(net)) + 1


def test_a_foreign_arch_is_refused() -> None:
    with pytest.raises(nas_kd.errors.SettingError, match="space"):
        nas_kd.calibrate(supernet("basic"), images("basic"), [SPACES["mobile"].largest()])


# ---- ranks -------------------------------------------------------------------------------------------

SHARES = (slice(0, 1), slice(1, 3))  # uneven: one batch of 4 images, and two of 7 and 3


def plain() -> nn.Sequential:
    torch.manual_seed(2)
    return nn.Sequential(nn.Conv2d(2, 5, 3), nn.BatchNorm2d(5), nn.ReLU(), nn.Conv2d(5, 4, 3), nn.BatchNorm2d(4))


def calibrate_share(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    calls, all_reduce = 0, dist.all_reduce

    def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        return all_reduce(*args, **kwargs)

    dist.all_reduce = counted
    values = nas_kd.calibrate(supernet("mobile"), images("mobile")[SHARES[rank]], some_archs("mobile"))
    model = plain()
    nas_kd.calibrate(model, images("mobile")[SHARES[rank]])
    torch.save({"values": values, "calls": calls, "plain": model.state_dict()}, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_two_ranks_equal_one_on_all_batches(tmp_path: Path, one_thread: None) -> None:
    clean_forks()
    torch.multiprocessing.start_processes(calibrate_share, (str(tmp_path),), nprocs=2, start_method="forkserver")
    alone = nas_kd.calibrate(supernet("mobile"), images("mobile"), some_archs("mobile"))
    model = plain()
    nas_kd.calibrate(model, images("mobile"))
    ranks = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    assert [rank["calls"] for rank in ranks] == [2, 2]  # one for all archs, one for the plain module
    for found in ranks:
        for norm, wanted in zip(found["values"], alone, strict=True):
            assert norm.keys() == wanted.keys()
            for path in norm:
                for a, b in zip(norm[path], wanted[path], strict=True):
                    torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)
        for key, value in model.state_dict().items():
            torch.testing.assert_close(found["plain"][key], value, rtol=1e-6, atol=1e-7)
    for norm, other in zip(ranks[0]["values"], ranks[1]["values"], strict=True):
        assert same_norms(norm, other)  # to the bit
    share = nas_kd.calibrate(supernet("mobile"), images("mobile")[SHARES[0]], some_archs("mobile"))
    assert not torch.allclose(share[0]["stem.bn"][1], alone[0]["stem.bn"][1], rtol=1e-2)


def test_the_supernet_is_not_written() -> None:
    net = supernet("mobile").eval()
    before, archs = copy.deepcopy(net.state_dict()), some_archs("mobile")
    x = images("mobile")[0]
    norm = nas_kd.calibrate(net, [x], archs[1:2])[0]
    output = net(x, archs[1], norm)
    nas_kd.calibrate(net, images("mobile"), archs)
    assert torch.equal(net(x, archs[1], norm), output)  # another arch's calibration leaves no trace
    assert not net.training and all(torch.equal(before[key], value) for key, value in net.state_dict().items())
