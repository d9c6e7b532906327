"""ReviewKD's fusion of the student's stages, from the last to the first."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas_kd import losses
from nas_kd.distill.pair import Pair, places
from nas_kd.errors import SettingError
from nas_kd.nn.output import Output


class Fusion(nn.Module):
    """Attention-based fusion of a stage with the fusion of the deeper stages.

    Args:
        middle: channels passed to the previous stage.

    Source: Chen et al., arXiv 2104.09044, figure 3a.
    """

    def __init__(self, inputs: int, middle: int, outputs: int, deeper: bool) -> None:
        super().__init__()
        self.reduce = nn.Sequential(nn.Conv2d(inputs, middle, 1, bias=False), nn.BatchNorm2d(middle))
        self.expand = nn.Sequential(nn.Conv2d(middle, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs))
        self.attend = nn.Conv2d(2 * middle, 2, 1) if deeper else None

    def forward(self, x: Tensor, deeper: Tensor | None) -> tuple[Tensor, Tensor]:
        """Map a stage (B, I, H, W) and the deeper fusion (B, M, h, w) to (B, O, H, W) and (B, M, H, W)."""
        x = self.reduce(x)
        if self.attend is not None and deeper is not None:
            # attention of both, computed for the deeper one at its own size: a 1x1 convolution and nearest-neighbour
            # interpolation commute
            size = x.shape[2:]
            (own, other) = self.attend.weight.split(x.shape[1], dim=1)
            share = F.conv2d(x, own, self.attend.bias) + F.interpolate(F.conv2d(deeper, other), size, mode="nearest")
            share = share.sigmoid()  # (B, 2, H, W)
            x = torch.addcmul(x * share[:, :1], F.interpolate(deeper, size, mode="nearest"), share[:, 1:])
        return self.expand(x), x


class Review(nn.Module):
    """ReviewKD: every teacher stage is compared with a fusion of that and the later student stages.

    Features are taken before the last activation, and the pooled feature is an additional stage of 1 pixel.

    Args:
        width: maximum number of channels of the fusions.

    Raises:
        SettingError: the maps of a stage differ in size.

    Source: Chen et al., arXiv 2104.09044, section 3 and eq. 8.
    """

    def __init__(self, pair: Pair, width: int = 512) -> None:
        super().__init__()
        for s, t in pair.shapes("review", "pre"):
            if len(s) != 3 or places(s) != places(t):
                expected = f"maps (C, H, W) of equal height and width; student {s}, teacher {t}"
                raise SettingError("method", "review", expected, "choose other layers with load_teacher(stages=[...])")
        both = pair.shapes("review", "pre") + pair.shapes("review", "pooled")
        middle = min(width, both[-1][0][0])
        self.fusions = nn.ModuleList(
            Fusion(s[0], middle, t[0], deeper=i + 1 < len(both)) for i, (s, t) in enumerate(both)
        )

    def forward(self, student: Output, teacher: Output) -> Tensor:
        """Return the sum of the stages' hierarchical context losses."""
        own = _levels(student)
        targets = _levels(teacher)
        deeper: Tensor | None = None
        parts = []
        for fusion, s, t in zip(reversed(self.fusions), reversed(own), reversed(targets), strict=True):
            fused, deeper = fusion(s, deeper)
            parts.append(losses.hcl(fused, t))
        return torch.stack(parts).sum()


def _levels(output: Output) -> Sequence[Tensor]:
    return [*output.pre, output.pooled[:, :, None, None]]
