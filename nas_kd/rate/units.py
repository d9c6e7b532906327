"""Scores of a unit's choices, each by itself: against the unit's own output, and against the teacher's logits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas_kd.config.kinds import checked
from nas_kd.derive.calling import batch_norms, called_with, input_of, replaced, unit_features
from nas_kd.derive.config import UnitScore
from nas_kd.derive.network import Choice, CutNet
from nas_kd.derive.supernet import TeacherSupernet
from nas_kd.distill import Classification, Task, task_of
from nas_kd.errors import SettingError
from nas_kd.nn import at_resolution, inputs
from nas_kd.runs.log import timed
from nas_kd.runs.run import Run
from nas_kd.space.arch import Arch
from nas_kd.space.rows import check_size, rows_of
from nas_kd.space.tables import finish_ratings, mark, read_ratings
from nas_kd.train.weights import weights_hash

if TYPE_CHECKING:
    import pandas as pd

    from nas_kd.data import Data
    from nas_kd.derive.space import TeacherSpace
    from nas_kd.teacher.targets import LiveSource

SCORES = get_args(UnitScore)
PART = 64  # texts whose features are in memory at once


class Replay(nn.Module):
    """Gives a stored output in the place of a unit that comes before what is measured.

    Args:
        out: the output.
    """

    def __init__(self, out: Tensor) -> None:
        super().__init__()
        self.out = out

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """Return the stored output."""
        return self.out


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
        found = called_with(twin.module, net.cut_tensors(index, choice), x)
    return found


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
        before = {net.units[i].path: Replay(inside[i][1]) for i in range(net.first(index))}
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


@checked
def rate_units(
    net: TeacherSupernet,
    teacher: LiveSource,
    data: Data,
    *,
    score: UnitScore = "local",
    images: int = 512,
    temperature: float = 1.0,
    resolution: int | None = None,
    around: Arch | None = None,
    task: Task | None = None,
    run: Run | str | Path | None = None,
) -> list[pd.DataFrame]:
    """Rate every choice of every unit of a teacher by itself, without training; the scores add up.

    Args:
        net: `nas_kd.Supernet` of the teacher's space.
        teacher: the teacher, bound to the data; where the space is that of a student of its, the answers are still its.
        data: images of ``rate``.
        score: ``replace_one``: the divergence (of classes, the KL) from the teacher's logits with this choice alone;
            ``local``: noise to signal of the unit's output on its own input.
        images: how many, at most; the batch norms take their statistics.
        temperature: of ``replace_one``.
        resolution: size of the images in pixels, where the space chooses it; None is that of the data. What the teacher
            itself loses at another size than theirs is charged to the first unit, so that tables of all sizes compare;
            local errors know nothing of that loss.
        around: with ``replace_one``, rate what the subnet of this arch, not the whole teacher, loses or gains: near it
            the scores add up, which those of single cuts of a whole teacher do not where all is cut.
        task: whose divergence ``replace_one`` is; None is that of the data.
        run: run folder, whose ``blockwise/`` keeps the tables, those of another size or around an arch in a folder of
            their own below it; the same call again reads them.

    Returns:
        One rating table a unit, as `nas_kd.exact_front` and `nas_kd.search` take them.

    Raises:
        SettingError: the score is unknown, or the run was made with other settings.

    Source: replace-one: Puzzle (Bercovich et al. 2024); local: DNA (Li et al. 2020), LANA (Molchanov et al. 2022).
    """
    if score not in SCORES:
        raise SettingError("score", score, ", ".join(SCORES), "use local")
    if around is not None and score != "replace_one":
        raise SettingError("score", score, "replace_one with around", "pass score='replace_one'")
    task = task or task_of(data)
    space = net.space
    size = resolution or data.resolution
    check_size(space, size)
    run = Run.of(run)
    stage = None
    if run is not None:
        facts = {
            "space": space.hash,
            "data": data.fingerprint,
            "teacher": teacher.fingerprint,
            "supernet": weights_hash(net),
            "derive.score": score,
            "derive.rate_images": images,
            "derive.temperature": temperature,
        }
        facts |= {} if resolution is None else {"derive.resolution": resolution}
        facts |= {} if around is None else {"derive.around": around.key}
        facts |= {} if task.kind == "classes" else {"task": task.kind}
        parts = [] if resolution is None else [f"size_{resolution}"]
        parts += [] if around is None else [f"around_{around.key}"]
        stage = run.stage("/".join(["blockwise", "_".join(parts)] if parts else ["blockwise"]), facts)
        if stage.done:
            return read_ratings(stage)
    given = inputs.joined([batch.x for batch in data.rate.clean(images, limit=images)])
    x = teacher.normalised(given)
    tables = [
        rows_of(space, index, in_chans=net.in_chans, num_classes=net.num_classes, resolution=size)
        for index in range(len(space.stages))
    ]
    offered: dict[int, dict[Choice, None]] = {}  # by unit, then by stream, in their order
    for link, stage_of in zip(net.links, space.stages, strict=True):
        for candidate in stage_of.candidates():
            for part, choice in net.choices_at(link, candidate):
                offered.setdefault(part, {})[choice] = None
    listed = [list(offered[part]) for part in sorted(offered)]
    small = at_resolution(x, size)
    with timed(run, "blockwise", "rating"):
        if score == "local":
            rated = local_errors(net.cuts, small, listed)
            nothing = 0.0
        else:
            base = None if around is None else net.choices(around)
            same = small is x and base is None and _own(net, teacher)  # the network that is rated answers itself
            target = None if same else _answers(net, teacher, given)
            rated = replace_one(net.cuts, small, listed, temperature, target, base, task)
            nothing = rated[0][listed[0].index(net.cuts.whole(0) if base is None else base[0])]
    known = [dict(zip(choices, row, strict=True)) for choices, row in zip(listed, rated, strict=True)]
    scores = []
    for index, (link, table) in enumerate(zip(net.links, tables, strict=True)):
        candidates = space.stages[index].candidates()
        sums = [
            sum(known[part][choice] - nothing for part, choice in net.choices_at(link, candidates[number]))
            for number in table["candidate"]
        ]
        scores.append([each + nothing if index == 0 else each for each in sums])
    marks: dict[str, Any] = {"space": mark(space.name, space.hash), "teacher": mark(teacher.name, teacher.fingerprint)}
    tables = [
        table.assign(score=row, images=inputs.count(x), **marks) for table, row in zip(tables, scores, strict=True)
    ]
    if stage is None:
        return tables
    for number, table in enumerate(tables, 1):
        stage.write_frame(f"stage_{number}.csv", table)
    return finish_ratings(stage, dict(enumerate(tables, 1)))


def subnet_loss(
    net: TeacherSupernet,
    teacher: LiveSource,
    data: Data,
    arch: Arch,
    *,
    images: int = 512,
    temperature: float = 1.0,
    task: Task | None = None,
) -> float:
    """Measure what the subnet of an arch loses, as `rate_units` does around it, without rating any other choice.

    Args:
        net: `nas_kd.Supernet` of the teacher's space.
        teacher: the teacher, bound to the data.
        data: images of ``rate``.
        arch: at the size of the data.
        images: how many, at most; the batch norms take their statistics.
        temperature: of both answers.
        task: whose divergence it is; None is that of the data.
    """
    given = inputs.joined([batch.x for batch in data.rate.clean(images, limit=images)])
    _, logits = features(net.cuts, teacher.normalised(given), net.choices(arch))
    return float((task or task_of(data)).divergence(logits, _answers(net, teacher, given), temperature))


def _answers(net: TeacherSupernet, teacher: LiveSource, given: Any) -> Tensor:
    """Return the teacher's logits of images, under the batch's statistics as a subnet's where the space is its own."""
    return features(net.cuts, teacher.normalised(given))[1] if _own(net, teacher) else teacher(given)


def _own(net: TeacherSupernet, teacher: LiveSource) -> bool:
    """Tell whether a space is the teacher's own, by its weights, and not one of a student of its."""
    own = cast("TeacherSpace", net.space).derived.network
    if teacher.network is own:
        return True
    first = teacher.network.state_dict()
    second = own.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
