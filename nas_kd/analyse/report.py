"""The report of a run: a self-contained HTML file, with its figures as SVG and its tables as CSV."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from nas_kd.analyse import frames, html
from nas_kd.analyse.choice import indistinguishable
from nas_kd.analyse.classes import classes_part
from nas_kd.analyse.curves import curve_figure, retrain_figure
from nas_kd.analyse.draw import arch_figure
from nas_kd.analyse.figures import front_figure, ranking_figure, students_figure, trust_figure
from nas_kd.analyse.measure import as_measure, measure_of, scored_subnets, worded
from nas_kd.analyse.story import ENGINES, headline, missing
from nas_kd.analyse.table import BESIDE, Columns, budgets_table, final_table, runs_of
from nas_kd.analyse.trust import seed_ceiling, trust_table, verdicts
from nas_kd.config.kinds import checked
from nas_kd.config.measures import MEASURES, Measure
from nas_kd.config.reading import read_text
from nas_kd.runs.files import atomic_write, on_disk
from nas_kd.runs.links import refuse_links
from nas_kd.runs.shape import as_written

if TYPE_CHECKING:
    from nas_kd.runs.run import Run

RATING_HEADS = {
    "stage": "stage",
    "rows": "rows",
    "rated": "rated",
    "images": "images",
    "tau_half_full": "tau-b, half-time against end",
    "tau_score_macs": "tau-b, score against MACs",
    "score_min": "lowest score",
    "score_median": "median score",
    "score_max": "highest score",
}
TRUST_HEADS = {
    "truth": "ranking",
    "among": "of",
    "archs": "archs",
    "score": "score",
    "tau": "tau-b",
    "minus_macs": "tau-b minus that of MACs",
    "minus_params": "tau-b minus that of parameters",
}


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
    writer = _Writer(folder, measure_of(root))
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
        suffix = _suffix(search, names)
        if len(names) > 1:
            body.append(f"<h1>{escape(search)}</h1>")
        body += [worded(part, writer.measure) for part in _search_part(root, search, suffix, writer)]
    body += [worded(part, writer.measure) for part in _curves_part(root, writer)]
    body += _settings_part(root)
    path = folder / "report.html"
    atomic_write(path, html.page(f"nas_kd: {name}", body))
    return path


class _Writer:
    """Stores figures and tables next to the page."""

    def __init__(self, folder: Path, measure: Measure) -> None:
        self.folder = folder
        self.measure = measure

    def figure(self, name: str, svg: str | None, caption: str) -> list[str]:
        if svg is None:
            return []
        svg = worded(svg, self.measure)
        atomic_write(self.folder / f"{name}.svg", svg)
        return [html.figure(svg, caption)]

    def frame(self, name: str, frame: pd.DataFrame) -> None:
        atomic_write(self.folder / name, frame.to_csv(index=False))


def _suffix(search: str, names: Sequence[str]) -> str:
    """Return a suffix for the files of all searches but the first."""
    return "" if search == names[0] else "_" + search.split("/")[-1]


def _search_part(root: Path, search: str, suffix: str, writer: _Writer) -> list[str]:
    results = final_table(root, search)
    trust = trust_table(root, search)
    guided = frames.guided(root, search)
    body = html.paragraphs(headline(root, search))
    if len(results):
        writer.frame(f"results{suffix}.csv", results)
        writer.frame(f"seeds{suffix}.csv", as_measure(runs_of(root, search), writer.measure))
        numbers: dict[str, Callable[[object], str]] = {
            "agreement_mean_percent": html.fixed(2),
            "accuracy": str,
            "range": str,
            "gap": str,
        }
        numbers |= dict.fromkeys(("macs", "params", "seeds"), html.whole)
        names = Columns(writer.measure)
        beside = [name for name in names.beside if results[name].notna().any()]
        numbers |= dict.fromkeys(beside, html.fixed(2))
        body.append("<h2>Results</h2>")
        shown = _spread(results, writer.measure)
        body.append(html.table(shown, _heads(writer.measure, beside), numbers, _row_class))
        agreement = "; agreement is the share of test images for which student and teacher predict the same class"
        body.append(
            '<p class="soft">All students were retrained in the same way, once per seed. MACs are multiply-adds of '
            "convolutions and linear layers for one image, not FLOPs. Accuracy is the mean over the seeds with its "
            f"sample standard deviation{', lower being better' if writer.measure.lower else ''}"
            f"{agreement if frames.has_teacher(root) else ''}. The folder is that of the seed "
            "with the best accuracy on the select split; the test images were not used for any decision. The "
            "coloured row is handed over. Brackets: 95 % interval of the paired difference over test images and "
            "seeds; '=' marks intervals that include 0, where the two students cannot be told apart.</p>"
        )
    body += classes_part(root, results, lambda name, frame: writer.frame(f"{name}{suffix}.csv", frame))
    body += writer.figure(
        f"students{suffix}",
        students_figure(root, search),
        "Large marks: mean over the seeds; small dots: single seeds; bars: lowest to highest.",
    )
    drawn = writer.figure(
        f"arch{suffix}",
        arch_figure(root, search),
        _how_rated(root) if guided else "",
    )
    if drawn:
        body += ["<h2>The found architecture</h2>", *drawn]
    front = writer.figure(
        f"front{suffix}",
        front_figure(root, search),
        "Left: the exact front of the sum of stage scores, for every budget, and the subnets that were scored as a "
        "whole. Right: their accuracy on the rate split with shared weights, after calibration."
        if guided
        else "Accuracy on the rate split with shared weights, after calibration.",
    )
    if front:
        body += ["<h2>Size against score and accuracy</h2>", *front]
    if len(trust):
        writer.frame(f"trust{suffix}.csv", trust)
        body.append("<h2>How far the ranking can be trusted</h2>")
        body += html.paragraphs(verdicts(trust))
        body += writer.figure(
            f"score_accuracy{suffix}",
            ranking_figure(root, search),
            "With a good score, points fall from upper left to lower right. Brackets: 95 % bootstrap interval "
            "over archs, 2,000 resamples.",
        )
        body += writer.figure(
            f"trust{suffix}",
            trust_figure(trust),
            "Circles: scores of this run; squares: size alone. All taus are signed so that positive is better; "
            f"those of a group use the same resamples. {_chosen(root, search)}Intervals from "
            "fewer than ten archs are too narrow to rely on.",
        )
        ceiling = seed_ceiling(root, search)
        if ceiling == ceiling:
            body.append(
                f'<p class="soft">Tau between two retraining seeds of the same archs: {ceiling:.2f}; '
                "no score can be expected to rank single retrainings better than that.</p>"
            )
        body.append(
            html.table(_formatted(trust), TRUST_HEADS, dict.fromkeys(("tau", "minus_macs", "minus_params"), str))
        )
    return body


def _chosen(root: Path, search: str) -> str:
    """Describe which share of the scored subnets the search chose itself."""
    scored = scored_subnets(root, search)
    if not len(scored):
        return ""
    drawn = frames.engine(root, search) == "random" or scored["kind"].isin(("random", "control"))
    share = 1.0 - float(pd.Series(drawn, scored.index).mean())
    if share == 0.0:
        return "The scored subnets were drawn by lot within the budget. "
    return (
        f"The search itself chose {100 * share:.0f} % of the scored subnets: they do not stand for all; "
        "those drawn by lot within the budget are listed separately if there are enough. "
    )


def _heads(measure: Measure, beside: Sequence[str]) -> dict[str, str]:
    """Return the columns of the table of results and their heads."""
    percent = " (%)" if measure.percent else ""
    heads = {
        "role": "role",
        "arch": "arch",
        "macs": "MACs",
        "params": "parameters",
        "accuracy": f"test accuracy{percent}",
    }
    heads |= {"range": f"lowest to highest{percent}"}
    heads |= {"gap": f"minus the one handed over{' (points)' if measure.percent else ''}"}
    known = {f"{name}_mean_percent": MEASURES[name].title() for name in BESIDE}
    heads |= {name: known[name] for name in beside}
    return heads | {"agreement_mean_percent": "agreement (%)", "seeds": "seeds", "folder": "folder in the run"}


def _spread(results: pd.DataFrame, measure: Measure) -> pd.DataFrame:
    """Format mean and standard deviation, and the range, in one column each."""
    dash = "–"
    names = Columns(measure)
    digits = measure.digits
    accuracy = []
    ranges = []
    gaps = []
    same = indistinguishable(results)
    for row in results.to_dict("records"):
        mean = row[names.mean]
        sd = row[names.sd]
        plain = f"{mean:.{digits}f}"
        accuracy.append(dash if pd.isna(mean) else plain if pd.isna(sd) else f"{plain} ± {sd:.{digits}f}")
        low = row[names.lowest]
        high = row[names.highest]
        ranges.append(dash if pd.isna(low) else f"{low:.{digits}f} {dash} {high:.{digits}f}")
        gap, least, most = row[names.gap], row[names.low], row[names.high]
        sign = "= " if row["role"] in same else ""
        gaps.append("" if pd.isna(gap) else f"{sign}{gap:+.{digits}f} [{least:.{digits}f}, {most:.{digits}f}]")
    return results.assign(accuracy=accuracy, range=ranges, gap=gaps)


def _row_class(row: Mapping[str, Any]) -> str:
    return "handed" if row["handed_over"] else str(row["role"])


def _formatted(trust: pd.DataFrame) -> pd.DataFrame:
    """Format each tau and each paired difference with its interval; sizes are only in the differences."""
    own = trust[trust["minus_macs"].notna()].copy()
    for name, low, high in (
        ("tau", "low", "high"),
        ("minus_macs", "minus_macs_low", "minus_macs_high"),
        ("minus_params", "minus_params_low", "minus_params_high"),
    ):
        own[name] = [f"{a:.2f} [{b:.2f}, {c:.2f}]" for a, b, c in zip(own[name], own[low], own[high], strict=True)]
    return own


def _how_rated(root: Path) -> str:
    """Return how the parts of an arch were rated."""
    if frames.is_derived(root):
        return "Each box is a unit of the teacher: whole, narrower inside, or left out."
    return (
        "Each stage of the student gets the teacher's previous feature as input and is rated by how well it reproduces "
        "the teacher's next one."
    )


def _curves_part(root: Path, writer: _Writer) -> list[str]:
    body = []
    for stage, title in (("teacher", "Teacher"), ("supernet", "Supernet"), ("blockwise", "Blockwise")):
        rows = frames.table(root / stage / "metrics.csv")
        if len(rows) and "epoch" in rows:
            body += writer.figure(f"curve_{stage}", curve_figure(rows, title, writer.measure), "")
    names = frames.searches(root) or ["search"]
    for search in names:
        caption = "Accuracy on the rate split, which is not used for training."
        caption = caption if len(names) == 1 else f"Students of {search}. {caption}"
        suffix = _suffix(search, names)
        body += writer.figure(f"curve_retrain{suffix}", retrain_figure(root, search), caption)
    ratings = frames.table(root / "blockwise" / "summary.csv")
    if len(ratings):
        body.append("<h3>Ratings by stage</h3>")
        heads = {name: head for name, head in RATING_HEADS.items() if name in ratings}
        numbers = {
            str(c): html.fixed(3) if ratings[c].dtype.kind == "f" else html.whole
            for c in ratings
            if ratings[c].dtype.kind in "if"
        }
        body.append(html.table(ratings, heads, numbers))
    return ["<h2>Training</h2>", *body] if body else []


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
    timing = frames.table(root / "timing.csv")
    if {"stage", "seconds"} <= set(timing.columns) and len(timing):
        timing = timing.assign(stage=timing["stage"].astype(str).str.split("/").str[0])
        total = timing.groupby("stage", sort=False)["seconds"].sum().reset_index()
        heads = {"stage": "stage", "seconds": "seconds of work, summed over processes"}
        body += ["<h2>Time</h2>", html.table(total, heads, {"seconds": html.fixed(1)})]
    config = root / "config.yaml"
    if config.exists():
        body += ["<h2>Settings</h2>", f"<pre>{escape(read_text(config))}</pre>"]
    return body
