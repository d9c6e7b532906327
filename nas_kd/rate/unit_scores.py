"""Scores of a unit's choices, each by itself: against the unit's own output, and against the teacher's logits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas_kd.derive.calling import batch_norms, called_with, input_of, replaced, unit_features
from nas_kd.derive.network import Choice, CutNet
from nas_kd.distill import Classification, Task
from nas_kd.nn import inputs
from nas_kd.nn.cutting import first_of, with_none

PART = 64  # texts whose features are in memory at once


class Replay(nn.Module):
    """Gives a stored output in the place of a unit that comes before what is measured.

    Args:
        out: the output.
        more: how many outputs are behind it, which nobody needs.
    """

    def __init__(self, out: Tensor, more: int) -> None:
        super().__init__()
        self.out = out
        self.more = more

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return the stored output."""
        return with_none(self.out, self.more)


@contextmanager
def batch_statistics(network: nn.Module) -> Iterator[None]:
    """Run a network in evaluation mode but for its batch norms, which take the batch's statistics."""
    modes = {module: module.training for module in network.modules()}
    network.eval()
    for module in batch_norms(network).values():
        module.train()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


@torch.no_grad()
def features(net: CutNet, images: Any, base: Sequence[Choice] | None = None) -> tuple[list[tuple[Any, Tensor]], Tensor]:
    """Run the whole network, or a cut one, once under the batch's statistics.

    Args:
        net: the network of all cuts.
        images: (B, C, H, W), or texts.
        base: a choice a unit, then a stream; None is the whole network.

    Returns:
        Input and output of every unit, and the logits (B, classes).
    """
    network, tensors = (net.body, {}) if base is None else net.assembled(base)
    with batch_statistics(network):
        return unit_features(network, net.units, images, tensors)


@torch.no_grad()
def local_errors(net: CutNet, images: Any, choices: Sequence[Sequence[Choice]]) -> list[list[float]]:
    """Rate every choice of every unit by the error of its output on the unit's own input.

    Texts, whose networks have no norms that take a batch's statistics, go through it in parts, and padding counts
    nothing.

    Args:
        net: the network of all cuts.
        images: (B, C, H, W), or texts.
        choices: of each unit, then of each stream, those to rate.

    Returns:
        Noise to signal of each: the squared error over the variance of the unit's output, 0 for the whole unit; of a
        stream the share of its energy that is cut, summed over the units that it goes into.
    """
    if not isinstance(images, Tensor) and inputs.count(images) > PART:
        parts = inputs.split(images, PART)
        shares = [inputs.count(part) / inputs.count(images) for part in parts]
        rated = [local_errors(net, part, choices) for part in parts]
        return [
            [
                sum(share * each for share, each in zip(shares, of_choice, strict=True))
                for of_choice in zip(*rows, strict=True)
            ]
            for rows in zip(*rated, strict=True)
        ]
    inside, _ = features(net, images)
    real = inputs.real_tokens(images)
    scores = []
    for index, offered in enumerate(choices):
        if index >= len(net.units):
            scores.append([_energy(net, index, choice, inside, real) for choice in offered])
            continue
        x, out = inside[index]
        wanted = inputs.of_real(out, real)
        variance = wanted.var().clamp_min(1e-12)
        row = []
        for choice in offered:
            if choice == net.whole(index):
                row.append(0.0)
                continue
            got = input_of(x) if choice is None else _run(net, index, choice, x)
            row.append(float(F.mse_loss(inputs.of_real(got, real), wanted) / variance))
        scores.append(row)
    return scores


def _energy(
    net: CutNet, index: int, choice: Choice, inside: Sequence[tuple[Any, Tensor]], real: Tensor | None
) -> float:
    """Return the share of a stream's energy in the channels that a choice cuts, summed over the units it goes into."""
    assert choice is not None
    number = index - len(net.units)
    stream = net.streams[number]
    slot = next(slot for slot in stream.slots if slot.layer == stream.root and slot.dim == 0)
    gone = [place for part in net.order[index][0][choice[0] :].tolist() for place in slot.index[part]]
    total = 0.0
    for unit, (given, _) in zip(net.units, inside, strict=True):
        x = input_of(given)
        x = inputs.of_real(x, real) if isinstance(x, Tensor) else x
        if number in net.passing(unit.path) and isinstance(x, Tensor) and gone:
            dim = 1 if x.ndim == 4 and x.shape[1] == unit.shape[0] else x.ndim - 1
            if x.shape[dim] > max(gone):
                lost = x.index_select(dim, torch.tensor(gone, device=x.device)).square().sum()
                total += float(lost / x.square().sum().clamp_min(1e-12))
    return total


def _run(net: CutNet, index: int, choice: tuple[int, ...], x: Any) -> Tensor:
    """Run a unit's twin under the batch's statistics."""
    twin = net.twin(index, choice)
    with batch_statistics(twin.module):
        return first_of(called_with(twin.module, net.cut_tensors(index, choice), x))


@torch.no_grad()
def replace_one(
    net: CutNet,
    images: Any,
    choices: Sequence[Sequence[Choice]],
    temperature: float = 1.0,
    target: Tensor | None = None,
    base: Sequence[Choice] | None = None,
    task: Task | None = None,
) -> list[list[float]]:
    """Rate every choice of every unit by what the network's logits lose when it alone is made.

    What comes before the unit is run once for all.

    Args:
        net: the network of all cuts.
        images: (B, C, H, W), or texts; a batch of some hundred, whose statistics the batch norms take.
        choices: of each unit, then of each stream, those to rate.
        temperature: of both softened outputs.
        target: (B, classes) logits to be held against; None takes those of the whole network on these images.
        base: the cut network that one choice is changed of, a choice a unit, then a stream; None is the whole network.
        task: says how far logits are from others; None is classification with one label an image.

    Returns:
        The task's divergence from the target; of classes the KL, in nats.
    """
    inside, logits = features(net, images, base)
    target = logits if target is None else target
    apart = (task or Classification()).divergence
    nothing = float(apart(logits, target, temperature))
    if base is None:
        base = [net.whole(index) for index in range(len(net.units) + len(net.streams))]
    scores = []
    for index, offered in enumerate(choices):
        before = {net.units[i].path: Replay(inside[i][1], net.units[i].more) for i in range(net.first(index))}
        row = []
        for choice in offered:
            if choice == base[index]:
                row.append(nothing)
                continue
            network, tensors = net.assembled([*base[:index], choice, *base[index + 1 :]])
            network = replaced(network, before)
            stored = tuple(f"{path}." for path in before)
            read = {name: tensor for name, tensor in tensors.items() if not name.startswith(stored)}
            with batch_statistics(network):
                logits = called_with(network, read, images)
            row.append(float(apart(logits, target, temperature)))
        scores.append(row)
    return scores
