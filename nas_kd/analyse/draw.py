"""A drawing of the found architecture, below the teacher's stages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas_kd.analyse import frames
from nas_kd.analyse.palette import FOUND
from nas_kd.analyse.svg import GRID, INK, SOFT, document, line, text, text_width

if TYPE_CHECKING:
    from nas_kd.runs.run import Run

WIDTH = 940
MARGIN = 14
ENDS = 92
LAYER = 34
TINT = "#fbe9df"


def teacher_stages(run: str | Path | Run, search: str = "search") -> list[dict[str, Any]]:
    """Return the teacher's taps: stage, teacher_path, teacher_channels, teacher_size, student_size."""
    root = frames.folder_of(run)
    listed = frames.document(root / "teacher" / "stages.json")
    if isinstance(listed, list):
        return listed
    for path in (root / search / "teacher_stages.csv", root / "search" / "teacher_stages.csv"):
        rows = frames.table(path)
        if len(rows):
            return [{str(name): value for name, value in row.items()} for row in rows.to_dict("records")]
    return []


def arch_figure(run: str | Path | Run, search: str = "search") -> str | None:
    """Draw the found arch.

    Args:
        run: run folder.
        search: the search's folder in the run.

    Returns:
        An SVG document, or None before the search is done.
    """
    root = frames.folder_of(run)
    found = frames.best(run, search)
    space = frames.mapping(root / "space.json")
    stages = (found.get("arch") or {}).get("stages")
    if not stages:
        return None
    taps = teacher_stages(run, search) if frames.guided(root, search) else []
    described = space.get("stages") or [{}] * len(stages)
    if len(described) != len(stages):
        described = [{}] * len(stages)
    drawing = space.get("drawing") or {}
    drawn = drawing.get("stages") or [{}] * len(stages)
    if len(drawn) != len(stages):
        drawn = [{}] * len(stages)
    column = (WIDTH - 2 * MARGIN - 2 * ENDS) / len(stages)
    deepest = max(max(d.get("depths") or [0]) for d in described)
    deepest = max([deepest, *(len(stage["layers"]) for stage in stages)])
    sizes = _sizes(space, found["arch"], taps)
    top = 42.0
    box = 64.0
    below = top + box + 62  # top of the student's boxes
    tall = 52 + deepest * (LAYER + 6)
    out = [
        text(MARGIN, 20, "teacher", weight=600, size=13),
        text(MARGIN, below - 12, "found student", weight=600, size=13, colour=FOUND.colour),
    ]
    if taps:
        out += _end(MARGIN, top, box, "images")
    else:
        why = "stages not recorded yet" if frames.has_teacher(root) else "no teacher"
        why = "did not guide the search" if frames.has_teacher(root) and not frames.guided(root, search) else why
        out.append(text(MARGIN + ENDS, top + 34, why, colour=SOFT))
    out += _end(MARGIN, below, tall, "stem", _chosen(drawing, found["arch"], "stem"))
    for index, stage in enumerate(stages):
        x = MARGIN + ENDS + index * column
        if index < len(taps):
            out += _teacher_box(x, top, column, box, taps[index])
            out += _match(x + column / 2, top + box, below, taps[index], column)
        deep = max([len(stage["layers"]), *(described[index].get("depths") or [])])
        out += _student_box(x, below, column, tall, index, stage, deep, drawn[index], sizes[index])
    out += _end(WIDTH - MARGIN - ENDS + 12, below, tall, "head", _chosen(drawing, found["arch"], "head"))
    if taps:
        out += _end(WIDTH - MARGIN - ENDS + 12, top, box, "classes")
    legend = "; or: ".join(dict.fromkeys(str(stage.get("legend", "one box a layer")) for stage in drawn))
    if any(max(one.get("depths") or [0]) > len(stage["layers"]) for one, stage in zip(described, stages, strict=True)):
        legend += "; dashed: layers left out"
    out.append(text(MARGIN, below + tall + 22, legend, colour=SOFT))
    return document("The found student below the teacher's stages", WIDTH, below + tall + 32, "\n".join(out))


def _chosen(drawing: Mapping[str, Any], arch: Mapping[str, Any], end: str) -> str:
    """Return the label of the choice of a stem or a head."""
    choices = drawing.get(end, {}).get("choices", ())
    found = [choice["label"] for choice in choices if choice["setting"] == arch.get(end, [])]
    return str(found[0]) if found else ""


def _end(x: float, y: float, height: float, name: str, more: str = "") -> list[str]:
    middle = x + (ENDS - 12) / 2
    out = [
        _box(x, y, ENDS - 12, height, "#f6f8fa", GRID),
        text(middle, y + height / 2, name, anchor="middle"),
    ]
    if more:
        out.append(text(middle, y + height / 2 + 16, more, anchor="middle", size=10.5, colour=SOFT))
    return out


def _teacher_box(x: float, y: float, column: float, height: float, tap: Mapping[str, Any]) -> list[str]:
    middle = x + (column - 12) / 2
    size = tap.get("teacher_size")
    shape = f"{tap.get('teacher_channels')} channels" + (f", {size} x {size}" if size else "")
    return [
        _box(x, y, column - 12, height, "#eef1f4", SOFT),
        text(middle, y + 26, _fit(f"up to {tap.get('teacher_path')}", column - 20), anchor="middle", weight=600),
        text(
            middle,
            y + 46,
            shape if column > 160 else shape.replace(" channels", " ch"),
            anchor="middle",
            colour=SOFT,
        ),
    ]


def _match(x: float, y0: float, y1: float, tap: Mapping[str, Any], column: float) -> list[str]:
    """Draw the comparison of a teacher's feature with a student stage's output."""
    x = x - 6
    size = tap.get("student_size")
    if size and tap.get("teacher_size"):
        size = min(size, tap["teacher_size"])
    label = f"compared at {size} x {size}" if column > 110 else f"{size} x {size}"
    wide = text_width(label, 10.5) + 8
    middle = (y0 + y1) / 2
    return [
        line(x, y0 + 2, x, y1 - 2, SOFT, 1.2, "3 3"),
        f'<rect x="{x - wide / 2:.1f}" y="{middle - 10:.1f}" width="{wide:.1f}" height="18" fill="#fff"/>',
        text(x, middle + 4, label, anchor="middle", size=10.5, colour=SOFT),
    ]


def _student_box(
    x: float,
    y: float,
    column: float,
    height: float,
    index: int,
    stage: Mapping[str, Any],
    deepest: int,
    drawn: Mapping[str, Any],
    size: int | None,
) -> list[str]:
    wide = column - 12
    shape = f"{stage['width']} channels" if column > 160 else f"{stage['width']} ch"
    shape += f", {size} x {size}" if size else ""
    out = [
        _box(x, y, wide, height, "#fff", FOUND.colour),
        text(x + wide / 2, y + 20, f"stage {index + 1}", anchor="middle", weight=600),
        text(x + wide / 2, y + 37, _fit(shape, wide - 4), anchor="middle", size=11, colour=SOFT),
    ]
    layers: Sequence[Sequence[Any]] = stage["layers"]
    labels = {tuple(known["layer"]): known for known in drawn.get("layers", ())}
    for number in range(deepest):
        at = y + 48 + number * (LAYER + 6)
        if number >= len(layers):
            out.append(_box(x + 8, at, wide - 16, LAYER, "none", GRID, dash="4 3"))
            continue
        known = labels.get(tuple(layers[number]), {})
        label = known.get("label", ", ".join(f"{value}" for value in layers[number]))
        share = known.get("share", 0.0)
        out.append(_box(x + 8, at, wide - 16, LAYER, "#fff", GRID))
        out.append(_box(x + 8, at, (wide - 16) * share, LAYER, TINT, "none"))
        out.append(text(x + wide / 2, at + 21, _fit(label, wide - 20), anchor="middle", colour=INK))
    return out


def _sizes(space: Mapping[str, Any], arch: Mapping[str, Any], taps: Sequence[Mapping[str, Any]]) -> list[int | None]:
    """Return each stage's output height in pixels, from the taps or from the strides."""
    count = len(arch["stages"])
    if len(taps) == count and all(tap.get("student_size") for tap in taps):
        return [int(tap["student_size"]) for tap in taps]
    size = arch.get("resolution") or space.get("resolution")
    if not size or len(space.get("stages", [])) != count or "drawing" not in space:
        return [None] * count
    size = -(-size // space["drawing"]["stem"]["stride"])
    sizes = []
    for stage in space["stages"]:
        size = -(-size // stage.get("stride", 1))
        sizes.append(size)
    return sizes


def _fit(content: str, width: float) -> str:
    """Shorten text that does not fit."""
    most = int(width / (0.58 * 11.5))
    return content if len(content) <= most else content[: max(1, most - 1)] + "…"


def _box(x: float, y: float, width: float, height: float, fill: str, stroke: str, dash: str = "") -> str:
    dashed = f' stroke-dasharray="{dash}"' if dash else ""
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" rx="3" fill="{fill}" '
        f'stroke="{stroke}"{dashed}/>'
    )
