"""Whom the found student is compared with."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from nas_kd.pipeline.students import choose_students
from nas_kd.searcher.budget import Budget
from nas_kd.space import Arch, ElasticSpace


def pipeline(space: ElasticSpace, cost: dict[str, int], tables: list[pd.DataFrame], found: Arch, **retrain: Any) -> Any:
    settings = SimpleNamespace(**{"random_students": 3, "band": 0.1} | retrain)
    caps = {"macs": int(space.cost(space.largest(), **cost).macs * 0.6)}
    said: list[str] = []
    return SimpleNamespace(
        config=SimpleNamespace(retrain=settings, seed=0, engine="exact", init="scratch"),
        space=space,
        cost=cost,
        caps=caps,
        tables=tables,
        budget=Budget(space, cost, caps),
        result=SimpleNamespace(best=found),
        said=said,
        scorer=lambda arch: {"kl": 1.0, "accuracy": 0.5, "agreement": 0.5},
        run=SimpleNamespace(log_message=said.append),
    )


@pytest.mark.parametrize(("seed", "band", "wanted"), [(0, 0.1, 3), (5, 0.1, 5), (7, 0.3, 1), (9, 0.1, 0)])
def test_random_students_have_the_found_ones_size(
    seed: int, band: float, wanted: int, space: ElasticSpace, cost: dict[str, int], tables: list[pd.DataFrame]
) -> None:
    cap = space.cost(space.largest(), **cost).macs * 0.6
    found = next(a for a in map(space.sample, range(seed, 99)) if space.cost(a, **cost).macs < cap)
    chosen = choose_students(pipeline(space, cost, tables, found, random_students=wanted, band=band))
    frame = pd.DataFrame([{"role": s.role, "key": s.key} | s.cost._asdict() for s in chosen])
    names = ["found", *(f"random_{n}" for n in range(1, wanted + 1)), "largest_macs", "largest_params"]
    assert frame["role"].tolist() == names
    drawn = frame[frame["role"].str.startswith("random_")]
    macs = space.cost(found, **cost).macs
    assert ((drawn["macs"] - macs).abs() <= band * macs).all() and (frame["macs"] <= cap).all()
    assert drawn["key"].is_unique and found.key not in set(drawn["key"])
    assert all(student.cost == space.cost(student.arch, **cost) for student in chosen)


def test_they_depend_on_the_found_size_and_nothing_else(
    space: ElasticSpace, cost: dict[str, int], tables: list[pd.DataFrame]
) -> None:
    cap = space.cost(space.largest(), **cost).macs * 0.6
    found = next(a for a in map(space.sample, range(99)) if space.cost(a, **cost).macs < cap)
    one = choose_students(pipeline(space, cost, tables, found))
    worse = [table.assign(score=-table["score"]) for table in tables]
    other = choose_students(pipeline(space, cost, worse, found))
    assert [student.key for student in one] == [student.key for student in other]


def test_a_band_with_too_few_archs_says_so(
    space: ElasticSpace, cost: dict[str, int], tables: list[pd.DataFrame], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nas_kd.pipeline.students.DRAWS", 300)
    lonely = pipeline(space, cost, tables, space.smallest(), band=1e-9)
    assert not any(student.role.startswith("random_") for student in choose_students(lonely))
    assert len(lonely.said) == 1 and "0 of 3 random students" in lonely.said[0]
