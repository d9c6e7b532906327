"""All candidates of one stage in one set of weights."""

from __future__ import annotations

from torch import Tensor, nn

from nas_kd.nn.basic import ElasticBasicBlock
from nas_kd.nn.mbconv import ElasticMBConv
from nas_kd.nn.norm import NormValues, Recorder
from nas_kd.space.arch import Candidate
from nas_kd.space.stages import BasicStage, MBStage, Stage


def _block(stage: Stage, in_widths: tuple[int, ...], stride: int) -> nn.Module:
    # the shape is always kept only by a block of stride 1 whose input is the stage's own width
    same = stride == 1 and in_widths == stage.widths and len(stage.widths) == 1
    if isinstance(stage, BasicStage):
        return ElasticBasicBlock(in_widths[-1], stage.mids[-1], stage.widths[-1], stride, projects=not same)
    if isinstance(stage, MBStage):
        return ElasticMBConv(stage, in_widths[-1], stage.widths[-1], stride, identity=same)
    raise TypeError(f"no elastic block is known for {type(stage).__name__}")


def _inner(stage: Stage) -> nn.Module:
    width = stage.widths[-1]  # input and output of an inner layer are the same width, whichever it is
    if isinstance(stage, BasicStage):
        return ElasticBasicBlock(width, stage.mids[-1], width, 1, projects=False)
    assert isinstance(stage, MBStage)
    return ElasticMBConv(stage, width, width, 1, identity=True)


class ElasticStage(nn.Module):
    """The shared blocks of one stage; a candidate uses the first of them.

    Args:
        stage: the stage description.
        in_widths: input widths it can meet, rising.
    """

    def __init__(self, stage: Stage, in_widths: tuple[int, ...]) -> None:
        super().__init__()
        blocks = [_block(stage, in_widths, stage.stride)]
        blocks += [_inner(stage) for _ in range(stage.depths[-1] - 1)]
        self.layers = nn.ModuleList(blocks)

    def forward(
        self, x: Tensor, candidate: Candidate, norm: NormValues | Recorder | None = None, drop: float = 0.0
    ) -> tuple[Tensor, Tensor]:
        """Run one candidate.

        Args:
            x: (B, in_width, H, W).
            candidate: one choice of the stage.
            norm: see ``ElasticBatchNorm2d``.
            drop: stochastic depth rate.

        Returns:
            (B, width, H', W') after and before the stage's last activation.
        """
        pre = x
        for index, layer in enumerate(candidate.layers):  # the first `depth` blocks, as OFA and BigNAS keep
            x, pre = self.layers[index](x, layer, candidate.width, norm, drop)
        return x, pre
