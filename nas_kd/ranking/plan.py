"""The plan of a ranking, written before anything is trained and checked by every later call."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from nas_kd.errors import SettingError
from nas_kd.runs.files import atomic_json, atomic_write, plain, read_frame, read_json
from nas_kd.runs.format import check_format, made_with
from nas_kd.runs.lock import held


def keep_plan(folder: Path, facts: Mapping[str, Any], archs: pd.DataFrame, create: bool = True) -> pd.DataFrame:
    """Write the plan and the list of archs, or check that existing ones are the same; return the archs.

    Args:
        folder: ``rank`` in the run.
        facts: everything that determines the ground truth, and the primary score and control.
        archs: the sample.
        create: write a plan if there is none; further workers of a ranking do not.

    Raises:
        SettingError: the folder was started with another space, teacher, data set, training, sample, score or
            control.
    """
    if not create:
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
            hint = f"use the earlier settings or another --run, or delete {folder} with its ground truth"
            raise SettingError("rank", now, f"what {plan} was started with: {was}", hint)
        kept = read_frame(table)
        if list(kept.get("key", [])) != list(archs["key"]):
            expected = "the archs of this plan"
            raise SettingError(
                "rank", str(table), expected, f"restore the file, or delete {folder} with its ground truth"
            )
        return archs


def check_planned(folder: Path) -> None:
    """Check that the ranking to help has been started.

    Args:
        folder: ``rank`` in the run.

    Raises:
        SettingError: there is no plan in it.
    """
    if not (folder / "plan.json").exists():
        expected = "a run whose ranking was started"
        hint = "first run the same command without --worker, and wait until it trains"
        raise SettingError("run", str(folder), expected, hint)
