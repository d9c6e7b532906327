"""Several runs side by side: settings that differ, budgets, students handed over, accuracy and time."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd

from nas_kd.analyse import frames
from nas_kd.analyse.measure import measure_of
from nas_kd.analyse.palette import FOUND, LARGEST_MACS, LARGEST_PARAMS, RANDOM, TEACHER
from nas_kd.analyse.svg import Plot, sheet
from nas_kd.analyse.table import Columns, budget_words, final_table
from nas_kd.config.measures import MEASURES
from nas_kd.errors import SettingError
from nas_kd.runs.files import atomic_write, on_disk

if TYPE_CHECKING:
    from nas_kd.runs.run import Run

APART = ("run", "plan", "max_hours")  # settings that change no result
STYLES = (FOUND, RANDOM, LARGEST_MACS, LARGEST_PARAMS)
COLUMNS = [
    *("run", "search", "test_set", "metric", "mean", "sd", "seeds", "teacher", "role", "arch", "macs", "params"),
    *("budget", "minutes"),
]


class Comparison(NamedTuple):
    """Several runs side by side.

    Args:
        table: one row a run and search: run, search, test_set (runs with the same one were measured on the same images
            and labels), metric, mean and sd (of the student handed over, over its seeds, on the test images), seeds,
            teacher, role, arch, macs, params, budget, minutes of work (of all processes, the whole run's).
        settings: one row a setting that is not the same in all runs, one column a run.
    """

    table: pd.DataFrame
    settings: pd.DataFrame

    def by_test_set(self) -> list[pd.DataFrame]:
        """Return the rows by test set and metric, within which alone measures can be compared."""
        return [rows for _, rows in self.table.groupby(["test_set", "metric"], sort=False, dropna=False)]


def compare(runs: Sequence[str | Path | Run]) -> Comparison:
    """Compare runs by what their folders hold.

    Args:
        runs: at least two run folders, each once.

    Returns:
        Their students and the settings that differ.

    Raises:
        SettingError: there are fewer than two, one is given twice, or one is not a run.
    """
    roots = [frames.folder_of(run) for run in runs]
    if len(roots) < 2:
        raise SettingError("runs", [str(root) for root in roots], "at least two run folders", "nas-kd compare RUN RUN")
    real = [root.resolve() for root in roots]
    twice = next((str(root) for root in roots if real.count(root.resolve()) > 1), None)
    if twice is not None:
        raise SettingError("runs", twice, "every run once", "leave it out the second time")
    names = _names(roots)
    rows = [row for root, name in zip(roots, names, strict=True) for row in _students(root, name)]
    return Comparison(pd.DataFrame(rows, columns=COLUMNS), _differing(roots, names))


def write_comparison(found: Comparison, folder: str | Path) -> list[Path]:
    """Write compare.csv, settings.csv, and compare.svg where students were measured.

    Args:
        folder: created if missing.

    Returns:
        The files.

    Raises:
        SettingError: the folder cannot be written to.
    """
    root = Path(folder)
    with on_disk(root):
        root.mkdir(parents=True, exist_ok=True)
    contents = {"compare.csv": found.table.to_csv(index=False), "settings.csv": found.settings.to_csv(index=False)}
    svg = compare_figure(found)
    if svg is not None:
        contents["compare.svg"] = svg
    for name, text in contents.items():
        atomic_write(root / name, text)
    return [root / name for name in contents]


def compare_figure(found: Comparison) -> str | None:
    """Draw what the students cost against what they reach, one plot a test set; None if nothing was measured."""
    plots = []
    for number, rows in enumerate(found.by_test_set(), 1):
        known = rows[rows["mean"].notna() & rows["macs"].notna()]
        if not len(known):
            continue
        measure = MEASURES[str(rows["metric"].iloc[0])]
        which = f", test set {number} of {len(found.by_test_set())}" if len(found.by_test_set()) > 1 else ""
        unit = " (%)" if measure.percent else ""
        plot = Plot(f"Students handed over{which}", "million MACs", f"test {measure.words}{unit}")
        for at, (name, own) in enumerate(known.groupby("run", sort=False)):
            spread = own["sd"].fillna(0.0)
            low, high = (own["mean"] - spread).tolist(), (own["mean"] + spread).tolist()
            plot.add(
                str(name), STYLES[at % len(STYLES)], own["macs"].astype(float) / 1e6, own["mean"], low=low, high=high
            )
        for reached in sorted(set(known["teacher"].dropna())):
            plot.levels.append(("teacher", float(reached), TEACHER))
        plots.append(plot)
    return sheet("Students of several runs", plots) if plots else None


def _names(roots: Sequence[Path]) -> list[str]:
    """Name runs by their folders, by whole paths where two folders have one name."""
    short = [root.resolve().name for root in roots]
    return [name if short.count(name) == 1 else str(root) for name, root in zip(short, roots, strict=True)]


def _students(root: Path, name: str) -> Iterator[dict[str, Any]]:
    """Yield a row a search of a run; one row of what is known where nothing was searched."""
    measure = measure_of(root)
    own = Columns(measure)
    timing = frames.table(root / "timing.csv")
    minutes = pd.to_numeric(timing["seconds"]).sum() / 60 if len(timing) else float("nan")
    for search in frames.searches(root) or ["search"]:
        best = frames.best(root, search)
        row: dict[str, Any] = {"run": name, "search": search, "test_set": _test_set(root), "metric": measure.name}
        row |= {"budget": budget_words(best) if best else None, "minutes": minutes}
        table = final_table(root, search)
        teacher = table.loc[table["role"] == "teacher", own.mean]
        row["teacher"] = teacher.iloc[0] if len(teacher) else float("nan")
        student = table[table["handed_over"]]
        if len(student):
            given = student.iloc[0]
            row |= {"mean": given[own.mean], "sd": given[own.sd], "seeds": int(given["seeds"])}
            row |= {what: given[what] for what in ("role", "arch", "macs", "params")}
        elif best:
            row |= {"role": "found", "arch": best.get("key"), "macs": best.get("macs"), "params": best.get("params")}
        yield row


def _test_set(root: Path) -> str:
    """Return a short hash of the names and labels of the test images; empty if none are listed."""
    images = frames.table(root / "data.csv")
    if "split" not in images:
        return ""
    test = images[images["split"] == "test"].drop(columns="split")
    rows = sorted(map(tuple, test.astype(str).to_numpy().tolist()))
    return hashlib.sha256(repr((list(test.columns), rows)).encode()).hexdigest()[:8] if rows else ""


def _differing(roots: Sequence[Path], names: Sequence[str]) -> pd.DataFrame:
    every = [dict(_flat(frames.settings(root))) for root in roots]
    known = list(dict.fromkeys(setting for settings in every for setting in settings))
    rows = []
    for setting in known:
        values = [repr(settings.get(setting)) if setting in settings else "–" for settings in every]
        if setting not in APART and len(set(values)) > 1:
            shown = [_plain(settings.get(setting)) if setting in settings else "–" for settings in every]
            rows.append({"setting": setting} | dict(zip(names, shown, strict=True)))
    return pd.DataFrame(rows, columns=["setting", *names])


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _plain(value: Any) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
