"""The report of a run: a self-contained HTML file, with its figures as SVG and its tables as CSV."""

from __future__ import annotations

import json
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from nas_kd.analyse import frames, html
from nas_kd.analyse.answers import answers_part
from nas_kd.analyse.classes import classes_part
from nas_kd.analyse.disagreements import disagreements_part
from nas_kd.analyse.draw import arch_figure
from nas_kd.analyse.figures import front_figure, weights_of
from nas_kd.analyse.funnel import funnel_part, funnel_table
from nas_kd.analyse.measure import measure_of, worded
from nas_kd.analyse.results_part import results_part
from nas_kd.analyse.story import ENGINES, headline, missing
from nas_kd.analyse.table import budgets_table, final_table
from nas_kd.analyse.times import times_part
from nas_kd.analyse.training_part import suffix_of, training_part
from nas_kd.analyse.trust_part import trust_part
from nas_kd.analyse.writer import Writer
from nas_kd.config.kinds import checked
from nas_kd.config.nouns import spoken_page
from nas_kd.config.reading import read_text
from nas_kd.runs.files import atomic_write, on_disk
from nas_kd.runs.links import refuse_links
from nas_kd.runs.shape import as_written

if TYPE_CHECKING:
    from nas_kd.runs.run import Run


@checked
def report(run: str | Path | Run) -> Path:
    """Write the results of a run as one self-contained HTML file.

    The report of an unfinished run lists what is missing. Figures and tables are also written next to it as .svg and
    .csv files.

    Args:
        run: run folder.

    Returns:
        The path of ``report/report.html`` in the run.

    Raises:
        SettingError: the folder is not a run, or not writable; or one of its files is not of the shape that nas_kd
            writes.
    """
    root = frames.folder_of(run)
    refuse_links(root)
    with as_written(root, "see the file or column named; delete what is damaged and run the same command again"):
        return _written(root)


def _written(root: Path) -> Path:
    folder = root / "report"
    with on_disk(folder):
        folder.mkdir(exist_ok=True)
    writer = Writer(folder, measure_of(root))
    names = frames.searches(root) or ["search"]
    name = root.resolve().name
    body = [f"<h1>nas_kd: {escape(name)}</h1>", f'<p class="soft">{escape(_subtitle(root))}</p>']
    gaps = missing(root)
    if gaps:
        items = "".join(f"<li>{escape(gap)}</li>" for gap in gaps)
        body.append(
            f'<div class="missing"><strong>Still missing</strong><ul>{items}</ul>'
            "<p>Run the same command again to resume.</p></div>"
        )
    if len(names) > 1:
        budgets = budgets_table(root)
        heads = {"search": "search", "engine": "searched by", "budget": "budget", "label": "found", "macs": "MACs"}
        heads |= {"params": "parameters", "subnets": "scored subnets"}
        body.append("<h2>Budgets</h2>")
        shown = budgets.assign(engine=budgets["engine"].replace(ENGINES))
        body.append(html.table(shown, heads, dict.fromkeys(("macs", "params", "subnets"), html.whole)))
        writer.frame("budgets.csv", budgets)
    for search in names:
        if len(names) > 1:
            body.append(f"<h1>{escape(search)}</h1>")
        body += [worded(part, writer.measure) for part in _search_part(root, search, suffix_of(search, names), writer)]
    body += [worded(part, writer.measure) for part in training_part(root, writer)]
    body += times_part(root)
    texts = frames.of_texts(root)
    body = [spoken_page(part, texts) for part in body] + _settings_part(root)
    path = folder / "report.html"
    atomic_write(path, html.page(f"nas_kd: {name}", body))
    return path


def _search_part(root: Path, search: str, suffix: str, writer: Writer) -> list[str]:
    results = final_table(root, search)
    guided = frames.guided(root, search)
    steps = funnel_table(root, search, results)
    body = answers_part(root, search, results, steps)
    if len(steps):
        writer.frame(f"funnel{suffix}.csv", steps)
    body += funnel_part(steps)
    told = headline(root, search)
    body += ["<h2>In words</h2>", *html.paragraphs(told)] if told else []
    body += results_part(root, search, suffix, results, writer)

    def keep(name: str, frame: pd.DataFrame) -> None:
        writer.frame(f"{name}{suffix}.csv", frame)

    body += classes_part(root, results, keep)
    body += disagreements_part(root, results, keep)
    drawn = writer.figure(
        f"arch{suffix}",
        arch_figure(root, search),
        _how_rated(root) if guided else "",
    )
    if drawn:
        body += ["<h2>The found architecture</h2>", *drawn]
    whole = f"with {weights_of(root)}, after calibration"
    front = writer.figure(
        f"front{suffix}",
        front_figure(root, search),
        "Left: the exact front of the sum of ratings, for every budget, and the subnets that were scored as a "
        f"whole. Right: their accuracy on the rate split {whole}."
        if guided
        else f"Accuracy on the rate split {whole}.",
    )
    if front:
        body += ["<h2>Size against ratings and accuracy</h2>", *front]
    return body + trust_part(root, search, suffix, writer)


def _how_rated(root: Path) -> str:
    """Return how the parts of an arch were rated."""
    if frames.is_derived(root):
        return "Each box is a unit of the teacher: whole, narrower inside, or left out."
    return (
        "Each stage of the student gets the teacher's previous feature as input and is rated by how well it reproduces "
        "the teacher's next one."
    )


def _subtitle(root: Path) -> str:
    space = frames.mapping(root / "space.json")
    data = frames.table(root / "data.csv")
    parts = []
    if space.get("name"):
        parts.append(f"space {space['name']} ({space.get('size', 0):,} archs, hash {space.get('hash')})")
    if "split" in data:
        counts = data["split"].value_counts()
        parts.append("images: " + ", ".join(f"{counts[s]:,} {s}" for s in counts.index))
    return "; ".join(parts)


def _settings_part(root: Path) -> list[str]:
    body = []
    env = frames.mapping(root / "env.json")
    if env:
        rows = pd.DataFrame(
            [
                {"name": key, "value": value if isinstance(value, str | int | float) else json.dumps(value)}
                for key, value in env.items()
            ]
        )
        body += ["<h2>Environment</h2>", html.table(rows.astype(str), {"name": "", "value": ""}, {})]
    config = root / "config.yaml"
    if config.exists():
        body += ["<h2>Settings</h2>", f"<pre>{escape(read_text(config))}</pre>"]
    return body
