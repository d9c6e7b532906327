"""`rate_units`: tables of scores that add up, one a unit of a teacher, each choice rated by itself."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, get_args

import torch
from torch import Tensor

from nas_kd.config.kinds import checked
from nas_kd.derive.config import UnitScore
from nas_kd.derive.network import Choice
from nas_kd.derive.supernet import TeacherSupernet, of_teacher
from nas_kd.distill import Task, task_of
from nas_kd.errors import SettingError
from nas_kd.nn import at_resolution, inputs
from nas_kd.rate.unit_scores import features, local_errors, replace_one
from nas_kd.runs.log import timed
from nas_kd.runs.run import Run
from nas_kd.space.arch import Arch
from nas_kd.space.rows import check_size, rows_of
from nas_kd.space.tables import finish_ratings, mark, read_ratings
from nas_kd.supernet import Supernet
from nas_kd.train.weights import weights_hash

if TYPE_CHECKING:
    import pandas as pd

    from nas_kd.data import Data
    from nas_kd.derive.space import TeacherSpace
    from nas_kd.teacher.targets import LiveSource

SCORES = get_args(UnitScore)


@checked
def rate_units(
    net: Supernet,
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
    net = of_teacher(net)
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
