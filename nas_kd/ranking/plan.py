"""The plan of a ranking, written before anything is trained and checked by every later call."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from nas_kd.errors import SettingError
from nas_kd.ranking.config import GROWS, RankConfig
from nas_kd.ranking.sample import Sizes
from nas_kd.runs.files import atomic_json, atomic_write, plain, read_frame, read_json
from nas_kd.runs.format import check_format, made_with
from nas_kd.runs.lock import held

HOW_MANY = tuple(f"rank.{name}" for name in GROWS)
GROWN = "grown"  # in a plan: the sizes of the samples before


def keep_plan(folder: Path, facts: Mapping[str, Any], archs: pd.DataFrame, create: bool = True) -> pd.DataFrame:
    """Write the plan and the list of archs, or check that existing ones are the same or fewer; return the archs.

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
        kept = read_frame(table)
        keys = list(kept.get("key", []))
        if changed and set(changed) <= {*HOW_MANY, GROWN} and keys == list(archs["key"].head(len(keys))):
            atomic_write(table, archs.to_csv(index=False))
            atomic_json(plan, given | {"made_with": made_with()})
            return archs
        if changed:
            was = ", ".join(f"{name}={old.get(name)!r}" for name in changed)
            now = ", ".join(f"{name}={given.get(name)!r}" for name in changed)
            hint = f"use the earlier settings or another --run, or delete {folder} with its ground truth"
            raise SettingError("rank", now, f"what {plan} was started with: {was}", hint)
        if keys != list(archs["key"]):
            expected = "the archs of this plan"
            raise SettingError(
                "rank", str(table), expected, f"restore the file, or delete {folder} with its ground truth"
            )
        return archs


def earlier_sizes(folder: Path, config: RankConfig) -> list[Sizes]:
    """Return the sizes of the samples that a ranking had before it has that of the settings.

    Raises:
        SettingError: it has more than the settings ask for.
    """
    path = folder / "plan.json"
    if not path.exists() or config.archs is not None:
        return []
    old = read_json(path, delete=path)
    given = {f"rank.{name}": getattr(config, name) for name in ("in_band", "overall")}
    for name, number in given.items():
        if number < old.get(name, number):
            expected = f"at least {old[name]}, as {folder} has"
            raise SettingError(name, number, expected, f"use {name}={old[name]} or more, or another --run")
    before = [tuple(sizes) for sizes in old.get(GROWN, [])]
    last = (old.get("rank.in_band"), old.get("rank.overall"))
    return before if last in (tuple(given.values()), (None, None)) else [*before, last]


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
