"""The inverted residual block (MobileNetV2/V3)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from nas_kd.errors import SettingError
from nas_kd.nn.act import activation, drop_path
from nas_kd.nn.elastic import ElasticConv2d, ElasticDepthwise
from nas_kd.nn.norm import ElasticBatchNorm2d, NormValues, Recorder
from nas_kd.nn.part import Channels, ElasticPart, Plans, consumer, producers, sizes
from nas_kd.nn.shortcut import pooled
from nas_kd.nn.transform import KernelTransform
from nas_kd.space.arch import Cost, Layer
from nas_kd.space.count import conv_cost, make_divisible, norm_cost, strided
from nas_kd.space.part import EPS, IF_CHANGED, LATER, ascending
from nas_kd.space.stages import Stage


@dataclass(frozen=True, kw_only=True)
class MBStage(Stage):
    """Inverted residual blocks (MobileNetV2/V3): expand 1x1, depthwise, squeeze-excite, project 1x1.

    Args:
        kernels: depthwise kernel sizes, odd and ascending, for each layer on its own.
        expands: expand ratios, ascending, for each layer on its own.
        ses: whether squeeze-excite is on, one choice for the whole stage: (False,), (True,) or both.
        act: activation: ``relu``, ``relu6``, ``silu`` or ``hardswish``.
        uniform: whether all layers of a stage share one setting, as in AttentiveNAS.
        pooled: whether blocks that change the shape have a shortcut too: average pooling where the stride is 2, then a
            1x1 convolution without norm where the width changes, as in AttentiveNAS.
        eps: what norms add to the variance.
    """

    kernels: tuple[int, ...] = (3, 5, 7)
    expands: tuple[float, ...] = (3, 4, 6)
    ses: tuple[bool, ...] = (False, True)
    act: str = "silu"
    uniform: bool = field(default=False, metadata=LATER)
    pooled: bool = field(default=False, metadata=LATER)
    eps: float = field(default=EPS, metadata=IF_CHANGED)
    op: ClassVar[str] = "mbconv"
    fields: ClassVar[tuple[str, ...]] = ("kernel", "expand", "se")
    legend: ClassVar[str] = "depthwise kernel, expand ratio (bar: share of the largest choice), SE: squeeze-excite"

    def __post_init__(self) -> None:
        super().__post_init__()
        ascending("kernels", self.kernels)
        ascending("expands", self.expands, float)
        if any(kernel % 2 == 0 for kernel in self.kernels):
            raise SettingError("kernels", self.kernels, "odd sizes")
        if self.ses not in ((False,), (True,), (False, True)):
            raise SettingError("ses", self.ses, "(False,), (True,) or (False, True)")

    def groups(self) -> tuple[tuple[Layer, ...], ...]:
        together = tuple(tuple((k, e, se) for k in self.kernels for e in self.expands) for se in self.ses)
        return tuple((layer,) for group in together for layer in group) if self.uniform else together

    @staticmethod
    def inner(in_width: int, expand: float, se: bool) -> tuple[int, int]:
        """Return the channels of the depthwise convolution, and the hidden ones of squeeze-excite or 0."""
        mid = in_width if expand == 1 else make_divisible(round(in_width * expand))
        return mid, make_divisible(mid / 4) if se else 0

    def resolve_layer(self, layer: Layer, in_width: int, width: int, stride: int) -> dict[str, Any]:
        kernel, expand, se = layer
        mid, hidden = self.inner(in_width, expand, bool(se))
        resolved = {"op": "mbconv", "in": in_width, "mid": mid, "out": width, "stride": stride}
        resolved |= {"kernel": int(kernel), "se": hidden, "act": self.act, "pooled": self.pooled}
        return resolved if self.eps == EPS else resolved | {"eps": self.eps}

    @staticmethod
    def count(layer: Mapping[str, Any], size: int) -> tuple[Cost, int]:
        mid = layer["mid"]
        after = strided(size, layer["stride"])
        pixels = after * after
        total = Cost(0, 0)
        if mid != layer["in"]:
            total = total + conv_cost(layer["in"], mid, 1, size * size) + norm_cost(mid)
        total = total + conv_cost(1, mid, layer["kernel"], pixels) + norm_cost(mid)  # depthwise
        if layer.get("pooled") and layer["in"] != layer["out"]:  # the pooled shortcut, without norm
            total = total + conv_cost(layer["in"], layer["out"], 1, pixels)
        if layer["se"]:  # squeeze-excite acts on one pixel
            total = total + conv_cost(mid, layer["se"], 1, 1, bias=True)
            total = total + conv_cost(layer["se"], mid, 1, 1, bias=True)
        return total + conv_cost(mid, layer["out"], 1, pixels) + norm_cost(layer["out"]), after

    @staticmethod
    def static(layer: Mapping[str, Any]) -> nn.Module:
        widths = (layer["in"], layer["mid"], layer["out"])
        more = (layer["se"], layer["act"])
        return MBConv(
            *widths, layer["stride"], layer["kernel"], *more, layer.get("pooled", False), layer.get("eps", EPS)
        )

    def elastic(self, inputs: int, stride: int, projects: bool, kernel_transform: bool) -> ElasticPart:
        return ElasticMBConv(self, inputs, self.widths[-1], stride, projects, kernel_transform)

    def label(self, layer: Layer) -> str:
        kernel, expand, se = layer
        return f"{kernel}x{kernel}, x{expand:g}" + (", SE" if se else "")

    def share(self, layer: Layer) -> float:
        return layer[1] / self.expands[-1]


class ElasticMBConv(ElasticPart):
    """Expand 1x1, depthwise, squeeze-excite, project 1x1, with elastic widths, kernel and expand ratio."""

    def __init__(
        self, stage: MBStage, inputs: int, outputs: int, stride: int, projects: bool, transform: bool = False
    ) -> None:
        super().__init__()
        self.stage = stage
        self.stride = stride
        self.act = activation(stage.act)
        largest = stage.resolve_layer(stage.groups()[-1][-1], inputs, outputs, stride)
        mid = largest["mid"]
        if stage.expands[-1] != 1:
            self.expand = ElasticConv2d(inputs, mid)
            self.expand_bn = ElasticBatchNorm2d(mid, stage.eps)
        matrices = KernelTransform(stage.kernels) if transform and len(stage.kernels) > 1 else None
        self.depthwise = ElasticDepthwise(mid, stage.kernels[-1], stride, matrices)
        self.depthwise_bn = ElasticBatchNorm2d(mid, stage.eps)
        if largest["se"]:
            self.se_reduce = ElasticConv2d(mid, largest["se"], bias=True)
            self.se_expand = ElasticConv2d(largest["se"], mid, bias=True)
        self.project = ElasticConv2d(mid, outputs)
        self.project_bn = ElasticBatchNorm2d(outputs, stage.eps)
        if stage.pooled and projects:
            self.shortcut = ElasticConv2d(inputs, outputs)
        if stage.pooled or not projects:
            nn.init.zeros_(
                self.project_bn.weight
            )  # there is always a shortcut, and the block starts as the shortcut alone

    def forward(
        self, x: Tensor, layer: Layer, width: int, norm: NormValues | Recorder | None = None, drop: float = 0.0
    ) -> tuple[Tensor, Tensor]:
        """Map (B, I, H, W) to (B, width, H', W') twice: no activation follows; ``layer``: (kernel, expand, se)."""
        kernel, expand, se = layer
        mid, hidden = self.stage.inner(x.shape[1], expand, bool(se))
        out = self.act(self.expand_bn(self.expand(x, mid), norm)) if mid != x.shape[1] else x
        out = self.act(self.depthwise_bn(self.depthwise(out, int(kernel)), norm))
        if hidden:
            gate = F.relu(self.se_reduce(out.mean((2, 3), keepdim=True), hidden))
            out = out * F.hardsigmoid(self.se_expand(gate, mid))
        out = self.project_bn(self.project(out, width), norm)
        if self.stride == 1 and x.shape[1] == width:
            out = x + drop_path(out, drop)
        elif self.stage.pooled:
            x = pooled(x, self.stride)
            out = out + (x if x.shape[1] == width else self.shortcut(x, width))
        return out, out

    def channels(self, plans: Plans) -> Iterator[Channels]:
        squeezes = hasattr(self, "se_reduce")
        if squeezes:
            yield Channels(consumer(self.se_expand), producers(self.se_reduce), sizes(plans, "se"))
        if not hasattr(self, "expand"):
            return  # the depthwise convolution reads the layer's input
        made = producers(self.expand, self.expand_bn, self.depthwise, self.depthwise_bn)
        if squeezes:
            made = (*made, consumer(self.se_reduce), *producers(self.se_expand))
        # without expansion the depthwise channels are the input's
        fixed = max((plan["in"] for plan in plans if plan["mid"] == plan["in"]), default=0)
        yield Channels(consumer(self.project), made, sizes(plans, "mid"), fixed)


class MBConv(nn.Module):
    """The static twin of ``ElasticMBConv``.

    Args:
        mid: channels of the depthwise convolution.
        se: hidden channels of squeeze-excite, 0 for none.
        pooled: whether there is an average-pooled shortcut where the shape changes.
        eps: what norms add to the variance.
    """

    def __init__(
        self,
        inputs: int,
        mid: int,
        outputs: int,
        stride: int,
        kernel: int,
        se: int,
        act: str,
        pooled: bool = False,
        eps: float = EPS,
    ) -> None:
        super().__init__()
        self.act = activation(act)
        self.se = se
        self.expands = mid != inputs
        if self.expands:
            self.expand = nn.Conv2d(inputs, mid, 1, bias=False)
            self.expand_bn = nn.BatchNorm2d(mid, eps)
        self.depthwise = nn.Conv2d(mid, mid, kernel, stride, kernel // 2, groups=mid, bias=False)
        self.depthwise_bn = nn.BatchNorm2d(mid, eps)
        if se:
            self.se_reduce = nn.Conv2d(mid, se, 1)
            self.se_expand = nn.Conv2d(se, mid, 1)
        self.project = nn.Conv2d(mid, outputs, 1, bias=False)
        self.project_bn = nn.BatchNorm2d(outputs, eps)
        self.stride = stride
        self.residual = stride == 1 and inputs == outputs
        self.pooled = pooled
        self.projects = pooled and inputs != outputs
        if self.projects:
            self.shortcut = nn.Conv2d(inputs, outputs, 1, bias=False)
        if self.residual or pooled:
            nn.init.zeros_(self.project_bn.weight)

    def forward(self, x: Tensor, drop: float = 0.0) -> tuple[Tensor, Tensor]:
        """Map (B, I, H, W) to (B, O, H', W'), twice."""
        out = self.act(self.expand_bn(self.expand(x))) if self.expands else x
        out = self.act(self.depthwise_bn(self.depthwise(out)))
        if self.se:
            gate = F.relu(self.se_reduce(out.mean((2, 3), keepdim=True)))
            out = out * F.hardsigmoid(self.se_expand(gate))
        out = self.project_bn(self.project(out))
        if self.residual:
            out = x + drop_path(out, drop)
        elif self.pooled:
            x = pooled(x, self.stride)
            out = out + (self.shortcut(x) if self.projects else x)
        return out, out
