"""A run's files as pandas frames; missing files are empty frames."""

from __future__ import annotations

import io
from copy import deepcopy
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from nas_kd.config.file import LARGEST, Loader
from nas_kd.config.nouns import TOKENS
from nas_kd.config.reading import TABLE, parsed, read_text
from nas_kd.errors import SettingError
from nas_kd.runs.shape import check_table

if TYPE_CHECKING:
    from nas_kd.runs.run import Run

TEXT = {"key": str, "label": str, "role": str}  # a key of hexadecimal digits may look like a number
MARKS = ("config.yaml", "env.json", "space.json", "data.csv", "supernet", "search", "retrain", "teacher")
GUIDED = ("exact", "gates", "reinforce", "predictor")  # engines that need a teacher's ratings
NNI = "nni:"  # begins the names of NNI's tuners, which need them too


def is_guided(engine: str | None) -> bool:
    """Return whether an engine searches with a teacher's ratings."""
    return engine is not None and (engine in GUIDED or engine.startswith(NNI))


def folder_of(run: str | Path | Run) -> Path:
    """Return the existing folder of a run.

    Raises:
        SettingError: the folder does not exist, or is not a run.
    """
    path = Path(run) if isinstance(run, str | Path) else run.path
    if not path.is_dir():
        raise SettingError("run", str(path), "an existing run folder", "check the path")
    if not any((path / name).exists() for name in MARKS):
        held = ", ".join(sorted(each.name for each in path.iterdir())[:3]) or "nothing"
        expected = f"a run folder of nas_kd, with env.json and config.yaml (this one holds {held})"
        raise SettingError("run", str(path), expected, "give the --run of an earlier command")
    return path


def of_texts(run: str | Path | Run) -> bool:
    """Tell whether the data of a run are texts."""
    return (folder_of(run) / TOKENS).is_file()


def table(path: Path, *, words: bool = False) -> pd.DataFrame:
    """Read a CSV file; a missing file, or one without a complete header, is an empty frame.

    Args:
        words: every cell is text as it is written: a class may be called None, or 001.

    Raises:
        SettingError: it is no file or too large, or holds text where numbers belong.
    """
    hint = f"delete {path} and run the same command again"
    try:
        text = read_text(path, TABLE, hint=hint)
        how: dict[str, Any] = {"dtype": str, "keep_default_na": False} if words else {"dtype": TEXT}
        read = pd.read_csv(io.StringIO(text, newline=""), **how)
    except (FileNotFoundError, pd.errors.EmptyDataError, pd.errors.ParserError):
        return pd.DataFrame()
    except OverflowError as error:
        raise SettingError("run", str(path), "the table that nas_kd wrote", hint) from error
    return check_table(path, read, (), hint)


def document(path: Path) -> Any:
    """Read a JSON file; None if it is missing or damaged.

    Raises:
        SettingError: it is no file, no text or too large.
    """
    try:
        text = read_text(path, hint=f"delete {path} and run the same command again")
    except FileNotFoundError:
        return None
    try:
        return parsed(text)
    except ValueError:
        return None


def mapping(path: Path) -> dict[str, Any]:
    """Read a JSON file like `document`; empty where it holds no mapping."""
    read = document(path)
    return read if isinstance(read, dict) else {}


def settings(run: str | Path | Run) -> dict[str, Any]:
    """Return the run's config.yaml as nested dictionaries; empty without one."""
    path = folder_of(run) / "config.yaml"
    return deepcopy(_parsed(read_text(path, LARGEST))) if path.exists() else {}


@lru_cache(maxsize=8)  # a report asks for the settings dozens of times
def _parsed(text: str) -> dict[str, Any]:
    import yaml

    try:
        read = yaml.load(text, Loader)
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError):
        return {}
    return read if isinstance(read, dict) else {}


def section(run: str | Path | Run, name: str) -> dict[str, Any]:
    """Return a section of the run's config.yaml, such as ``retrain``; empty without one."""
    read = settings(run).get(name)
    return read if isinstance(read, dict) else {}


def metrics(run: str | Path | Run) -> pd.DataFrame:
    """Return every training's metrics.csv in one frame.

    Args:
        run: run folder.

    Returns:
        One row per epoch, with ``stage`` (the folder of the training in the run) as first column.
    """
    root = folder_of(run)
    parts = []
    for path in sorted(root.rglob("metrics.csv")):
        rows = table(path)
        if len(rows):
            rows.insert(0, "stage", path.parent.relative_to(root).as_posix())
            parts.append(rows)
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=["stage", "epoch"])


def searches(run: str | Path | Run) -> list[str]:
    """Return the folders of the run's searches, one per budget, the first budget first."""
    root = folder_of(run)
    found = [root / "search", *sorted((root / "search").glob("*"))]
    names = ("best.json", "trials.csv", "front.csv")
    return [f.relative_to(root).as_posix() for f in found if any((f / name).exists() for name in names)]


def trials(run: str | Path | Run, search: str = "search") -> pd.DataFrame:
    """Return the trials of a search.

    Args:
        run: run folder.
        search: the search's folder in the run.

    Returns:
        One row per proposal or control: number, kind, key, score (sum of stage scores, lower is better),
        kl, the run's measure (accuracy, map, mae ...), macs, params, feasible ...
    """
    return table(folder_of(run) / search / "trials.csv")


def front(run: str | Path | Run, search: str = "search") -> pd.DataFrame:
    """Return the exact front of the stage scores.

    Args:
        run: run folder.
        search: the search's folder in the run.

    Returns:
        macs, score, params and row_1 ... row_S, with ascending macs and descending scores.
    """
    return table(folder_of(run) / search / "front.csv")


def results(run: str | Path | Run) -> pd.DataFrame:
    """Return the retrained students.

    Args:
        run: run folder.

    Returns:
        One row per role and seed: role, key, seed, macs, params, the measures of both splits (select_accuracy,
        test_accuracy ...), test_agreement (0 to 1), folder.
    """
    return table(folder_of(run) / "retrain" / "results.csv")


def best(run: str | Path | Run, search: str = "search") -> dict[str, Any]:
    """Return best.json of a search; empty before it is done."""
    return mapping(folder_of(run) / search / "best.json")


def engine(run: str | Path | Run, search: str = "search") -> str:
    """Return the engine of a search: one of `GUIDED` (with a teacher), or one that only uses the supernet."""
    return str(best(run, search).get("engine") or section(run, "search").get("engine") or "exact")


def guided(run: str | Path | Run, search: str = "search") -> bool:
    """Return whether the teacher's ratings guided a search."""
    return is_guided(engine(run, search))


def inputs(run: str | Path | Run, stage: str) -> dict[str, Any]:
    """Return the inputs of a stage, by its folder in the run; empty before it is started."""
    known = mapping(folder_of(run) / stage / "stage.json").get("inputs")
    return known if isinstance(known, dict) else {}


def stage_error(run: str | Path | Run) -> str | None:
    """Return the name of the error by which stages were rated; None if not recorded."""
    root = folder_of(run)
    jobs = sorted(path for path in root.glob("blockwise/stage_*") if path.is_dir())
    folders = ["blockwise", *(path.relative_to(root).as_posix() for path in jobs)]
    rated = [known for known in (inputs(root, folder) for folder in folders) if known]
    names = {
        str(known.get("derive.score") or known.get("blockwise.error", "nmse")) for known in rated
    }  # older runs had only nmse and did not record it
    return names.pop() if len(names) == 1 else None


def is_derived(run: str | Path | Run) -> bool:
    """Return whether the space of the run is its teacher."""
    given = settings(run)
    return "space" in given and given["space"] is None


def has_teacher(run: str | Path | Run) -> bool:
    """Return whether the run has a teacher; True without a configuration."""
    teacher = settings(run).get("teacher")
    return not isinstance(teacher, dict) or teacher.get("model", "") is not None
