"""Where a report goes: its figures as SVG and its tables as CSV, beside the page."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from nas_kd.analyse import frames, html
from nas_kd.analyse.measure import worded
from nas_kd.config.measures import Measure
from nas_kd.config.nouns import spoken_page
from nas_kd.runs.files import atomic_write


class Writer:
    """Stores figures and tables next to the page.

    Args:
        folder: of the report.
        measure: the run's.
    """

    def __init__(self, folder: Path, measure: Measure) -> None:
        self.folder = folder
        self.measure = measure

    def figure(self, name: str, svg: str | None, caption: str) -> list[str]:
        """Store a figure and return it as parts of the page; none where there is nothing to draw."""
        if svg is None:
            return []
        svg = spoken_page(worded(svg, self.measure), frames.of_texts(self.folder.parent))
        atomic_write(self.folder / f"{name}.svg", svg)
        return [html.figure(svg, caption)]

    def frame(self, name: str, frame: pd.DataFrame) -> None:
        """Store a table."""
        atomic_write(self.folder / name, frame.to_csv(index=False))
