"""Scores of whole subnets: Optuna's proposals among the pruned candidates, then the size controls."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd

from nas_kd.run import Stage
from nas_kd.runtime import Progress
from nas_kd.solve import exact_front, refine
from nas_kd.solve.shortlist import shortlists
from nas_kd.space import Arch, ElasticSpace
from nas_kd.verbs.budget import Budget

EVALUATED = ("warm", "trial", "random")  # kinds of rows that count as a distinct evaluation
WARM = 24  # points of the exact front that are evaluated first


def score_subnets(
    tables: Sequence[pd.DataFrame], exact: pd.DataFrame, budget: Budget,
    scorer: Callable[[Arch], dict[str, float]], extra: Mapping[str, Arch], *, trials: int, sampler: str,
    seed: int, stage: Stage | None,
) -> tuple[pd.DataFrame, dict[str, Arch]]:  # fmt: skip
    """Refine the exact front with scores of whole subnets.

    Args:
        tables: rating tables with the columns of `exact_front` and ``candidate``.
        exact: their exact front.
        budget: the budget; only archs that keep it are scored.
        scorer: ``kl``, ``accuracy`` and ``agreement`` of an arch.
        extra: archs by role to score as well, the size controls.
        trials: distinct subnets to score besides ``extra``.
        sampler: Optuna's sampler by name.
        seed: seed of the proposals.
        stage: where trials.csv and study.journal go; its rows are taken up again.

    Returns:
        One row a proposal and control, and every scored arch by its key.
    """
    space, caps = budget.space, budget.caps
    lists = shortlists(tables, ("macs", "params") if "params" in caps else ("macs",))
    choices = [description.candidates() for description in space.stages]
    additive = additive_score(space, tables)
    indices = [f"i_{s + 1}" for s in range(len(lists))]
    columns = [
        "number", "kind", "role", "key", "label", "score", "kl", "accuracy", "agreement", "macs", "params",
        "feasible", *indices,
    ]  # fmt: skip

    def arch_of(point: Sequence[int]) -> Arch:
        return Arch(space.hash, tuple(choices[s][lists[s][i]] for s, i in enumerate(point)))

    def facts(arch: Arch) -> dict[str, Any]:
        total = space.cost(arch, **budget.cost)
        named = {"key": arch.key, "label": arch.label, "macs": total.macs, "params": total.params}
        return named | {"score": additive(arch)}

    log = stage.log("trials.csv") if stage is not None else None
    earlier: list[dict[str, Any]] = [] if log is None else log.frame().to_dict("records")  # type: ignore[assignment]
    proposals = [row for row in earlier if row["kind"] != "control"]
    rows: list[dict[str, Any]] = list(earlier)
    archs = {row["key"]: arch_of([int(row[i]) for i in indices]) for row in proposals if row["kind"] in EVALUATED}
    run = stage.run if stage is not None else None
    with Progress("search", trials, done=len(archs), unit="subnets", run=run) as progress:

        def record(row: Mapping[str, Any]) -> None:
            known = dict(row)
            if row["kind"] != "control":
                arch = arch_of([int(row[i]) for i in indices])
                known |= facts(arch)
                if row["kind"] in EVALUATED:
                    archs[arch.key] = arch
                    progress.advance(kl=row["kl"], accuracy=row["accuracy"])
            rows.append({column: known.get(column) for column in columns})
            if log is not None:
                log.append(rows[-1])

        refine(
            [len(names) for names in lists], lambda point: scorer(arch_of(point)),
            constraints=lambda point: budget.violations(arch_of(point)),
            objective="kl", warm=_warm(exact, tables, lists, caps), trials=trials, seed=seed, sampler=sampler,
            done=proposals, record=record, journal=None if stage is None else stage.folder / "study.journal",
            study_name=f"{space.name}-{space.hash}-{seed}",
        )  # fmt: skip
        scored = {row["role"] for row in earlier if row["kind"] == "control"}
        for role, arch in extra.items():
            archs.setdefault(arch.key, arch)
            if role not in scored:
                row = {"number": len(rows), "kind": "control", "role": role, "feasible": budget.fits(arch)}
                record(row | facts(arch) | scorer(arch))
    return pd.DataFrame(rows, columns=columns), archs


def additive_score(space: ElasticSpace, tables: Sequence[pd.DataFrame]) -> Callable[[Arch], float]:
    """Return a function that adds up the stage scores of an arch; NaN where a stage was not rated.

    Args:
        space: the space.
        tables: one rating table a stage.

    Returns:
        From an arch to its score, lower is better.
    """
    scores = []
    for table in tables:
        keys = zip(table["in_width"].astype(int), table["candidate"].astype(int), strict=True)
        scores.append(dict(zip(keys, table["score"].astype(float), strict=True)))

    def additive(arch: Arch) -> float:
        widths = [space.stem.width_of(arch.stem), *(candidate.width for candidate in arch.stages[:-1])]
        codes = space.encode([arch])[0]
        return sum(scores[s].get((w, int(codes[s])), math.nan) for s, w in enumerate(widths))

    return additive


def _warm(
    exact: pd.DataFrame, tables: Sequence[pd.DataFrame], lists: Sequence[Sequence[int]], caps: Mapping[str, int]
) -> list[tuple[int, ...]]:
    """Return the best-scored points of the exact front within the budget, best first, as indices."""
    # a front in macs alone misses chains that the cap on params makes best
    within = exact_front(tables, caps=caps) if "params" in caps else exact[exact["macs"] <= caps.get("macs", math.inf)]
    points = []
    for _, row in within.sort_values("score").head(WARM).iterrows():
        picks = [int(table.loc[row[f"row_{s + 1}"], "candidate"]) for s, table in enumerate(tables)]
        if all(pick in names for pick, names in zip(picks, lists, strict=True)):
            points.append(tuple(names.index(pick) for pick, names in zip(picks, lists, strict=True)))
    return points
