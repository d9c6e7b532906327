"""The last word of a search: short distilled trainings of the best few, size controls among them, halved by rounds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pandas as pd

from nas_kd.distill import Method
from nas_kd.errors import SettingError
from nas_kd.runs.progress import Progress
from nas_kd.runtime.seeds import seed_for
from nas_kd.searcher.budget import Budget
from nas_kd.searcher.trials import SCORES, evaluated
from nas_kd.solve import best
from nas_kd.solve.limits import Bounds
from nas_kd.space import Arch
from nas_kd.space.rows import arch_of_rows, cost_rows
from nas_kd.train.config import NEW_LR
from nas_kd.train.many import Retraining, TrainingSetup, train_many
from nas_kd.train.retrain import checked_method

DRAWS = 20_000
WARM_RATE = 0.4  # of the peak learning rate that suits new weights: the supernet's have less far to go
HALVINGS = 10  # of the MACs between which the largest arch of a latency is sought: to a thousandth
GAP = 1e-4  # a size control within 0.01 % of the largest possible size is large enough


def controls(budget: Budget, seed: int) -> dict[str, Arch]:
    """Return the archs that a search must beat: the largest within the budget, a random one, and simple ones.

    Args:
        budget: the budget. Under a cap on latency the largest archs are those of the most MACs that keep it, found by
            halving, since latency mostly grows with MACs; where none is found, they keep the counted caps.
        seed: seed of the random arch.

    Returns:
        ``largest_macs``, ``largest_params`` and ``random`` archs, and the space's own `ElasticSpace.simple_archs`.
    """
    found = {}
    space = budget.space
    for name in ("macs", "params"):
        free = not budget.limits and budget.max_latency_ms is None
        found[f"largest_{name}"] = space.largest() if free else _largest(budget, name)
    drawn = (space.sample(seed_for(seed, "random control", draw)) for draw in range(DRAWS))
    rare = found["largest_macs"] if budget.floors else space.smallest()  # where hardly an arch keeps the budget
    found["random"] = next((arch for arch in drawn if budget.fits(arch)), rare)
    simple = space.simple_archs(budget.affords, budget.cost)
    return found | {role: arch for role, arch in simple.items() if budget.fits(arch)}


def _largest(budget: Budget, name: str) -> Arch:
    """Return the arch with most of a cost within the budget."""
    most = _counted(budget, name, budget.limits)
    assert most is not None  # the smallest arch keeps the caps, or the budget would have been refused
    if budget.max_latency_ms is None or budget.fits(most):
        return most
    kept = None
    floor = budget.floors.get("macs")
    low = float(floor or 0.0)
    high = float(budget.cost_of(most).macs)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        arch = _counted(budget, name, budget.limits | {"macs": (floor, middle)})
        if arch is not None and not budget.fits(arch):
            high = middle
        else:
            low = middle
            kept = arch or kept
    return kept or most


def _counted(budget: Budget, name: str, limits: Bounds) -> Arch | None:
    """Return the arch with most of a cost within limits; at equal most, the one of the smallest input."""
    space = budget.space
    most = None
    for size in space.resolutions or (None,):
        shape = dict(budget.cost) if size is None else {**budget.cost, "resolution": size}
        tables = cost_rows(space, **shape)
        try:
            chain = best(tables, bounds=limits, objective=name, maximise=True, gap=GAP)
        except SettingError:  # nothing of this input size is within the caps
            continue
        labels = [chain[f"row_{stage}"] for stage in range(1, len(tables) + 1)]
        arch = arch_of_rows(space, tables, labels, size)
        if most is None or getattr(budget.cost_of(arch), name) > getattr(budget.cost_of(most), name):
            most = arch
    return most


def entrants(rows: pd.DataFrame, top: int, guided: bool = True, better: pd.DataFrame | None = None) -> pd.DataFrame:
    """Choose who enters the short training.

    Args:
        rows: the trials, with the columns kind, key, kl, accuracy, loss, macs and score.
        top: archs besides the controls. After a guided search the lowest KL, of the tuned ones where there are some,
            then the best of the stage score and of the accuracy, because no proxy alone has earned the last word;
            after others the highest accuracy.
        guided: whether the teacher's ratings guided the search.
        better: ``key`` and ``tuned_kl`` of those that were tuned.

    Returns:
        One row an arch, with its ``role``: tuned, kl, score, accuracy or a control's.
    """
    first = "kl" if better is None else "tuned"
    if better is not None:
        rows = rows.merge(better, on="key", how="left")
    scored = evaluated(rows).drop_duplicates("key")
    orders = {
        "score": scored.sort_values("score", kind="stable"),
        "accuracy": ranked(scored, "kl" if guided else "loss"),
        first: scored.sort_values([name for name in ("tuned_kl", "kl") if name in scored], kind="stable"),
    }
    chosen: list[pd.Series] = []
    wanted = [first] * max(1, top - 2) + ["score", "accuracy"] if top >= 3 else [first, "score"]
    for role in wanted[:top] if guided else ["accuracy"] * top:
        taken = {str(row["key"]) for row in chosen}
        rest = orders[role][~orders[role]["key"].isin(taken)]
        if len(rest):
            chosen.append(rest.iloc[0].copy())
            chosen[-1]["role"] = role
    taken = {str(row["key"]) for row in chosen}
    for _, row in rows[(rows["kind"] == "control") & rows["feasible"]].iterrows():
        if row["key"] not in taken:
            chosen.append(row)
            taken.add(str(row["key"]))
    wanted_columns = ["role", "key", "label", "macs", "params", *SCORES, *(["tuned_kl"] if better is not None else [])]
    return pd.DataFrame(chosen)[wanted_columns].reset_index(drop=True)


def ranked(rows: pd.DataFrame, second: str) -> pd.DataFrame:
    """Sort by falling accuracy, ties by a second score, ascending, then by MACs."""
    return rows.sort_values(["accuracy", second, "macs"], ascending=[False, True, True], kind="stable")


def lengths(epochs: int, rounds: int) -> list[int]:
    """Return the epochs of each round: half of the next round's, rounded up; equal ones are one round.

    Args:
        epochs: epochs of the last round.
        rounds: rounds at most.
    """
    halvings = min(rounds, epochs.bit_length() + 1)  # then it is one epoch
    return sorted({math.ceil(epochs / 2**before) for before in range(halvings)})


def short_training(
    chosen: pd.DataFrame,
    archs: Mapping[str, Arch],
    setup: TrainingSetup,
    *,
    epochs: int,
    rounds: int,
    method: Method,
    seed: int,
    folder: str,
    workers: int,
    training: dict[str, Any],
) -> pd.DataFrame:
    """Train the entrants shortly and alike, the better half of them again for longer, and so on.

    Every training begins with the supernet's weights: what an arch made of them in three epochs of ``kd`` foretold
    its accuracy when it is trained alone and long better than three from new ones (experiments/rank/last_word.py).
    Every round begins there again, so that each training ends with its own cosine.

    Args:
        chosen: the entrants.
        archs: every arch by key.
        setup: teacher, data, run and the supernet that they begin with.
        epochs: epochs of each training of the last round.
        rounds: rounds, see `lengths`; 1 trains all entrants for ``epochs``.
        method: distillation method.
        seed: seed of the trainings.
        folder: the search's folder in the run.
        workers: processes.
        training: further arguments of ``retrain``; the learning rate is that of a whole retraining, and lowered here
            where that begins with new weights.

    Returns:
        ``chosen`` with what the select split says, each 0 to 1: first_accuracy of the first round, and of the last
        round that an arch was in select_accuracy and select_agreement; short_epochs is that round's length.

    Source: successive halving (Jamieson & Talwalkar 2016).
    """
    if (training.get("mixup") or training.get("cutmix")) and setup.teacher is not None:
        setup = replace(setup, teacher=setup.teacher.live())  # no cache knows mixed images
    recipe = checked_method(method, setup.task, setup.data.num_classes, training.get("method_settings")).recipe
    setup.prefill_teacher(epochs if recipe.needs_teacher else 0)
    found = chosen.set_index("key", drop=False)
    keys = list(dict.fromkeys(chosen["key"]))
    plan = lengths(epochs, rounds)
    rate = 1.0 if setup.supernet is not None and setup.supernet.space.pretrained else WARM_RATE
    left = [len(keys)]
    for _ in plan[1:]:
        left.append(math.ceil(left[-1] / 2))
    with Progress("short trainings", sum(left), unit="students", run=setup.run) as progress:
        for number, length in enumerate(plan):
            settings = {"method": method, "epochs": length, "test": False} | _shortened(training, length / epochs, rate)
            end = f"_{length}" if number else ""
            trainings = [Retraining(setup, archs[key], seed, f"{folder}/short/{key}{end}", settings) for key in keys]
            metrics = train_many(trainings, progress, workers=setup.processes(workers))
            for key, mine in zip(keys, metrics, strict=True):
                found.loc[key, "select_accuracy"] = mine["select_accuracy"]
                found.loc[key, "select_agreement"] = mine.get("select_agreement", math.nan)
                found.loc[key, "short_epochs"] = length
            if number == 0:
                found["first_accuracy"] = found["select_accuracy"]
            if number + 1 < len(plan):
                keys = best_trained(found.loc[keys])["key"].tolist()[: left[number + 1]]
    return found.astype({"short_epochs": int}).reset_index(drop=True)


def best_trained(rows: pd.DataFrame) -> pd.DataFrame:
    """Sort finalists: who was trained longest first, then by accuracy, then by agreement with the teacher."""
    names = ["short_epochs", "select_accuracy", "select_agreement"]
    return rows.sort_values(names, ascending=False, kind="stable")


def _shortened(training: Mapping[str, Any], share: float, rate: float) -> dict[str, Any]:
    """Scale the epochs in the arguments of a training to a shorter one, and its learning rate."""
    short = dict(training)
    short["lr"] = rate * short.get("lr", NEW_LR)
    if share < 1:
        short["warmup_epochs"] = share * short.get("warmup_epochs", 1.0)  # as `retrain` has it
    if short.get("milestones"):
        short["milestones"] = [epoch * share for epoch in short["milestones"]]
    return short
