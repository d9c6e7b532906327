"""The final choice of a search: short distilled trainings of the best few and size controls, by successive halving."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pandas as pd

from nas_kd.config.measures import measure_named
from nas_kd.distill import Method
from nas_kd.errors import SettingError
from nas_kd.runs.files import read_json
from nas_kd.runs.progress import Progress
from nas_kd.runs.run import Run
from nas_kd.runtime.seeds import seed_for
from nas_kd.searcher.budget import Budget
from nas_kd.searcher.infeasible import no_feasible_arch
from nas_kd.searcher.trials import evaluated, scores_of
from nas_kd.solve import best
from nas_kd.solve.limits import Bounds
from nas_kd.space import Arch
from nas_kd.space.rows import arch_of_rows, cost_rows
from nas_kd.train.config import NEW_LR
from nas_kd.train.many import Retraining, TrainingSetup, train_many
from nas_kd.train.retrain import checked_method

DRAWS = 20_000
WARM_LR = 0.4  # of the peak learning rate for new weights: the supernet's need less
HALVINGS = 10  # of the range of MACs in which the largest arch within a latency is found: to a thousandth
GAP = 1e-4  # a size control within 0.01 % of the largest possible size is large enough


def controls(budget: Budget, seed: int) -> dict[str, Arch]:
    """Return the archs that a search must beat: the largest within the budget, a random one, and simple ones.

    Args:
        budget: with a maximum latency the largest archs are those of the most MACs within it, found by bisection,
            since latency mostly grows with MACs; where none is found, they are the largest within the other bounds.
        seed: seed of the random arch.

    Returns:
        ``largest_macs``, ``largest_params`` and ``random`` archs, and the space's own `ElasticSpace.simple_archs`.
    """
    found = {}
    space = budget.space
    if budget.listed:
        return _listed_controls(budget, seed)
    for name in ("macs", "params"):
        free = not budget.limits and budget.max_latency_ms is None
        found[f"largest_{name}"] = space.largest() if free else _largest(budget, name)
    drawn = (space.sample(seed_for(seed, "random control", draw)) for draw in range(DRAWS))
    rare = found["largest_macs"] if budget.lower else space.smallest()  # where hardly any arch is within the budget
    found["random"] = next((arch for arch in drawn if budget.fits(arch)), rare)
    simple = space.simple_archs(budget.affords, budget.cost)
    return found | {role: arch for role, arch in simple.items() if budget.fits(arch)}


def _listed_controls(budget: Budget, seed: int) -> dict[str, Arch]:
    """Return the largest and a random one of the archs that a latency table lists."""
    within = [arch for arch in budget.listed if budget.fits(arch)]
    if not within:
        raise no_feasible_arch(budget)
    found = {f"largest_{n}": max(within, key=lambda arch: getattr(budget.cost_of(arch), n)) for n in ("macs", "params")}
    return found | {"random": within[seed_for(seed, "random control", 0) % len(within)]}


def _largest(budget: Budget, name: str) -> Arch:
    """Return the arch with the highest cost within the budget."""
    most = _largest_within(budget, name, budget.limits)
    assert most is not None  # the smallest arch is within the upper bounds, or the budget would have raised
    if budget.max_latency_ms is None or budget.fits(most):
        return most
    found = None
    min_macs = budget.lower.get("macs")
    low = float(min_macs or 0.0)
    high = float(budget.cost_of(most).macs)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        arch = _largest_within(budget, name, budget.limits | {"macs": (min_macs, middle)})
        if arch is not None and not budget.fits(arch):
            high = middle
        else:
            low = middle
            found = arch or found
    return found or most


def _largest_within(budget: Budget, name: str, limits: Bounds) -> Arch | None:
    """Return the arch with the highest cost within limits; among equals, the one of the smallest input."""
    space = budget.space
    most = None
    for size in space.resolutions or (None,):
        shape = dict(budget.cost) if size is None else {**budget.cost, "resolution": size}
        tables = budget.timed(cost_rows(space, **shape), size or budget.cost.get("resolution"))
        try:
            chain = best(tables, bounds={**budget.sums, **limits}, objective=name, maximise=True, gap=GAP)
        except SettingError:  # no arch of this input size is within the limits
            continue
        labels = [chain[f"row_{stage}"] for stage in range(1, len(tables) + 1)]
        arch = arch_of_rows(space, tables, labels, size)
        if most is None or getattr(budget.cost_of(arch), name) > getattr(budget.cost_of(most), name):
            most = arch
    return most


def choose_finalists(
    rows: pd.DataFrame,
    top: int,
    guided: bool = True,
    better: pd.DataFrame | None = None,
    metric: str = "accuracy",
) -> pd.DataFrame:
    """Choose the archs of the short training.

    Args:
        rows: the trials, with the columns kind, key, kl, the metric's, loss, macs and score.
        top: archs besides the controls. After a guided search those of lowest KL, of the tuned ones where there are
            some, then the best by the stage score and by the metric, because no single proxy is reliable enough;
            after others those that are best by the metric.
        guided: whether the search used the teacher's ratings.
        better: ``key`` and ``tuned_kl`` of the tuned ones.
        metric: the name of the task's measure.

    Returns:
        One row per arch, with its ``role``: tuned, kl, score, the metric's name or a control's.
    """
    first = "kl" if better is None else "tuned"
    if better is not None:
        rows = rows.merge(better, on="key", how="left")
    scored = evaluated(rows).drop_duplicates("key")
    orders = {
        "score": scored.sort_values("score", kind="stable"),
        metric: ranked(scored, "kl" if guided else "loss", metric),
        first: scored.sort_values([name for name in ("tuned_kl", "kl") if name in scored], kind="stable"),
    }
    chosen: list[pd.Series] = []
    roles = [first] * max(1, top - 2) + ["score", metric] if top >= 3 else [first, "score"]
    for role in roles[:top] if guided else [metric] * top:
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
    columns = [
        "role",
        "key",
        "label",
        "macs",
        "params",
        *scores_of(metric),
        *(["tuned_kl"] if better is not None else []),
    ]
    return pd.DataFrame(chosen)[columns].reset_index(drop=True)


def ranked(rows: pd.DataFrame, second: str, metric: str = "accuracy") -> pd.DataFrame:
    """Sort by a metric, the best first; ties by a second score, then by MACs, both ascending."""
    lower = measure_named(metric).lower
    return rows.sort_values([metric, second, "macs"], ascending=[lower, True, True], kind="stable")


def lengths(epochs: int, rounds: int) -> list[int]:
    """Return the epochs of each round: half of the next round's, rounded up; rounds of equal length are merged.

    Args:
        epochs: epochs of the last round.
        rounds: maximum number of rounds.
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
    """Train the finalists briefly with the same settings, then the better half of them for longer, and so on.

    Every training starts from the supernet's weights: the accuracy after three epochs of ``kd`` from them predicted
    that of a long training better than three epochs from new weights did (experiments/rank/last_word.py). Every
    round starts there again, so that each training has a complete cosine schedule.

    Args:
        chosen: the finalists.
        archs: every arch by key.
        setup: teacher, data, run and the supernet that they start from.
        epochs: epochs of each training of the last round.
        rounds: see `lengths`; 1 trains all finalists for ``epochs``.
        folder: the search's folder in the run.
        training: further arguments of ``retrain``; the learning rate is that of a whole retraining, and lowered here
            where that starts from new weights.

    Returns:
        ``chosen`` with columns of the select split, in which METRIC is the name of the task's measure: first_METRIC of
        the first round, and select_METRIC and select_agreement of the last round that an arch was in; short_epochs is
        that round's length.

    Source: successive halving (Jamieson & Talwalkar 2016).
    """
    if (training.get("mixup") or training.get("cutmix")) and setup.teacher is not None:
        setup = replace(setup, teacher=setup.teacher.live())  # mixed images are not cached
    recipe = checked_method(method, setup.task, setup.data.num_classes, training.get("method_settings")).recipe
    setup.prefill_teacher(epochs if recipe.needs_teacher else 0)
    found = chosen.set_index("key", drop=False)
    keys = list(dict.fromkeys(chosen["key"]))
    metric = setup.task.measure
    own = f"select_{metric}"
    plan = lengths(epochs, rounds)
    lr_factor = 1.0 if setup.supernet is not None and setup.space.pretrained else WARM_LR
    left = [len(keys)]
    for _ in plan[1:]:
        left.append(math.ceil(left[-1] / 2))
    with Progress("short trainings", sum(left), unit="students", run=setup.run) as progress:
        for number, length in enumerate(plan):
            settings = {"method": method, "epochs": length, "test": False} | _shortened(
                training, length / epochs, lr_factor
            )
            trainings = [
                Retraining(
                    setup, archs[key], seed, _folder(setup.run, f"{folder}/short/{key}", number, length), settings
                )
                for key in keys
            ]
            metrics = train_many(trainings, progress, workers=setup.processes(workers))
            for key, values in zip(keys, metrics, strict=True):
                found.loc[key, own] = values[own]
                found.loc[key, "select_agreement"] = values.get("select_agreement", math.nan)
                found.loc[key, "short_epochs"] = length
            if number == 0:
                found[f"first_{metric}"] = found[own]
            if number + 1 < len(plan):
                keys = best_trained(found.loc[keys], metric)["key"].tolist()[: left[number + 1]]
    return found.astype({"short_epochs": int}).reset_index(drop=True)


def _folder(run: Run | None, plain: str, number: int, length: int) -> str:
    """Return where the training of a round is kept: by its epochs, but for the first round when it was made."""
    record = None if run is None else run.path / plain / "stage.json"
    if record is not None and record.exists():
        made = read_json(record, ("inputs",))["inputs"].get("retrain.epochs")
        return plain if made == length else f"{plain}_{length}"
    return f"{plain}_{length}" if number else plain


def best_trained(rows: pd.DataFrame, metric: str = "accuracy") -> pd.DataFrame:
    """Sort finalists by length of training, then by a metric, then by agreement with the teacher, the best first."""
    names = ["short_epochs", f"select_{metric}", "select_agreement"]
    return rows.sort_values(names, ascending=[False, measure_named(metric).lower, False], kind="stable")


def _shortened(training: Mapping[str, Any], share: float, lr_factor: float) -> dict[str, Any]:
    """Scale the epochs in the arguments of a training to a shorter one, and its learning rate."""
    short = dict(training)
    short["lr"] = lr_factor * short.get("lr", NEW_LR)
    if share < 1:
        short["warmup_epochs"] = share * short.get("warmup_epochs", 1.0)  # the default of `retrain`
    if short.get("milestones"):
        short["milestones"] = [epoch * share for epoch in short["milestones"]]
    return short
