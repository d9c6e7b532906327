"""A stem, a block and a head that stand in this file alone go through every contract: nothing else knows blocks."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from inspect import signature
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import pytest
import torch
import torch.nn.functional as F
from space_cases import CHANNELS, CLASSES, images, quick, shaken, some_archs
from torch import Tensor, nn

import nas_kd
from nas_kd.analyse.draw import arch_figure
from nas_kd.blocks import BasicStage, ConvStem, LinearHead, kinds
from nas_kd.errors import SettingError
from nas_kd.nn.elastic import ElasticConv2d, ElasticLinear, centre, prefix
from nas_kd.nn.norm import ElasticBatchNorm2d, NormValues, Recorder
from nas_kd.nn.part import Channels, ElasticHead, ElasticPart, Plans, consumer, producers, sizes
from nas_kd.nn.shortcut import pooled
from nas_kd.space import Arch, Cost, ElasticSpace, Head, Stage, Stem
from nas_kd.space.arch import Layer, Setting
from nas_kd.space.count import conv_cost, norm_cost, strided
from nas_kd.space.ends import several
from nas_kd.space.nni_codec import choices, from_sample, to_sample
from nas_kd.supernet.sorting import inner_channels
from tests.contracts import test_networks, test_sorting, test_spaces

# ---- a block of one's own: a pooled branch of 1x1 and k x k convolutions, added to the input -----------


@dataclass(frozen=True, kw_only=True)
class PinchStage(Stage):
    """1x1 convolution to a few channels, norm, SiLU, k x k convolution back, norm; pooled where the stride is 2."""

    kernels: tuple[int, ...] = (1, 3)
    mids: tuple[int, ...] = (2, 4)
    op: ClassVar[str] = "pinch"
    fields: ClassVar[tuple[str, ...]] = ("kernel", "mid")
    legend: ClassVar[str] = "kernel, inner channels (bar: share of the largest choice)"

    def groups(self) -> tuple[tuple[Layer, ...], ...]:
        return (tuple((kernel, mid) for kernel in self.kernels for mid in self.mids),)

    def resolve_layer(self, layer: Layer, in_width: int, width: int, stride: int) -> dict[str, Any]:
        kernel, mid = layer
        return {"op": "pinch", "in": in_width, "mid": mid, "out": width, "stride": stride, "kernel": kernel}

    @staticmethod
    def count(layer: Mapping[str, Any], size: int) -> tuple[Cost, int]:
        out = strided(size, layer["stride"])
        total = conv_cost(layer["in"], layer["mid"], 1, out * out) + norm_cost(layer["mid"])
        total = total + conv_cost(layer["mid"], layer["out"], layer["kernel"], out * out) + norm_cost(layer["out"])
        if layer["in"] != layer["out"]:
            total = total + conv_cost(layer["in"], layer["out"], 1, out * out)
        return total, out

    @staticmethod
    def static(layer: Mapping[str, Any]) -> nn.Module:
        return Pinch(layer["in"], layer["mid"], layer["out"], layer["stride"], layer["kernel"])

    def elastic(self, inputs: int, stride: int, projects: bool, kernel_transform: bool) -> ElasticPart:
        return ElasticPinch(self, inputs, stride, projects)

    def label(self, layer: Layer) -> str:
        return f"pinch {layer[0]}, {layer[1]}"

    def share(self, layer: Layer) -> float:
        return layer[1] / self.mids[-1]


class ElasticPinch(ElasticPart):
    def __init__(self, stage: PinchStage, inputs: int, stride: int, projects: bool) -> None:
        super().__init__()
        self.stride = stride
        mid, width, kernel = stage.mids[-1], stage.widths[-1], stage.kernels[-1]
        self.conv1, self.bn1 = ElasticConv2d(inputs, mid), ElasticBatchNorm2d(mid)
        self.conv2, self.bn2 = nn.Conv2d(mid, width, kernel, bias=False), ElasticBatchNorm2d(width)
        if projects and inputs != min(stage.widths) or len(stage.widths) > 1:
            self.shortcut = ElasticConv2d(inputs, width)
        nn.init.zeros_(self.bn2.weight)

    def forward(
        self, x: Tensor, layer: Layer, width: int, norm: NormValues | Recorder | None = None, drop: float = 0.0
    ) -> tuple[Tensor, Tensor]:
        kernel, mid = int(layer[0]), int(layer[1])
        x = pooled(x, self.stride)
        out = F.silu(self.bn1(self.conv1(x, mid), norm))
        weight = prefix(centre(self.conv2.weight, kernel), width, mid)
        out = self.bn2(F.conv2d(out, weight, None, 1, kernel // 2), norm)
        out = out + (x if x.shape[1] == width else self.shortcut(x, width))
        return out, out

    def channels(self, plans: Plans) -> Iterator[Channels]:
        yield Channels(consumer(self.conv2), producers(self.conv1, self.bn1), sizes(plans, "mid"))


class Pinch(nn.Module):
    def __init__(self, inputs: int, mid: int, width: int, stride: int, kernel: int) -> None:
        super().__init__()
        self.stride = stride
        self.conv1, self.bn1 = nn.Conv2d(inputs, mid, 1, bias=False), nn.BatchNorm2d(mid)
        self.conv2 = nn.Conv2d(mid, width, kernel, padding=kernel // 2, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.shortcut = nn.Identity() if inputs == width else nn.Conv2d(inputs, width, 1, bias=False)
        nn.init.zeros_(self.bn2.weight)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = pooled(x, self.stride)
        out = self.bn2(self.conv2(F.silu(self.bn1(self.conv1(x))))) + self.shortcut(x)
        return out, out


# ---- a stem and a head of one's own ------------------------------------------------------------------


@dataclass(frozen=True)
class PooledStem(Stem):
    """The mean of 2 x 2 pixels, then a 1x1 convolution with a bias."""

    width: int | tuple[int, ...] = 4
    op: ClassVar[str] = "pooled_stem"
    fields: ClassVar[tuple[str, ...]] = ("width",)

    @property
    def stride(self) -> int:
        return 2

    def options(self) -> tuple[tuple[Setting, ...], ...]:
        return (several(self.width),)

    def resolve(self, setting: Layer, in_chans: int) -> dict[str, Any]:
        return {"op": "pooled_stem", "in": in_chans, "out": self.width_of(setting)}

    @staticmethod
    def count(layer: Mapping[str, Any], size: int) -> tuple[Cost, int]:
        out = strided(size, 2)
        return conv_cost(layer["in"], layer["out"], 1, out * out, bias=True), out

    @staticmethod
    def static(layer: Mapping[str, Any]) -> nn.Module:
        return PooledStemNet(layer["in"], layer["out"])

    def elastic(self, in_chans: int) -> ElasticPart:
        return ElasticPooledStem(self, in_chans)


class ElasticPooledStem(ElasticPart):
    def __init__(self, stem: PooledStem, in_chans: int) -> None:
        super().__init__()
        self.stem = stem
        self.conv = ElasticConv2d(in_chans, stem.widths[-1], bias=True)

    def forward(self, x: Tensor, setting: Layer, norm: NormValues | Recorder | None = None) -> Tensor:
        return self.conv(pooled(x, 2), self.stem.width_of(setting))

    def channels(self, plans: Plans) -> Iterator[Channels]:
        yield from ()


class PooledStemNet(nn.Module):
    def __init__(self, in_chans: int, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_chans, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(pooled(x, 2))


@dataclass(frozen=True)
class MaxHead(Head):
    """The largest value of each channel, then a linear classifier."""

    op: ClassVar[str] = "max_head"
    fields: ClassVar[tuple[str, ...]] = ()

    def options(self) -> tuple[tuple[Setting, ...], ...]:
        return ()

    def resolve(self, setting: Layer, in_width: int, num_classes: int) -> dict[str, Any]:
        return {"op": "max_head", "in": in_width, "out": num_classes}

    @staticmethod
    def count(layer: Mapping[str, Any], size: int) -> tuple[Cost, int]:
        return conv_cost(layer["in"], layer["out"], 1, 1, bias=True), 1

    @staticmethod
    def static(layer: Mapping[str, Any]) -> nn.Module:
        return MaxHeadNet(layer["in"], layer["out"])

    def elastic(self, inputs: int, num_classes: int) -> ElasticHead:
        return ElasticMaxHead(inputs, num_classes)

    def label(self, setting: Layer) -> str:
        return "max, linear"


class ElasticMaxHead(ElasticHead):
    def __init__(self, inputs: int, num_classes: int) -> None:
        super().__init__()
        self.fc = ElasticLinear(inputs, num_classes)

    def forward(
        self, x: Tensor, setting: Layer, norm: NormValues | Recorder | None = None, dropout: float = 0.0
    ) -> tuple[Tensor, Tensor]:
        best = x.amax((2, 3))
        return self.fc(F.dropout(best, dropout, dropout > 0.0)), best

    def channels(self, plans: Plans) -> Iterator[Channels]:
        yield from ()


class MaxHeadNet(nn.Module):
    def __init__(self, inputs: int, num_classes: int) -> None:
        super().__init__()
        self.fc = nn.Linear(inputs, num_classes)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        best = x.amax((2, 3))
        return self.fc(best), best


SPACE = ElasticSpace(
    "pinched",
    PooledStem((4, 8)),
    (
        PinchStage(widths=(8, 12), depths=(1, 2), kernels=(1, 3), mids=(2, 3, 4)),
        BasicStage(widths=(8,), depths=(1, 2), mids=(2, 4)),  # beside a shipped one
        PinchStage(widths=(6, 10), depths=(1, 3), kernels=(3, 5), mids=(4, 6), stride=2),
    ),
    MaxHead(),
    resolution=8,
    resolutions=(8, 10),
)
OWN = (PooledStem, PinchStage, MaxHead)


# ---- every contract of spaces, networks and sorting --------------------------------------------------


@pytest.fixture
def space() -> ElasticSpace:
    return SPACE


@pytest.fixture
def net() -> nas_kd.Supernet:
    return shaken(SPACE)


def contracts(module: ModuleType) -> dict[str, Callable[..., None]]:
    """Return the tests of a module that take any space or supernet."""
    tests = {name: value for name, value in vars(module).items() if name.startswith("test_")}
    return {name: test for name, test in tests.items() if {"space", "net"} & set(signature(test).parameters)}


globals().update(contracts(test_spaces) | contracts(test_networks) | contracts(test_sorting))


def test_all_contracts_are_here() -> None:
    assert len(contracts(test_spaces)) > 10 and len(contracts(test_networks)) > 7 and len(contracts(test_sorting)) > 2
    own = [part for part in inner_channels(shaken(SPACE)) if part.reader.tensor.shape[1] in (4, 6)]
    assert len(own) == 2 + 2 + 3  # every layer's


# ---- codec, student folder, retraining, drawing ------------------------------------------------------


def test_archs_travel_to_nni_and_back() -> None:
    assert choices(SPACE)["stage_3.layer_3.kernel"] == (3, 5)
    for arch in some_archs(SPACE, 20):
        assert from_sample(SPACE, json.loads(json.dumps(to_sample(SPACE, arch)))) == arch


@pytest.fixture
def student(net: nas_kd.Supernet) -> nn.Module:
    arch = SPACE.sample(3)
    (norm,) = nas_kd.calibrate(net, [images(6, quick(SPACE))], [arch])
    return net.extract(arch, norm).eval()


def test_its_student_folder_opens_for_who_names_it(student: nn.Module, tmp_path: Path) -> None:
    folder = nas_kd.save_student(student, tmp_path / "s")
    with pytest.raises(SettingError, match=r"pooled_stem.*load_student\(folder, blocks="):
        nas_kd.load_student(folder)
    with pytest.raises(SettingError, match=r"pinch.*load_student\(folder, blocks="):
        nas_kd.load_student(folder, blocks=[PooledStem, MaxHead])
    again = nas_kd.load_student(folder, blocks=OWN)
    x = images(4, quick(SPACE))
    assert torch.equal(again(x), student(x))
    assert json.loads((folder / "arch.json").read_text()) == SPACE.layers(SPACE.sample(3), CLASSES, CHANNELS)
    nas_kd.save_student(again, tmp_path / "t")
    assert (tmp_path / "t/arch.json").read_bytes() == (folder / "arch.json").read_bytes()


def test_its_retraining_is_done_once(tmp_path: Path) -> None:
    data = nas_kd.load_data("digits")
    settings: dict[str, Any] = {"method": "ce", "epochs": 1, "warmup_epochs": 0, "run": tmp_path}
    arch = replace(SPACE.smallest(), resolution=8)
    first, again = (nas_kd.retrain(arch, None, data, space=SPACE, **settings) for _ in range(2))
    state = first.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in again.state_dict().items())


def test_an_op_that_is_taken_is_refused(tmp_path: Path) -> None:
    class Taken(PinchStage):
        op: ClassVar[str] = "basic"

        def resolve_layer(self, layer: Layer, in_width: int, width: int, stride: int) -> dict[str, Any]:
            return super().resolve_layer(layer, in_width, width, stride) | {"op": "basic"}

    taken = Taken(widths=(8,), depths=(1,))
    basic = BasicStage(widths=(8,), depths=(1,), mids=(2,))
    with pytest.raises(SettingError, match=r"\.op='basic'.*expected an op of its own"):
        ElasticSpace("both", ConvStem(8), (basic, taken), LinearHead(), resolution=8)
    alone = ElasticSpace("alone", ConvStem(8), (taken,), LinearHead(), resolution=8)
    with pytest.raises(SettingError, match="op='basic': expected an op other than"):
        nas_kd.save_student(alone.build(alone.smallest(), 2), tmp_path / "s")
    with pytest.raises(SettingError, match="op='basic'"):
        kinds([Taken])

    class Fewer(BasicStage):  # other choices of a shipped block are built by it
        pass

    fewer = ElasticSpace("fewer", ConvStem(8), (Fewer(widths=(8,), depths=(1,), mids=(2,)), basic), LinearHead())
    nas_kd.load_student(nas_kd.save_student(fewer.build(fewer.smallest(), 2), tmp_path / "f"))


def drawn(arch: Arch, run: Path) -> str:
    (run / "search").mkdir(parents=True)
    (run / "space.json").write_text(json.dumps(SPACE.describe()))
    (run / "search/best.json").write_text(json.dumps({"arch": arch.to_dict(), "key": arch.key}))
    return arch_figure(run) or ""


def test_it_is_drawn_from_the_files_of_a_run(tmp_path: Path) -> None:
    arch = SPACE.sample(5)
    figure = drawn(arch, tmp_path)
    for stage, candidate in zip(SPACE.stages, arch.stages, strict=True):
        assert all(stage.label(layer) in figure for layer in candidate.layers)
        assert stage.legend in figure
    assert "max, linear" in figure and SPACE.stem.label(arch.stem) in figure
    sizes = SPACE.stage_sizes(arch.resolution)
    assert f"{sizes[-1]} x {sizes[-1]}" in figure
