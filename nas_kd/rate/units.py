"""Scores of a unit's choices, each by itself: against the unit's own output, and against the teacher's logits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import torch
from torch import Tensor, nn
from torch.func import functional_call

from nas_kd.derive.config import UnitScore
from nas_kd.derive.network import Choice, CutNet, batch_norms, replaced
from nas_kd.derive.supernet import TeacherSupernet
from nas_kd.errors import SettingError
from nas_kd.losses import kl_divergence
from nas_kd.nn import at_resolution
from nas_kd.runs.run import Run
from nas_kd.space.arch import Candidate
from nas_kd.space.rows import check_size, rows_of
from nas_kd.space.tables import finish_ratings, mark, read_ratings
from nas_kd.train.weights import weights_hash

if TYPE_CHECKING:
    import pandas as pd

    from nas_kd.data import Data
    from nas_kd.teacher.teacher import Teacher

SCORES = get_args(UnitScore)


class Replay(nn.Module):
    """Gives a stored output in the place of a unit that comes before what is measured.

    Args:
        out: the output.
    """

    def __init__(self, out: Tensor) -> None:
        super().__init__()
        self.out = out

    def forward(self, *args: Any) -> Tensor:
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
def features(net: CutNet, images: Tensor) -> tuple[list[tuple[Tensor, Tensor]], Tensor]:
    """Run the whole network once under the batch's statistics.

    Args:
        net: the network of all cuts.
        images: (B, C, H, W).

    Returns:
        Input and output of every unit, and the logits (B, classes).
    """
    found: dict[int, tuple[Tensor, Tensor]] = {}

    def keep(index: int) -> Any:
        def hook(module: nn.Module, args: tuple[Tensor], out: Tensor) -> None:
            found[index] = (args[0].clone(), out.clone())

        return hook

    handles = [net.body.get_submodule(u.path).register_forward_hook(keep(i)) for i, u in enumerate(net.units)]
    try:
        with batch_statistics(net.body):
            logits = net.body(images)
    finally:
        for handle in handles:
            handle.remove()
    return [found[index] for index in range(len(net.units))], logits


@torch.no_grad()
def local_errors(net: CutNet, images: Tensor, choices: Sequence[Sequence[Choice]]) -> list[list[float]]:
    """Rate every choice of every unit by the error of its output on the unit's own input.

    Args:
        net: the network of all cuts.
        images: (B, C, H, W).
        choices: of each unit, those to rate.

    Returns:
        Noise to signal of each: the squared error over the variance of the unit's output, 0 for the whole unit.
    """
    inside, _ = features(net, images)
    scores = []
    for index, offered in enumerate(choices):
        x, out = inside[index]
        variance = out.var().clamp_min(1e-12)
        row = []
        for choice in offered:
            if choice == net.whole(index):
                row.append(0.0)
                continue
            got = x if choice is None else _run(net, index, choice, x)
            row.append(float((got - out).square().mean() / variance))
        scores.append(row)
    return scores


def _run(net: CutNet, index: int, choice: tuple[int, ...], x: Tensor) -> Tensor:
    """Run a unit's twin under the batch's statistics."""
    twin = net.twin(index, choice)
    block = net.body.get_submodule(net.units[index].path)
    tensors = {name: twin.slices[name].of(p) if name in twin.slices else p for name, p in block.named_parameters()}
    with batch_statistics(twin.module):
        found: Tensor = functional_call(twin.module, tensors, (x,))
    return found


@torch.no_grad()
def replace_one(
    net: CutNet,
    images: Tensor,
    choices: Sequence[Sequence[Choice]],
    temperature: float = 1.0,
    target: Tensor | None = None,
) -> list[list[float]]:
    """Rate every choice of every unit by what the network's logits lose when it alone is made.

    What comes before the unit is run once for all.

    Args:
        net: the network of all cuts.
        images: (B, C, H, W); a batch of some hundred, whose statistics the batch norms take.
        choices: of each unit, those to rate.
        temperature: of both softmaxes.
        target: (B, classes) logits to be held against; None takes those of the whole network on these images.

    Returns:
        KL to the target, in nats.
    """
    inside, logits = features(net, images)
    target = logits if target is None else target
    nothing = float(kl_divergence(logits / temperature, target / temperature))
    whole = [net.whole(index) for index in range(len(net.units))]
    scores = []
    for index, offered in enumerate(choices):
        before = {net.units[i].path: Replay(inside[i][1]) for i in range(index)}
        row = []
        for choice in offered:
            if choice == whole[index]:
                row.append(nothing)
                continue
            network, tensors = net.assembled([*whole[:index], choice, *whole[index + 1 :]])
            network = replaced(network, before)
            with batch_statistics(network):
                logits = functional_call(network, tensors, (images,))
            row.append(float(kl_divergence(logits / temperature, target / temperature)))
        scores.append(row)
    return scores


def rate_units(
    net: TeacherSupernet,
    teacher: Teacher,
    data: Data,
    *,
    score: UnitScore = "replace_one",
    images: int = 512,
    temperature: float = 1.0,
    resolution: int | None = None,
    run: Run | str | Path | None = None,
) -> list[pd.DataFrame]:
    """Rate every choice of every unit of a teacher by itself, without training; the scores add up.

    Args:
        net: `nas_kd.Supernet` of the teacher's space.
        teacher: the teacher, bound to the data.
        data: images of ``rate``.
        score: ``replace_one``: the KL to the teacher's logits with this choice alone; ``local``: noise to signal of the
            unit's output on its own input.
        images: how many, at most; the batch norms take their statistics.
        temperature: of ``replace_one``.
        resolution: size of the images in pixels, where the space chooses it; None is that of the data. What the teacher
            itself loses at another size than theirs is charged to the first unit, so that tables of all sizes compare.
        run: run folder, whose ``blockwise/`` keeps the tables; the same call again reads them.

    Returns:
        One rating table a unit, as `nas_kd.exact_front` and `nas_kd.search` take them.

    Raises:
        SettingError: the score is unknown, or the run was made with other settings.

    Source: replace-one: Puzzle (Bercovich et al. 2024); local: DNA (Li et al. 2020), LANA (Molchanov et al. 2022).
    """
    if score not in SCORES:
        raise SettingError("score", score, ", ".join(SCORES), "use replace_one")
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
        stage = run.stage("blockwise", facts)
        if stage.done:
            return read_ratings(stage)
    x = torch.cat([teacher.normalised(batch.x) for batch in data.rate.clean(images, limit=images)])
    tables = []
    offered = []
    for index, unit in enumerate(space.stages):
        table = rows_of(space, index, in_chans=net.in_chans, num_classes=net.num_classes, resolution=size)
        candidates = unit.candidates()
        offered.append([_choice(candidates[number]) for number in table["candidate"]])
        tables.append(table)
    small = at_resolution(x, size)
    if score == "local":
        scores = local_errors(net.cuts, small, offered)
    else:
        target = None if small is x else features(net.cuts, x)[1]
        scores = replace_one(net.cuts, small, offered, temperature, target)
        alone = scores[0][offered[0].index(net.cuts.whole(0))]
        scores = [row if index == 0 else [each - alone for each in row] for index, row in enumerate(scores)]
    marks = {"space": mark(space.name, space.hash), "teacher": mark(teacher.name, teacher.fingerprint)}
    tables = [table.assign(score=row, images=len(x), **marks) for table, row in zip(tables, scores, strict=True)]
    if stage is None:
        return tables
    for number, table in enumerate(tables, 1):
        stage.write_frame(f"stage_{number}.csv", table)
    return finish_ratings(stage, dict(enumerate(tables, 1)))


def _choice(candidate: Candidate) -> Choice:
    return tuple(int(v) for v in candidate.layers[0]) if candidate.layers else None
