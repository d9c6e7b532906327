"""The figure of a ranking: tau of every score inside bands and over all sizes, with the noise ceiling."""

from __future__ import annotations

import math

import pandas as pd

from nas_kd.analyse.palette import BUDGET, FOUND, LARGEST_MACS, RANDOM
from nas_kd.analyse.svg import GRID, INK, SOFT, Style, document, line, mark, text, ticks
from nas_kd.ranking.summary import EVERYWHERE, INSIDE

WIDTH = 980
LEFT = 250
RIGHT = 690
ROW = 22
TOP = 60
COLOURS = {
    "primary": FOUND.colour,
    "exploratory": RANDOM.colour,
    "primary control": LARGEST_MACS.colour,
    "control": SOFT,
}


def rank_figure(summary: pd.DataFrame, noise: pd.DataFrame) -> str:
    """Draw one row per score: tau inside the bands with its 95 % interval, over all archs, and the gap to size.

    Args:
        summary: from ``summarise``.
        noise: from ``noise_table``.

    Returns:
        An SVG document.
    """
    rows = summary.to_dict("records")
    known = [row[name] for row in rows for name in ("band_tau_low", "band_tau_high", "tau")]
    marks, (x0, x1) = ticks([-0.2, 1.0, *(value for value in known if math.isfinite(value))], 7)
    height = TOP + ROW * len(rows) + 56
    bottom = height - 50

    def px(value: float) -> float:
        return LEFT + (value - x0) / (x1 - x0) * (RIGHT - LEFT)

    out = [text(LEFT, 20, "Kendall's tau-b with the accuracy of trained archs", size=13, weight=600)]
    out.append(text(RIGHT + 20, 20, "gap to the best size control", size=13, weight=600))
    legend = LEFT
    for role, colour in COLOURS.items():
        out.append(mark(legend, 40, Style(colour, "circle", 4.2)))
        out.append(text(legend + 9, 44, role, colour=SOFT))
        legend += 40 + 7 * len(role)
    out.append(mark(legend, 40, Style(INK, "diamond", 3.0, opacity=0.5)))
    out.append(text(legend + 9, 44, "over all sizes", colour=SOFT))
    out += [line(px(v), TOP - 8, px(v), bottom, SOFT if v == 0 else GRID) for v, _ in marks]
    out += [text(px(v), bottom + 16, label, anchor="middle", colour=SOFT) for v, label in marks]
    scope = INSIDE if (noise["scope"] == INSIDE).any() else EVERYWHERE
    ceiling = float(noise.loc[noise["scope"] == scope, "ceiling"].iloc[0])
    if math.isfinite(ceiling):
        out.append(line(px(ceiling), TOP - 8, px(ceiling), bottom, BUDGET.colour, 1.3, "4 3"))
        out.append(text(px(ceiling), bottom + 32, "ceiling by seed noise", anchor="middle", colour=BUDGET.colour))
    for number, row in enumerate(rows):
        y = TOP + ROW * number + 8
        colour = COLOURS[row["role"]]
        out.append(text(LEFT - 14, y + 4, row["score"], anchor="end", colour=INK))
        if math.isfinite(row["band_tau_low"]):
            out.append(line(px(row["band_tau_low"]), y, px(row["band_tau_high"]), y, colour, 2.2))
        if math.isfinite(row["tau"]):
            out.append(mark(px(row["tau"]), y, Style(INK, "diamond", 3.0, opacity=0.5), "over all sizes"))
        if math.isfinite(row["band_tau"]):
            tip = f"{row['score']}: {row['band_tau']:.2f}, {row['archs']} archs"
            out.append(mark(px(row["band_tau"]), y, Style(colour, "circle", 4.2), tip))
        if math.isfinite(row["minus_size"]):
            gap = f"{row['minus_size']:+.2f} [{row['minus_size_low']:+.2f}, {row['minus_size_high']:+.2f}]"
            out.append(text(RIGHT + 20, y + 4, gap, colour=INK if row["minus_size_low"] > 0 else SOFT))
    title = f"tau-b {scope}, 95 % interval over archs and seeds"
    out.append(text((LEFT + RIGHT) / 2, height - 4, title, anchor="middle", size=12))
    return document("How well scores rank archs", WIDTH, height, "\n".join(out))
