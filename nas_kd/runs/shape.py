"""The shape of a run's files, checked where they are read: they may be cut, edited, or from somebody else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas_kd.errors import SettingError

if TYPE_CHECKING:
    import pandas as pd

# what entries of JSON files are, in whichever file
KINDS: Mapping[str, tuple[type, ...]] = {
    "inputs": (dict,),
    "facts": (dict,),
    "done": (bool, int),
    "arch": (dict,),
    "budget": (dict,),
    "engine": (str,),
    "last": (dict,),
    "stage": (str,),
    "total": (int,),
    "unit": (str,),
    "weights": (list,),
    "kl": (int, float, type(None)),
    "key": (str, dict),
    "arrays": (list,),
    "images": (int,),
    "views": (int,),
}
# columns that hold numbers in whichever table
NUMBERS = frozenset(
    ("number", "seed", "seeds", "epoch", "macs", "params", "score", "kl", "accuracy", "agreement", "loss", "lr")
    + ("in_width", "out_width", "images", "rows", "seconds", "cpu_seconds", "latency_ms", "select_accuracy")
    + ("test_accuracy", "test_agreement", "select_agreement", "tuned_kl", "answer", "recall", "precision")
    + ("tuned_accuracy", "p_tg")
    + ("score_min", "score_median", "score_max", "tau_half_full", "tau_score_macs", "minus_found", "standard_error")
)
# raised where content of another shape is used
SHAPE_ERRORS = (
    KeyError,
    TypeError,
    ValueError,
    AttributeError,
    IndexError,
    ArithmeticError,
    RecursionError,
)


@contextmanager
def as_written(path: Path, hint: str) -> Iterator[None]:
    """Replace what is raised where a file's content is used, and is of another shape, by one message with the file.

    Args:
        path: the file or folder.
        hint: how to mend it.

    Raises:
        SettingError: naming the file and what it lacks.
    """
    try:
        yield
    except (SettingError, FloatingPointError):
        raise
    except SHAPE_ERRORS as error:
        expected = f"what nas_kd writes there ({type(error).__name__}: {str(error)[:200]})"
        raise SettingError("run", str(path), expected, hint) from error


def check_document(path: Path, value: Any, keys: Sequence[str], hint: str) -> dict[str, Any]:
    """Check that what a JSON file holds is a mapping with certain entries, each of its kind.

    Raises:
        SettingError: it is not.
    """
    if not isinstance(value, dict) or not value.keys() >= set(keys):
        more = f", with {', '.join(keys)}" if keys else ""
        expected = f"the JSON that nas_kd wrote{more}"
        raise SettingError("run", str(path), expected, hint)
    for key in keys:
        if not isinstance(value[key], KINDS.get(key, object)):
            words = " or ".join(kind.__name__ for kind in KINDS[key])
            expected = f"the JSON that nas_kd wrote, where {key} is of type {words}; it is {value[key]!r:.60}"
            raise SettingError("run", str(path), expected, hint)
    return value


def check_table(path: Path, table: pd.DataFrame, needs: Sequence[str], hint: str) -> pd.DataFrame:
    """Check that a table that is not empty has certain columns, and numbers where they belong.

    Raises:
        SettingError: it does not.
    """
    missing = [name for name in needs if name not in table]
    if missing and len(table.columns):
        raise SettingError("run", str(path), f"the table that nas_kd wrote, with the column {', '.join(missing)}", hint)
    names = {"score"} if "needs" in table or "role" in table else set()  # a ranking's scores have names
    for name in NUMBERS.intersection(map(str, table.columns)) - names:
        if table[name].dtype.kind not in "iufb":
            text = next((cell for cell in table[name].dropna() if isinstance(cell, str)), None)
            if text is not None:
                expected = f"the table that nas_kd wrote, with numbers in the column {name}; it holds {text!r:.60}"
                raise SettingError("run", str(path), expected, hint)
    return table
