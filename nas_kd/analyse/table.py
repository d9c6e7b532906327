"""The table of results: the teacher, the found student and its controls."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from nas_kd.analyse import frames
from nas_kd.analyse.choice import differences, handed_over
from nas_kd.analyse.measure import as_accuracy, collapses, measure_of, scored_subnets
from nas_kd.config.measures import ACCURACY, Measure

if TYPE_CHECKING:
    from nas_kd.runs.run import Run

BESIDE = ("balanced_accuracy", "macro_f1")  # measures of the test images that are shown beside the main one


class Columns:
    """The columns of a final table that have values of the run's measure, as they are shown.

    Args:
        measure: the run's.
    """

    def __init__(self, measure: Measure = ACCURACY) -> None:
        self.mean, self.sd, self.lowest, self.highest = (
            f"{measure.name}_{what}{measure.suffix}" for what in ("mean", "sd", "min", "max")
        )
        self.gap, self.low, self.high = (f"difference{end}{measure.suffix}" for end in ("", "_low", "_high"))
        self.beside = [f"{name}_mean_percent" for name in BESIDE if name != measure.name]

    @property
    def every(self) -> list[str]:
        """All columns of the table."""
        own = [self.mean, self.sd, self.lowest, self.highest]
        rest = ["agreement_mean_percent", "seeds", "folder", "handed_over", self.gap, self.low, self.high, "metric"]
        return ["role", "arch", "macs", "params", *own, *rest, *self.beside, "collapsed"]


def students(run: str | Path | Run, search: str = "search") -> pd.DataFrame:
    """Return the students that a search retrains: role, key, macs, params; without a list, from the results."""
    listed = as_accuracy(frames.table(frames.folder_of(run) / search / "students.csv"), measure_of(run))
    if len(listed):
        return listed
    rows = frames.results(run)
    if "search" in rows:
        rows = rows[rows["search"] == search]
    if len(rows):
        columns = [name for name in ("role", "key", "label", "macs", "params") if name in rows]
        return rows[columns].drop_duplicates("role").reset_index(drop=True)
    return pd.DataFrame(columns=["role", "key", "macs", "params"])


def trained_in(student: Mapping[Any, Any]) -> str:
    """Return the folder of the trainings of a row of `students`, which has one folder per seed."""
    folder = student.get("trained_in")
    return folder if isinstance(folder, str) else f"retrain/{student['key']}"


def budget_words(best: Mapping[str, Any]) -> str:
    """Describe the budget in a search's best.json; ``none`` if there is none."""
    names = {"macs": "MACs", "params": "parameters"}
    limits = [
        f"{bound} {limit:,} {names.get(what, what)}"
        for bound, given in (("at least", best.get("at_least")), ("at most", best.get("budget")))
        for what, limit in (given or {}).items()
    ]
    latency = best.get("max_latency_ms")
    runtime = best.get("latency_runtime", "torch")
    by = "" if runtime == "torch" else f" in {runtime}"
    return ", ".join(limits + ([] if latency is None else [f"at most {latency:g} ms{by}"])) or "none"


def runs_of(run: str | Path | Run, search: str = "search") -> pd.DataFrame:
    """Return one row per finished role and seed: role, key, macs, params, seed and the metrics.

    Before results.csv is complete, finished trainings are read from their own folders. Searches share the trainings
    of an arch unless the methods differ. The columns of accuracy hold the run's measure as
    `nas_kd.analyse.measure.as_accuracy` has it.
    """
    root = frames.folder_of(run)
    measure = measure_of(root)
    main = measure.name
    columns = {"seed": "seed", "select_accuracy": f"select_{main}", "test_accuracy": f"test_{main}"}
    columns |= {"test_agreement": "test_agreement", "folder": "folder", "collapsed": "test_collapsed"}
    columns |= {name: f"test_{name}" for name in BESIDE}
    done = frames.results(run)
    rows: list[dict[str, Any]] = []
    for student in _records(students(run, search)):
        own = trained_in(student)
        student.pop("trained_in", None)
        mine = done[done["folder"].astype(str).str.startswith(f"{own}/seed_")] if "folder" in done else done
        measured = _records(mine.drop_duplicates("seed")) if "seed" in mine else []
        seen = {int(row["seed"]) for row in measured}
        for path in sorted((root / own).glob("seed_*/stage.json")):
            seed = path.parent.name.removeprefix("seed_")
            stage = frames.mapping(path)
            if stage.get("done") and seed.isdigit() and int(seed) not in seen:
                folder = (path.parent / "student").relative_to(root).as_posix()
                measured.append({"seed": int(seed), "folder": folder} | stage.get("facts", {}))
        for row in measured:
            rows.append(student | {name: row.get(own) for name, own in columns.items()})
    if not rows:
        return pd.DataFrame(columns=["role", "key", "macs", "params", *columns])
    frame = pd.DataFrame(rows)
    values = {name: measure.sign * pd.to_numeric(frame[name]) for name in ("select_accuracy", "test_accuracy")}
    return frame.assign(**values) if measure.lower else frame


def final_table(run: str | Path | Run, search: str = "search") -> pd.DataFrame:
    """Summarise the retrained students over their seeds, the teacher first.

    Args:
        run: run folder.
        search: the search's folder in the run: one per budget.

    Returns:
        One row per role: role, arch (key, or the teacher's name), macs, params, the run's measure on the test images,
        which ``metric`` and the names of its columns name (mean, sample standard deviation, lowest and highest over
        the seeds, such as ``accuracy_mean_percent`` or ``mae_mean``), agreement with the
        teacher (share of test images with the same prediction, in percent), seeds, the folder of the seed
        that is best on the select split, whether the student is handed over, and its measure minus
        that of the one handed over with the 95 % interval over test images and seeds; if it includes 0, the
        two cannot be told apart. Unmeasured values are NaN, with 0 seeds. ``collapsed`` is the number of trainings
        whose answers are no better than a constant.
    """
    root = frames.folder_of(run)
    measure = measure_of(root)
    names = Columns(measure)
    rows: list[dict[str, Any]] = []
    teacher = frames.mapping(root / "retrain" / "teacher.json")
    if teacher:
        reached = teacher.get(f"test_{measure.name}")
        rows.append(
            {
                "role": "teacher",
                "arch": teacher.get("name"),
                "macs": teacher.get("macs"),
                "params": teacher.get("params"),
                names.mean: float("nan") if reached is None else measure.factor * reached,
                "agreement_mean_percent": 100.0,
                "seeds": 1,
                "folder": teacher.get("folder"),
                "collapsed": int(teacher.get("test_collapsed") or 0),
            }
            | {f"{name}_mean_percent": _percent(teacher.get(f"test_{name}")) for name in BESIDE if name != measure.name}
        )
    measured = runs_of(run, search)
    given = handed_over(root, search)
    gaps = differences(root, measured, given, "test").set_index("role")
    gone = collapses(measured)
    for student in students(run, search).to_dict("records"):
        mine = measured[measured["role"] == student["role"]]
        values = pd.to_numeric(mine["test_accuracy"]).dropna() * (measure.sign * measure.factor)
        agreement = pd.to_numeric(mine["test_agreement"]).dropna() * 100.0
        rows.append(
            {
                "role": student["role"],
                "arch": student["key"],
                "macs": student.get("macs"),
                "params": student.get("params"),
                names.mean: values.mean(),
                names.sd: values.std(ddof=1),
                names.lowest: values.min(),
                names.highest: values.max(),
                "agreement_mean_percent": agreement.mean(),
                "seeds": len(values),
                "folder": _best_folder(mine),
                "handed_over": student["role"] == given,
                "collapsed": gone.get(student["role"], 0),
            }
            | {
                f"{name}_mean_percent": 100.0 * pd.to_numeric(mine[name]).mean()
                for name in BESIDE
                if name != measure.name
            }
        )
    found = pd.DataFrame(rows, columns=names.every)
    found["handed_over"] = found["handed_over"].eq(True)
    ends = ("low", "high") if not measure.lower else ("high", "low")  # differences of scores, of which higher is better
    for column, name in ((names.gap, "difference"), (names.low, ends[0]), (names.high, ends[1])):
        found[column] = found["role"].map(measure.sign * measure.factor * gaps[name].astype(float))
    found["metric"] = measure.name
    for name in ("macs", "params", "seeds", "collapsed"):
        found[name] = pd.to_numeric(found[name]).astype("Int64")
    own = (names.mean, names.sd, names.lowest, names.highest, names.gap, names.low, names.high, *names.beside)
    for name in (*own, "agreement_mean_percent"):
        found[name] = pd.to_numeric(found[name]).astype(float)
    return found


def student_table(run: str | Path | Run, search: str = "search") -> pd.DataFrame:
    """Join each retrained student's scores before retraining with its accuracy after it.

    Args:
        run: run folder.
        search: the search's folder in the run.

    Returns:
        One row per arch that was tested: role, key, macs, params, score (sum of stage scores), kl, accuracy (supernet
        weights, rate split) where known, and test_accuracy (mean over seeds); both are the run's measure, signed so
        that higher is better.
    """
    measured = runs_of(run, search)
    measured = measured[pd.to_numeric(measured["test_accuracy"]).notna()]
    if not len(measured):
        return pd.DataFrame(columns=["role", "key", "macs", "params", "score", "kl", "accuracy", "test_accuracy"])
    measured = measured.assign(test_accuracy=measured["test_accuracy"].astype(float))
    means = measured.groupby("key")["test_accuracy"].mean()
    rows = students(run, search).drop_duplicates("key")
    rows = rows[rows["key"].isin(means.index)].set_index("key")
    rows = rows.assign(test_accuracy=means)
    known = scored_subnets(run, search).set_index("key")
    for name in ("score", "kl", "accuracy"):
        values = known[name].reindex(rows.index) if name in known else pd.Series(float("nan"), rows.index)
        rows[name] = rows[name].fillna(values) if name in rows else values
    if "label" in rows:
        root = frames.folder_of(run)
        rows["score"] = [
            _added_score(root, str(label)) if pd.isna(score) else float(score)
            for label, score in zip(rows["label"], rows["score"], strict=True)
        ]
    return rows.reset_index()


def _added_score(root: Path, label: str) -> float:
    """Return the sum of the stage scores of an arch, given its label, if the search did not evaluate it."""
    space = frames.mapping(root / "space.json")
    width = space.get("stem", {}).get("width")
    total = 0.0
    if not isinstance(width, int) or label.count(" | ") + 1 != len(space.get("stages", ())):
        return float("nan")  # a space with other choices besides its stages: only the search knows the score
    for number, part in enumerate(label.split(" | "), 1):
        rows = frames.table(root / "blockwise" / f"stage_{number}.csv")
        if not {"label", "score", "in_width", "out_width"} <= set(rows.columns):
            return float("nan")
        mine = rows[(rows["label"] == part) & (rows["in_width"] == width)]
        if len(mine) != 1:
            return float("nan")
        total = total + float(mine["score"].iloc[0])
        width = int(mine["out_width"].iloc[0])
    return total


def budgets_table(run: str | Path | Run) -> pd.DataFrame:
    """Return one row per search of the run: search, engine, budget, arch, macs, params and evaluated subnets."""
    rows = []
    for name in frames.searches(run):
        found = frames.best(run, name)
        rows.append(
            {
                "search": name,
                "engine": frames.engine(run, name),
                "budget": budget_words(found),
                "arch": found.get("key"),
                "label": found.get("label"),
                "macs": found.get("macs"),
                "params": found.get("params"),
                "subnets": len(scored_subnets(run, name)),
            }
        )
    return pd.DataFrame(rows)


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(name): value for name, value in row.items()} for row in frame.to_dict("records")]


def _percent(share: float | None) -> float:
    return float("nan") if share is None else 100.0 * share


def _best_folder(mine: pd.DataFrame) -> str | None:
    if not len(mine) or mine["folder"].isna().all():
        return None
    order = mine.assign(select_accuracy=pd.to_numeric(mine["select_accuracy"]))
    order = order.sort_values(["select_accuracy", "seed"], ascending=[False, True], kind="stable")
    return str(order["folder"].iloc[0])
