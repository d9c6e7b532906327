"""The inverted residual block (MobileNetV2/V3), elastic and static, with equal parameter names."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from nas_kd.nn.act import activation, drop_path
from nas_kd.nn.bottleneck import pooled
from nas_kd.nn.elastic import ElasticConv2d, ElasticDepthwise
from nas_kd.nn.norm import ElasticBatchNorm2d, NormValues, Recorder
from nas_kd.nn.transform import KernelTransform
from nas_kd.space.arch import Layer
from nas_kd.space.stages import MBStage


class ElasticMBConv(nn.Module):
    """Expand 1x1, depthwise, squeeze-excite, project 1x1, with elastic widths, kernel and expand ratio.

    Args:
        stage: the stage description; it resolves a layer's settings to channel counts.
        inputs: largest number of input channels.
        outputs: largest number of output channels.
        stride: 1 or 2.
        projects: whether any choice changes the shape, so that the shortcut is not always the identity.
        transform: whether small kernels are learnt transforms of the largest, and not its centre.
    """

    def __init__(
        self, stage: MBStage, inputs: int, outputs: int, stride: int, projects: bool, transform: bool = False
    ) -> None:
        super().__init__()
        self.stage, self.stride, self.act = stage, stride, activation(stage.act)
        largest = stage.resolve_layer(stage.groups()[-1][-1], inputs, outputs, stride)
        mid = largest["mid"]
        if stage.expands[-1] != 1:
            self.expand, self.expand_bn = ElasticConv2d(inputs, mid), ElasticBatchNorm2d(mid)
        matrices = KernelTransform(stage.kernels) if transform and len(stage.kernels) > 1 else None
        self.depthwise = ElasticDepthwise(mid, stage.kernels[-1], stride, matrices)
        self.depthwise_bn = ElasticBatchNorm2d(mid)
        if largest["se"]:
            self.se_reduce = ElasticConv2d(mid, largest["se"], bias=True)
            self.se_expand = ElasticConv2d(largest["se"], mid, bias=True)
        self.project, self.project_bn = ElasticConv2d(mid, outputs), ElasticBatchNorm2d(outputs)
        if stage.pooled and projects:
            self.shortcut = ElasticConv2d(inputs, outputs)
        if stage.pooled or not projects:
            nn.init.zeros_(self.project_bn.weight)  # there is always a shortcut, and the block starts as it

    def forward(
        self, x: Tensor, layer: Layer, width: int, norm: NormValues | Recorder | None = None, drop: float = 0.0
    ) -> tuple[Tensor, Tensor]:
        """Run the block.

        Args:
            x: (B, I, H, W).
            layer: (kernel, expand, se).
            width: output channels.
            norm: see ``ElasticBatchNorm2d``.
            drop: stochastic depth rate.

        Returns:
            (B, width, H', W') twice: the block ends linear, so nothing comes after the last activation.
        """
        kernel, expand, se = layer
        mid, hidden = self.stage.channels(x.shape[1], expand, bool(se))
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


class MBConv(nn.Module):
    """The static twin of ``ElasticMBConv``.

    Args:
        inputs: input channels.
        mid: channels of the depthwise convolution.
        outputs: output channels.
        stride: 1 or 2.
        kernel: depthwise kernel size.
        se: hidden channels of squeeze-excite, 0 for none.
        act: activation.
        pooled: whether there is an average-pooled shortcut where the shape changes.
    """

    def __init__(
        self, inputs: int, mid: int, outputs: int, stride: int, kernel: int, se: int, act: str, pooled: bool = False
    ) -> None:
        super().__init__()
        self.act = activation(act)
        self.se = se
        self.expands = mid != inputs
        if self.expands:
            self.expand, self.expand_bn = nn.Conv2d(inputs, mid, 1, bias=False), nn.BatchNorm2d(mid)
        self.depthwise = nn.Conv2d(mid, mid, kernel, stride, kernel // 2, groups=mid, bias=False)
        self.depthwise_bn = nn.BatchNorm2d(mid)
        if se:
            self.se_reduce, self.se_expand = nn.Conv2d(mid, se, 1), nn.Conv2d(se, mid, 1)
        self.project, self.project_bn = nn.Conv2d(mid, outputs, 1, bias=False), nn.BatchNorm2d(outputs)
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
