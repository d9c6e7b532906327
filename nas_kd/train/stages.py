"""The stages of blockwise supervision: a supernet's, each between adapters to the teacher's features."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from typing import NamedTuple

import torch
from torch import Tensor, nn

from nas_kd.losses import normalised_mse
from nas_kd.nn import NormValues, Output, Recorder
from nas_kd.runtime.seeds import seed_for, seeded
from nas_kd.space.paths import Entry, Path
from nas_kd.supernet import Supernet
from nas_kd.teacher import Tap, grow_to, pool_to


class StageFeatures(NamedTuple):
    """The input and the target of a stage, both from the teacher.

    Args:
        inputs: (N, C, H, W) images for the first stage, the teacher's previous feature for the others.
        targets: (N, C', H', W') the teacher's feature of this stage, before its last activation if available,
            averaged to the size of the student's where it is larger.
    """

    inputs: Tensor
    targets: Tensor

    def head(self, images: int) -> StageFeatures:
        """Return the first images only."""
        return StageFeatures(self.inputs[:images], self.targets[:images])


class Blockwise(nn.Module):
    """A copy of a supernet's stem and stages, each between adapters to the teacher's features.

    An adapter is a 1x1 convolution with a bias. Every width has its own: adapters that share weights
    would favour the widths that are drawn together with larger ones. Where the teacher's map is smaller than the
    student's, it is resized up behind the adapter that it enters by, and the student's output is averaged down to it
    before the adapter that it leaves by: the order does not matter to the result, for both are linear.

    Args:
        net: the supernet; it is not changed.
        taps: the teacher's layers, one per stage.
        init: ``supernet`` starts from the supernet's weights, ``scratch`` from new ones.
        seed: seed of new weights and adapters.

    Source: blockwise supervision: DNA (Li et al. 2020), section 3.2; adapters instead of DNA's widened
    layers, so that the rated stage is the one that is built.
    """

    input_scale: Tensor
    target_scale: Tensor

    def __init__(self, net: Supernet, taps: Sequence[Tap], *, init: str = "supernet", seed: int = 0) -> None:
        super().__init__()
        self.space = space = net.space
        self.sizes = [tap.student_size for tap in taps]
        self.compared = [tap.compared for tap in taps]
        if init == "scratch":
            net = Supernet(space, net.num_classes, net.in_chans, seed=seed_for(seed, "init", "blockwise"))
        self.stem, self.stages = deepcopy(net.stem), deepcopy(net.stages)
        self.inputs, self.outputs = nn.ModuleList(), nn.ModuleList()
        for index, (stage, tap) in enumerate(zip(space.stages, taps, strict=True)):
            seeded(seed, "adapters", index)  # a stage's weights do not depend on the other stages
            widths = space.in_widths(index) if index else ()
            given = taps[index - 1].channels
            self.inputs.append(nn.ModuleDict({str(width): nn.Conv2d(given, width, 1) for width in widths}))
            adapters = {str(width): nn.Conv2d(width, tap.channels, 1) for width in stage.widths}
            self.outputs.append(nn.ModuleDict(adapters))
        self.register_buffer("input_scale", torch.ones(len(taps)))
        self.register_buffer("target_scale", torch.ones(len(taps)))

    def features(self, x: Tensor, out: Output) -> list[StageFeatures]:
        """Return inputs and targets of all stages, scaled, from one teacher forward pass.

        Args:
            x: (B, in_chans, H, W) the images.
            out: the teacher's output for them.
        """
        return [self.pair(index, x, out) for index in range(len(self.sizes))]

    def pair(self, index: int, x: Tensor, out: Output) -> StageFeatures:
        """Return input and target of one stage, scaled; the arguments are those of ``features``."""
        before = x if index == 0 else pool_to(out.stages[index - 1], self.sizes[index - 1])
        inputs = before / self.input_scale[index] if index else before
        return StageFeatures(inputs, pool_to(out.pre[index], self.sizes[index]) / self.target_scale[index])

    @torch.no_grad()
    def rescale(self, features: Sequence[StageFeatures]) -> list[StageFeatures]:
        """Choose the scales of the teacher's features so that their root mean square is near 1.

        Scores are ratios and do not change; but the step size of the adapters' optimiser is
        absolute, so features of another magnitude would need another learning rate. Scales are powers of
        two, so that dividing by them is exact.

        Args:
            features: unscaled features of some training images, one pair per stage.

        Returns:
            The same features, scaled.
        """
        scaled = []
        for index, pair in enumerate(features):
            self.target_scale[index] = _power_of_two(pair.targets)
            if index:
                self.input_scale[index] = _power_of_two(pair.inputs)
            scaled.append(StageFeatures(pair.inputs / self.input_scale[index], pair.targets / self.target_scale[index]))
        return scaled

    def enter(self, index: int, inputs: Tensor, entry: Entry, norm: NormValues | Recorder | None = None) -> Tensor:
        """Map the input of a stage to the output width of the previous stage.

        Args:
            index: of the stage.
            inputs: (B, C, H, W) of ``StageFeatures``.
            entry: setting of the stem for the first stage, number of channels for the others.
            norm: see ``ElasticBatchNorm2d``; the stem of the first stage has a norm.

        Returns:
            (B, width of the entry, H', W').
        """
        if index == 0:
            return self.stem(inputs, entry, norm)
        return grow_to(self.inputs[index][str(entry)](inputs), self.sizes[index - 1])  # type: ignore[index]

    def leave(self, index: int, pre: Tensor) -> Tensor:
        """Map a stage's output (B, width, H, W) before its last activation to the teacher's channels and size."""
        return self.outputs[index][str(pre.shape[1])](pool_to(pre, self.compared[index]))  # type: ignore[index]

    def loss(
        self,
        index: int,
        pair: StageFeatures,
        paths: Sequence[Path],
        entered: Mapping[Entry, Tensor] | None = None,
        distance: Callable[[Tensor, Tensor], Tensor] = normalised_mse,
    ) -> Tensor:
        """Return the mean distance of some paths of one stage from its target, a scalar.

        Args:
            index: of the stage.
            pair: its inputs and targets.
            entered: (B, width, H, W) input of the blocks for each entry; None computes it from ``pair``.
            distance: of outputs from targets.
        """
        if not entered:
            each = sorted({path.entry for path in paths})
            entered = {entry: self.enter(index, pair.inputs, entry) for entry in each}
        losses = []
        for path in paths:
            _, pre = self.stages[index](entered[path.entry], path.candidate)
            losses.append(distance(self.leave(index, pre), pair.targets))
        return torch.stack(losses).mean()

    def part(self, index: int) -> nn.ModuleDict:
        """Return the modules of one stage: its blocks and adapters, and the stem for the first."""
        parts = {"stage": self.stages[index], "inputs": self.inputs[index], "outputs": self.outputs[index]}
        return nn.ModuleDict(parts | ({"stem": self.stem} if index == 0 else {}))


def _power_of_two(x: Tensor) -> Tensor:
    mean_square = x.double().square().mean() if x.device.type != "mps" else x.square().mean()
    return torch.exp2(mean_square.clamp_min(1e-30).sqrt().log2().round()).float()
