"""Modules trained alongside the student, built from static shapes before training."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas_kd import losses
from nas_kd.distill.pair import Pair, Shape, channels, places
from nas_kd.errors import SettingError
from nas_kd.losses._common import one_of, wide


def regressor(student: Shape, teacher: Shape, name: str = "regressor", norm: bool = False) -> nn.Module:
    """Return a linear map from a student's channels to a teacher's at each position.

    Args:
        student: (C, H, W), (N, C) or (D,).
        teacher: the same, at the same positions.

    Returns:
        A 1x1 convolution or a linear layer, without an activation so that negative values can be matched.

    Raises:
        SettingError: the positions differ.
    """
    if len(student) != len(teacher) or (len(student) > 1 and places(student) != places(teacher)):
        expected = f"maps of equal height and width; student {student}, teacher {teacher}"
        raise SettingError("method", name, expected, "choose other layers with load_teacher(stages=[...])")
    inputs = channels(student)
    outputs = channels(teacher)
    if len(student) < 3:
        return nn.Linear(inputs, outputs)
    conv = nn.Conv2d(inputs, outputs, 1, bias=not norm)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs)) if norm else conv


class Hint(nn.Module):
    """FitNets' regressor from one stage of the student to the teacher's.

    Args:
        stage: index of the stage; -1 is the middle one.
    """

    def __init__(self, pair: Pair, stage: int = -1) -> None:
        super().__init__()
        both = pair.shapes("fitnet", "stages")
        self.stage = middle(len(both)) if stage < 0 else stage
        self.regressor = regressor(*both[self.stage], name="fitnet")

    def forward(self, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
        """Return the mean squared difference at the stage."""
        return losses.fitnet(self.regressor(student[self.stage]), teacher[self.stage])


def middle(stages: int) -> int:
    """Return the index of the middle stage: the default position of the guided layer."""
    return (stages - 1) // 2


class Variational(nn.Module):
    """VID: a regressor of the teacher's feature and its variance, for every stage.

    Args:
        variant: "paper" trains the variances; "mdistiller" keeps their initial values, at which the loss is a tenth of
            the MSE plus a constant.

    Source: Ahn et al., arXiv 1904.05835, section 3 and eq. 5; the initial variance of 5 and the floor of 1e-5 are the
    authors'.
    """

    INITIAL = 5.0
    FLOOR = 1e-5

    def __init__(self, pair: Pair, variant: str = "paper") -> None:
        super().__init__()
        one_of("variant", variant, ("paper", "mdistiller"))
        both = pair.shapes("vid", "stages")
        self.means = nn.ModuleList()
        self.spreads = nn.ParameterList()
        start = math.log(math.expm1(self.INITIAL - self.FLOOR))
        for s, t in both:
            regressor(s, t, "vid")  # raises for unequal maps
            self.means.append(_three_convs(channels(s), channels(t)) if len(s) == 3 else regressor(s, t))
            spread = torch.full((channels(t),), start)
            self.spreads.append(nn.Parameter(spread, requires_grad=variant == "paper"))

    def variance(self, stage: int) -> Tensor:
        """Return the (C,) variances of a stage."""
        return F.softplus(wide(self.spreads[stage])) + self.FLOOR

    def forward(self, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
        """Return the sum of the stages' losses."""
        each = zip(self.means, student, teacher, strict=True)
        parts = [
            losses.vid(_by_channel(mean(s)), _by_channel(t), self.variance(i)) for i, (mean, s, t) in enumerate(each)
        ]
        return torch.stack(parts).sum()


def _by_channel(x: Tensor) -> Tensor:
    return x.transpose(1, 2) if x.ndim == 3 else x  # tokens (B, N, C)


def _three_convs(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 1, bias=False),
        nn.ReLU(inplace=True),
        nn.Conv2d(outputs, outputs, 1, bias=False),
        nn.ReLU(inplace=True),
        nn.Conv2d(outputs, outputs, 1, bias=False),
    )


class Embedded(nn.Module):
    """Correlation congruence as in RepDistiller: on linear embeddings of both sides.

    Both embeddings are trained, so constant embeddings are a trivial solution; "cc" has none.

    Source: RepDistiller, distiller_zoo/CC.py and models/util.py, whose loss differs from the paper.
    """

    def __init__(self, pair: Pair, width: int = 128) -> None:
        super().__init__()
        ((s, t),) = pair.shapes("cc", "pooled")
        self.student = nn.Linear(s[0], width)
        self.teacher = nn.Linear(t[0], width)

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Return the products of neighbouring differences."""
        s = F.normalize(wide(self.student(student)), dim=1)
        t = F.normalize(wide(self.teacher(teacher.detach())), dim=1)
        delta = (s - t).abs()
        return (delta[:-1] * delta[1:]).sum(1).mean()


class Factors(nn.Module):
    """Factor transfer: the teacher's paraphraser and the student's translator, on the last stage.

    Args:
        rate: channels of a factor as a fraction of the teacher's, above 0 and at most 1.
        variant: see :func:`nas_kd.losses.ft`.

    Source: Kim et al., arXiv 1802.04977, section 3; three 3x3 convolutions each, leaky ReLU of slope 0.1, and without
    batch norm in the paraphraser.
    """

    def __init__(self, pair: Pair, rate: float = 0.5, variant: str = "paper") -> None:
        super().__init__()
        s, t = pair.shapes("ft", "stages")[-1]
        if len(s) != 3 or places(s) != places(t):
            expected = f"last maps (C, H, W) of equal height and width; student {s}, teacher {t}"
            raise SettingError("method", "ft", expected, "choose other layers with load_teacher(stages=[...])")
        if not 0 < rate <= 1:
            raise SettingError("ft.rate", rate, "above 0 and at most 1, a fraction of the teacher's channels")
        factor = max(1, round(rate * t[0]))
        self.variant = variant
        self.encoder = _leaky([t[0], t[0], factor, factor])
        self.decoder = _leaky([factor, factor, t[0], t[0]], transposed=True)
        self.translator = _leaky([s[0], s[0], factor, factor])

    def reconstruct(self, teacher: Sequence[Tensor]) -> Tensor:
        """Return the mean squared error of the paraphraser's reconstruction (eq. 3): it trains the paraphraser."""
        feature = wide(teacher[-1]).detach()
        return F.mse_loss(self.decoder(self.encoder(feature)).to(feature.dtype), feature)

    def forward(self, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
        """Return the distance of the factors (eq. 4), without a gradient for the paraphraser."""
        with torch.no_grad():
            factor = self.encoder(teacher[-1])
        return losses.ft(self.translator(student[-1]), factor, variant=self.variant)


def _leaky(widths: list[int], transposed: bool = False) -> nn.Sequential:
    conv = nn.ConvTranspose2d if transposed else nn.Conv2d
    layers: list[nn.Module] = []
    for inputs, outputs in zip(widths, widths[1:], strict=False):
        layers += [conv(inputs, outputs, 3, 1, 1), nn.LeakyReLU(0.1)]
    return nn.Sequential(*layers)


class Boundaries(nn.Module):
    """AB: 1x1 connectors from the student's stages to the teacher's, before the activation.

    Source: Heo et al., arXiv 1811.03233, section 3.2; stage i of n has weight 2^(i - n), i from 1.
    """

    def __init__(self, pair: Pair, margin: float = 1.0) -> None:
        super().__init__()
        both = pair.shapes("ab", "pre")
        self.margin = margin
        self.connectors = nn.ModuleList(regressor(s, t, "ab", norm=True) for s, t in both)

    def forward(self, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
        """Return the weighted sum of the stages' losses."""
        n = len(self.connectors)
        each = zip(self.connectors, student, teacher, strict=True)
        return torch.stack(
            [2.0 ** (i - n) * losses.ab(c(s), t, self.margin) for i, (c, s, t) in enumerate(each, 1)]
        ).sum()
