"""What a ranking sets out to do, written down before anything is trained, and kept to."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from nas_kd.errors import SettingError
from nas_kd.runs.files import atomic_json, atomic_write, plain, read_frame, read_json
from nas_kd.runs.format import check_format, made_with
from nas_kd.runs.lock import held


def keep_plan(folder: Path, facts: Mapping[str, Any], archs: pd.DataFrame, begins: bool = True) -> pd.DataFrame:
    """Write the plan and the list of archs, or check that those that are there are the same.

    Args:
        folder: ``rank`` in the run.
        facts: everything that decides the ground truth, and the one score and the one control named in advance.
        archs: the sample.
        begins: write a plan where there is none; who helps a ranking does not begin one.

    Returns:
        The list of archs.

    Raises:
        SettingError: the folder was begun with another space, teacher, data set, training, sample, score or
            control.
    """
    if not begins:
        check_planned(folder)
    given = plain(facts)
    with held(folder / "claims" / "plan.lock", wait=True):
        plan = folder / "plan.json"
        table = folder / "archs.csv"
        if not plan.exists():
            atomic_write(table, archs.to_csv(index=False))
            atomic_json(plan, given | {"made_with": made_with()})
            return archs
        old = read_json(plan, delete=plan)
        check_format(old, plan)
        del old["made_with"]
        changed = [name for name in {**old, **given} if old.get(name) != given.get(name)]
        if changed:
            was = ", ".join(f"{name}={old.get(name)!r}" for name in changed)
            now = ", ".join(f"{name}={given.get(name)!r}" for name in changed)
            hint = f"give the settings of then, or another --run; or delete {folder} and its truth"
            raise SettingError("rank", now, f"what {plan} was begun with: {was}", hint)
        kept = read_frame(table)
        if list(kept.get("key", [])) != list(archs["key"]):
            expected = "the archs that this plan draws"
            raise SettingError("rank", str(table), expected, f"put the file back, or delete {folder} and its truth")
        return archs


def check_planned(folder: Path) -> None:
    """Refuse to help a ranking that has not begun.

    Args:
        folder: ``rank`` in the run.

    Raises:
        SettingError: there is no plan in it.
    """
    if not (folder / "plan.json").exists():
        expected = "a run whose ranking has begun"
        hint = "start the same command without --worker first, and wait until it trains"
        raise SettingError("run", str(folder), expected, hint)
