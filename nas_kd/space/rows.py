"""The rows of rating tables: their choices and costs, and the arch of one row per stage."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from nas_kd.errors import SettingError
from nas_kd.space import Arch, ElasticSpace
from nas_kd.space.paths import entries, entry_width

COLUMNS = ["score", "macs", "params", "in_width", "out_width", "candidate", "label", "images"]


def rows_of(
    space: ElasticSpace, index: int, *, in_chans: int, num_classes: int, resolution: int | None = None
) -> pd.DataFrame:
    """List every (entry, candidate) of a stage with its cost.

    The stem is charged to the first stage, the head to the last one. Where these are elastic, each of
    their settings has rows of its own, identified by the columns ``stem`` and ``head``: indices into their
    ``choices()``. A stage that keeps its input's width has rows of equal widths only.

    Args:
        resolution: height of the network's input in pixels; None is the space's default.

    Returns:
        A rating table whose scores are NaN and whose images are 0, ordered by entry, candidate and head.
    """
    tables = space.cost_tables(resolution or space.resolution, in_chans, num_classes)
    stage = space.stages[index]
    last = index == len(space.stages) - 1
    costs, code_of_width = tables.stages[index]
    candidates = stage.candidates()
    out = np.array([candidate.width for candidate in candidates])
    heads = len(space.head.choices()) if last else 1
    parts = []
    for number, entry in enumerate(entries(space, index)):
        width = entry_width(space, entry)
        fits = np.flatnonzero(out == width) if stage.keeps_width else np.arange(len(out))
        total = costs[space.in_widths(index).index(width), fits]  # (rows, 2)
        if index == 0:
            total = total + tables.stem[number]
        total = np.repeat(total, heads, axis=0)
        fits = np.repeat(fits, heads)
        head = np.tile(np.arange(heads), len(fits) // heads)
        if last:
            total = total + tables.head[code_of_width[fits], head]
        part = {"macs": total[:, 0], "params": total[:, 1], "in_width": width, "out_width": out[fits]}
        part |= {"candidate": fits, "label": [candidates[i].label for i in fits]}
        part |= {"stem": number} if index == 0 and len(tables.stem) > 1 else {}
        part |= {"head": head} if heads > 1 else {}
        parts.append(pd.DataFrame(part))
    rows = pd.concat(parts, ignore_index=True).assign(score=np.nan, images=0)
    return rows[[*COLUMNS, *(name for name in ("stem", "head") if name in rows)]]


def cost_rows(
    space: ElasticSpace, *, in_chans: int, num_classes: int, resolution: int | None = None
) -> list[pd.DataFrame]:
    """Return `rows_of` of all stages with scores of 0, for solvers that use costs only."""
    return [
        rows_of(space, index, in_chans=in_chans, num_classes=num_classes, resolution=resolution).assign(score=0.0)
        for index in range(len(space.stages))
    ]


def check_size(space: ElasticSpace, resolution: int | None) -> None:
    """Check that archs of the space can have the size of the images, at which all rows are rated.

    Raises:
        SettingError: the space chooses resolutions, and this is not one of them.
    """
    if space.resolutions and resolution not in space.resolutions:
        expected = f"one of the resolutions of {space.name} {space.resolutions}, which its archs choose from"
        raise SettingError("data.resolution", resolution, expected, f"use data.resolution={space.resolution}")


def sizes_said(space: ElasticSpace, resolution: int) -> str:
    """Say what a space that chooses input sizes makes of the images' own size; nothing where it does not choose.

    Args:
        resolution: height of the images in pixels, as they are kept.
    """
    if not space.resolutions:
        return ""
    listed = ", ".join(map(str, space.resolutions))
    said = (
        f"input sizes: each arch of {space.name} takes its own ({listed} px), made from images kept at {resolution} px"
    )
    if resolution < space.resolutions[-1]:
        return f"{said}; larger ones are enlarged: data.resolution={space.resolutions[-1]} keeps more of the images"
    return said


def full_rows(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows scored on all rating images: scores of early halving rounds are not comparable."""
    return table[table["images"] == table["images"].max()] if "images" in table else table


def stage_scores(space: ElasticSpace, tables: Sequence[pd.DataFrame]) -> Callable[[Arch], list[float]]:
    """Return a function that looks up the scores of an arch's stages.

    Returns:
        A function from an arch to one score per stage: lower is better, NaN if not rated on all images. All choices of
            the
        head share the last stage's score.
    """
    scores = []
    for table in tables:
        rows = full_rows(table)
        stem = rows["stem"] if "stem" in rows else pd.Series(0, rows.index)
        keys = zip(rows["in_width"].astype(int), stem.astype(int), rows["candidate"].astype(int), strict=True)
        scores.append(dict(zip(keys, rows["score"].astype(float), strict=True)))

    def of_arch(arch: Arch) -> list[float]:
        widths = [space.stem.width_of(arch.stem), *(candidate.width for candidate in arch.stages[:-1])]
        stems = [space.stem.choices().index(arch.stem), *(0 for _ in widths[1:])]
        codes = space.encode([arch])[0]
        keys = zip(widths, stems, codes[: len(widths)].tolist(), strict=True)
        return [known.get(key, np.nan) for known, key in zip(scores, keys, strict=True)]

    return of_arch


def choices_of(space: ElasticSpace, index: int, table: pd.DataFrame) -> np.ndarray:
    """Return the choice of each row of a stage, as a number for `arch_of`.

    Returns:
        (N,) numbers, each for a candidate (only its layers in a stage that keeps its width), stem and head. Any
        combination of the stages' choices is an arch.
    """
    choice = table["candidate"].to_numpy(dtype=np.int64)
    if space.stages[index].keeps_width:
        choice = choice % _each(space, index)
    for name in ("stem", "head"):
        if name in table:
            choice = choice * len(getattr(space, name).choices()) + table[name].to_numpy(dtype=np.int64)
    return choice


def arch_of(space: ElasticSpace, choices: Sequence[int], resolution: int | None = None) -> Arch:
    """Return the arch of one choice per stage.

    Args:
        choices: numbers of `choices_of`, one per stage.
        resolution: of the rows; part of the arch if the space chooses resolutions.

    Raises:
        SettingError: the space chooses resolutions, and this is not one of them.
    """
    check_size(space, resolution)
    stem = space.stem.choices()[0]
    head = space.head.choices()[0]
    stages = []
    width = space.stem.width_of(stem)
    for index, (stage, given) in enumerate(zip(space.stages, choices, strict=True)):
        choice = int(given)
        if index == len(space.stages) - 1:
            choice, at = divmod(choice, len(space.head.choices()))
            head = space.head.choices()[at]
        if index == 0:
            choice, at = divmod(choice, len(space.stem.choices()))
            stem = space.stem.choices()[at]
            width = space.stem.width_of(stem)
        if stage.keeps_width:  # candidates are sorted by width, and every width has the same layers
            choice += stage.widths.index(width) * _each(space, index)
        stages.append(stage.candidates()[choice])
        width = stages[-1].width
    return Arch(space.hash, tuple(stages), resolution if space.resolutions else None, stem, head)


def arch_of_rows(
    space: ElasticSpace, tables: Sequence[pd.DataFrame], labels: Sequence[object], resolution: int | None = None
) -> Arch:
    """Return the arch of one row per stage.

    Args:
        labels: the index label of a row in each table.
        resolution: as for `arch_of`.
    """
    chosen = zip(tables, labels, strict=True)
    choices = [int(choices_of(space, i, table.loc[[label]])[0]) for i, (table, label) in enumerate(chosen)]
    return arch_of(space, choices, resolution)


def _each(space: ElasticSpace, index: int) -> int:
    """Count the candidates of one width."""
    return space.stages[index].size // len(space.stages[index].widths)
