"""All candidates of a stage in one set of weights."""

from __future__ import annotations

from torch import Tensor, nn

from nas_kd.nn.norm import NormValues, Recorder
from nas_kd.space.arch import Candidate
from nas_kd.space.stages import Stage


class ElasticStage(nn.Module):
    """The shared blocks of one stage; a candidate uses the first of them."""

    def __init__(self, stage: Stage, in_widths: tuple[int, ...], kernel_transform: bool = False) -> None:
        super().__init__()
        # the first block always keeps the shape only if the stage has a single width and its input has the same one
        same = stage.stride == 1 and in_widths == stage.widths and len(stage.widths) == 1
        blocks = [stage.elastic(in_widths[-1], stage.stride, not same, kernel_transform)]
        # an inner block has equal input and output width, whichever is chosen
        inner = stage.widths[-1]
        blocks += [stage.elastic(inner, 1, False, kernel_transform) for _ in range(stage.depths[-1] - 1)]
        self.layers = nn.ModuleList(blocks)

    def forward(
        self, x: Tensor, candidate: Candidate, norm: NormValues | Recorder | None = None, drop: float = 0.0
    ) -> tuple[Tensor, Tensor]:
        """Map (B, in_width, H, W) to (B, width, H', W') after and before the stage's last activation."""
        pre = x
        for index, layer in enumerate(candidate.layers):  # the first `depth` blocks, as in OFA and BigNAS
            x, pre = self.layers[index](x, layer, candidate.width, norm, drop)
        return x, pre
