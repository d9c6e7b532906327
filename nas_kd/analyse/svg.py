"""Scatter and line plots as SVG without scripts: axes with titles and units, legend above."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any
from xml.sax.saxutils import escape

INK, SOFT, GRID = "#1f2328", "#59636e", "#e4e7eb"
FONT = "font-family:system-ui,-apple-system,'Segoe UI',Roboto,'DejaVu Sans',sans-serif"
LEFT = 66
RIGHT = 14
TOP = 34
BOTTOM = 50


@dataclass(frozen=True)
class Style:
    """The style of a series.

    Args:
        colour: fill or stroke.
        shape: circle, diamond, square or triangle.
        size: radius of a mark in pixels.
        dash: dash pattern of its line, empty for a solid one.
        width: width of its line in pixels.
        opacity: 0 to 1.
    """

    colour: str
    shape: str = "circle"
    size: float = 4.0
    dash: str = ""
    width: float = 1.8
    opacity: float = 1.0


@dataclass(frozen=True)
class Series:
    """Points, optionally joined by a line.

    Args:
        label: name in the legend; empty for none.
        x: (N,) values.
        y: (N,) values; NaN is not drawn.
        tips: tooltips of the marks, one per point or none.
        marks: whether to draw marks.
        line: whether to join the points.
        low: (N,) lower ends of vertical bars, or none.
        high: upper ends.
    """

    label: str
    style: Style
    x: Sequence[float]
    y: Sequence[float]
    tips: Sequence[str] = ()
    marks: bool = True
    line: bool = False
    low: Sequence[float] = ()
    high: Sequence[float] = ()


@dataclass
class Plot:
    """Axes with series on them.

    Args:
        x_title: with its unit.
        y_title: with its unit.
        width: pixels.
        height: pixels.
        levels: horizontal lines: (label, y, style).
        verticals: vertical lines: (label, x, style).
        integer_x: whether x is an integer.
    """

    title: str
    x_title: str
    y_title: str
    width: int = 470
    height: int = 340
    series: list[Series] = field(default_factory=list)
    levels: list[tuple[str, float, Style]] = field(default_factory=list)
    verticals: list[tuple[str, float, Style]] = field(default_factory=list)
    integer_x: bool = False

    def add(self, label: str, style: Style, x: Iterable[float], y: Iterable[float], **more: Any) -> Plot:
        """Add a series; see `Series`."""
        values = Series(label, style, list(map(float, x)), list(map(float, y)), **more)
        self.series.append(values)
        return self

    def legend(self) -> list[tuple[str, Style, bool, bool]]:
        """Return (label, style, has marks, has line) of everything with a label."""
        found = [(s.label, s.style, s.marks, s.line) for s in self.series if s.label]
        return found + [(label, style, False, True) for label, _, style in [*self.levels, *self.verticals]]

    def body(self) -> str:
        """Return the plot as SVG elements in a box of ``width`` x ``height``."""
        xs = [v for s in self.series for v in s.x] + [x for _, x, _ in self.verticals]
        ys = [v for s in self.series for v in [*s.y, *s.low, *s.high]] + [y for _, y, _ in self.levels]
        x_ticks, (x0, x1) = ticks(xs, 5, whole=self.integer_x)
        y_ticks, (y0, y1) = ticks(ys, 5)
        right = self.width - RIGHT
        bottom = self.height - BOTTOM

        def px(x: float) -> float:
            return LEFT + (x - x0) / (x1 - x0) * (right - LEFT)

        def py(y: float) -> float:
            return bottom - (y - y0) / (y1 - y0) * (bottom - TOP)

        out = [text(LEFT, 18, self.title, size=13, weight=600)]
        for value, label in y_ticks:
            y = py(value)
            out.append(line(LEFT, y, right, y, GRID))
            out.append(text(LEFT - 7, y + 4, label, anchor="end", colour=SOFT))
        for value, label in x_ticks:
            x = px(value)
            out.append(line(x, bottom, x, bottom + 4, SOFT))
            out.append(text(x, bottom + 18, label, anchor="middle", colour=SOFT))
        out.append(line(LEFT, bottom, right, bottom, SOFT))
        out.append(text((LEFT + right) / 2, self.height - 12, self.x_title, anchor="middle", size=12))
        middle = (TOP + bottom) / 2
        turn = f'transform="rotate(-90 15 {middle:.1f})"'
        out.append(text(15, middle, self.y_title, anchor="middle", size=12, extra=turn))
        for _, level, style in self.levels:
            out.append(line(LEFT, py(level), right, py(level), style.colour, style.width, style.dash))
        for _, x, style in self.verticals:
            out.append(line(px(x), TOP, px(x), bottom, style.colour, style.width, style.dash))
        for series in self.series:
            out += _draw(series, px, py)
        return "\n".join(out)


def _draw(series: Series, px: Callable[[float], float], py: Callable[[float], float]) -> list[str]:
    style = series.style
    out: list[str] = []
    known = [i for i in range(len(series.x)) if math.isfinite(series.x[i]) and math.isfinite(series.y[i])]
    if series.line and len(known) > 1:
        points = " ".join(f"{px(series.x[i]):.1f},{py(series.y[i]):.1f}" for i in known)
        dash = f' stroke-dasharray="{style.dash}"' if style.dash else ""
        out.append(
            f'<polyline points="{points}" fill="none" stroke="{style.colour}" stroke-width="{style.width}" '
            f'stroke-linejoin="round" opacity="{style.opacity}"{dash}/>'
        )
    for i in known:
        x = px(series.x[i])
        y = py(series.y[i])
        if i < len(series.low) and math.isfinite(series.low[i]):
            out.append(line(x, py(series.low[i]), x, py(series.high[i]), style.colour, 1.2))
        if series.marks or len(known) == 1:
            out.append(mark(x, y, style, series.tips[i] if i < len(series.tips) else ""))
    return out


def sheet(title: str, plots: Sequence[Plot], columns: int = 2) -> str:
    """Return plots side by side under one legend as an SVG document.

    Args:
        title: alternative text of the image.
        columns: plots per row.
    """
    width = max(plot.width for plot in plots) * min(columns, len(plots))
    entries = list({entry[0]: entry for plot in plots for entry in plot.legend()}.values())
    legend, top = _legend(entries, width)
    out = [legend]
    height = top
    row_height = 0
    for index, plot in enumerate(plots):
        column = index % columns
        if column == 0:
            height = height + row_height
            row_height = plot.height
        out.append(f'<g transform="translate({column * plot.width} {height})">{plot.body()}</g>')
    return document(title, width, height + row_height, "\n".join(out))


def _legend(entries: Sequence[tuple[str, Style, bool, bool]], width: float) -> tuple[str, int]:
    x = 10.0
    y = 16
    out = []
    for label, style, marks, lined in entries:
        need = 34 + text_width(label, 12)
        if x + need > width and x > 10:
            x = 10.0
            y = y + 20
        if lined:
            out.append(line(x, y, x + 22, y, style.colour, style.width, style.dash))
        if marks:
            out.append(mark(x + 11, y, style))
        out.append(text(x + 28, y + 4, label, size=12))
        x += need + 12
    return "\n".join(out), (y + 12 if entries else 0)


def document(title: str, width: float, height: float, body: str) -> str:
    """Wrap elements as an SVG document that scales to the available width."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{width:g}" '
        f'height="{height:g}" role="img" style="{FONT};max-width:100%;height:auto">'
        f'<title>{escape(title)}</title>\n<rect width="100%" height="100%" fill="#fff"/>\n{body}\n</svg>\n'
    )


def text(
    x: float,
    y: float,
    content: str,
    *,
    anchor: str = "start",
    size: float = 11.5,
    colour: str = INK,
    weight: int = 400,
    extra: str = "",
) -> str:
    """Return a line of text."""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" font-weight="{weight}" '
        f'fill="{colour}" {extra}>{escape(content)}</text>'
    )


def text_width(content: str, size: float) -> float:
    """Estimate the width of a text in pixels, rather too large than too small."""
    return 0.55 * size * len(content)


def line(x0: float, y0: float, x1: float, y1: float, colour: str, width: float = 1.0, dash: str = "") -> str:
    """Return a straight line."""
    dashed = f' stroke-dasharray="{dash}"' if dash else ""
    return (
        f'<line x1="{x0:.1f}" y1="{y0:.1f}" x2="{x1:.1f}" y2="{y1:.1f}" stroke="{colour}" '
        f'stroke-width="{width}"{dashed}/>'
    )


def mark(x: float, y: float, style: Style, tip: str = "") -> str:
    """Return one mark, optionally with a tooltip."""
    r = style.size
    paint = f'fill="{style.colour}" stroke="#fff" stroke-width="0.8" opacity="{style.opacity}"'
    inside = f"<title>{escape(tip)}</title>" if tip else ""
    if style.shape == "circle":
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{r}" {paint}>{inside}</circle>'
    corners: dict[str, list[tuple[float, float]]] = {
        "diamond": [(0, -1.35), (1.35, 0), (0, 1.35), (-1.35, 0)],
        "square": [(-1, -1), (1, -1), (1, 1), (-1, 1)],
        "triangle": [(0, -1.25), (1.2, 0.95), (-1.2, 0.95)],
    }
    points = " ".join(f"{x + r * dx:.1f},{y + r * dy:.1f}" for dx, dy in corners[style.shape])
    return f'<polygon points="{points}" {paint}>{inside}</polygon>'


def ticks(
    values: Sequence[float], count: int, *, whole: bool = False
) -> tuple[list[tuple[float, str]], tuple[float, float]]:
    """Choose round tick values and the limits of an axis.

    Args:
        values: the data; non-finite ones are ignored.
        count: approximate number of ticks.
        whole: only use integers.

    Returns:
        (value, label) of each tick, and the limits, which leave a small margin around the values.
    """
    known = [v for v in values if math.isfinite(v)] or [0.0, 1.0]
    low = min(known)
    high = max(known)
    if high - low < 1e-9 * max(1.0, abs(high)):
        pad = max(abs(high) * 0.05, 0.5 if whole else 1e-3)
        low = low - pad
        high = high + pad
    margin = 0.05 * (high - low)
    low = low - margin
    high = high + margin
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * m for m in (1, 2, 2.5, 5, 10) if power * m >= raw * 0.999)
    if whole:
        step = max(1.0, float(math.ceil(step)))
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    if step * 10**digits % 1 > 1e-6:
        digits += 1  # a step of 2.5
    first = math.ceil(low / step - 1e-9)
    marks = [i * step for i in range(first, math.floor(high / step + 1e-9) + 1)]
    return [(v, f"{v if abs(v) > step / 1e6 else 0:,.{digits}f}") for v in marks], (low, high)
