"""The best chains one after the other, against brute force over all chains and both engines against each other."""

from __future__ import annotations

from functools import partial
from math import ceil
from typing import Any

import numpy as np
import pandas as pd
import pytest

from nas_kd.blocks import BasicStage, ConvStem, LinearHead
from nas_kd.errors import SettingError
from nas_kd.solve import best, exact_front, k_best
from nas_kd.solve import kbest as module
from nas_kd.space import ElasticSpace, load_space, space_names
from nas_kd.space.rows import rows_of


def greedy(every: list[tuple], k: int, apart: int) -> list[tuple]:
    """Take chains from the best on, each other in so many rows than those taken."""
    taken: list[tuple] = []
    for chain in sorted(every, key=lambda chain: chain[0]):
        if all(sum(a != b for a, b in zip(chain[3], other[3], strict=True)) >= apart for other in taken):
            taken.append(chain)
        if len(taken) == k:
            break
    return taken


def picked(frame: pd.DataFrame) -> list[tuple]:
    return list(frame.filter(like="row_").itertuples(index=False, name=None))


@pytest.mark.parametrize("engine", ["chains", "milp"])
@pytest.mark.parametrize("coupled", [False, True])
@pytest.mark.parametrize("different", [0.0, 0.2, 0.5, 1.0])
def test_equals_brute_force(draw: Any, chains: Any, engine: str, coupled: bool, different: float) -> None:
    compared = 0
    for seed in range(12 if engine == "chains" else 4):
        tables = draw(seed, stages=5, rows=4, coupled=coupled, ties=False, nan=seed % 3 == 0)
        every = list(chains(tables))
        if len(every) < 10:
            continue
        low, middle, high = (float(np.quantile([c[1] for c in every], q)) for q in (0.1, 0.3, 0.6))
        ranges: list[tuple[dict[str, Any], Any]] = [
            ({}, lambda c: True),
            ({"macs": high}, lambda c, high=high: c[1] <= high),
            ({"macs": (low, middle), "params": (None, 1e6)}, lambda c, a=low, b=middle: a <= c[1] <= b),
        ]
        for caps, keeps in ranges:
            wanted = greedy([c for c in every if keeps(c)], 6, max(1, ceil(5 * different)))
            found = k_best(tables, 6, bounds=caps, different=different, engine=engine)
            assert found["score"].tolist() == [c[0] for c in wanted]
            assert picked(found) == [c[3] for c in wanted]
            assert found["macs"].tolist() == [c[1] for c in wanted]
            compared += 1
    assert compared >= 6


def test_ties_give_the_scores_of_brute_force(draw: Any, chains: Any) -> None:
    for seed in range(12):
        tables = draw(seed, stages=4, rows=5, coupled=seed % 2 == 0, ties=True)
        scores = sorted(c[0] for c in chains(tables))
        if scores:
            found = k_best(tables, 25)
            assert found["score"].tolist() == scores[:25] and len(set(picked(found))) == min(25, len(scores))


def rated(space: ElasticSpace, seed: int) -> list[pd.DataFrame]:
    """Make up scores that fall with the costs, which are the space's."""
    rng = np.random.default_rng(seed)
    tables = []
    for index in range(len(space.stages)):
        table = rows_of(space, index, resolution=8, in_chans=1, num_classes=10)
        noise = rng.lognormal(0, 0.2, len(table))
        tables.append(table.assign(score=(table["macs"] / 1e4) ** -0.5 * noise, latency_ms=rng.random(len(table))))
    return tables


def whole_space(tables: list[pd.DataFrame]) -> pd.DataFrame:
    """Join the tables of all stages into one row an arch, by pandas and in the order of the stages."""
    joined = None
    for number, table in enumerate(tables, 1):
        part = table[["score", "macs", "params", "latency_ms", "in_width", "out_width"]].assign(row=table.index)
        part = part.add_suffix(f"_{number}")
        if joined is None:
            joined = part
        else:
            joined = joined.merge(part, left_on=f"out_width_{number - 1}", right_on=f"in_width_{number}")
    assert joined is not None
    for name in ("score", "macs", "params", "latency_ms"):
        total = joined[f"{name}_1"]
        for number in range(2, len(tables) + 1):
            total = total + joined[f"{name}_{number}"]
        joined[name] = total
    return joined


SMALL = ElasticSpace(
    "small",
    ConvStem(width=4),
    tuple(BasicStage(widths=(4, 8), depths=(1, 2), mids=(2, 4), stride=s) for s in (1, 2, 1, 2)),
    LinearHead(),
    resolution=8,
)


SHIPPED = [load_space(name) for name in space_names()]
ENUMERABLE = [SMALL, *(space for space in SHIPPED if space.size <= 10**5)]


@pytest.mark.parametrize("space", ENUMERABLE, ids=lambda space: space.name)
def test_whole_spaces_of_up_to_1e5_archs(space: ElasticSpace) -> None:
    """46,656 and 20,736 archs: the front, fifty budgets of one and of three kinds, ranges, and the best chains."""
    tables = rated(space, 1)
    every = whole_space(tables)
    assert len(every) == space.size <= 10**5
    front = exact_front(tables)
    ordered = every.sort_values(["macs", "score"], kind="stable")
    steps = ordered[ordered["score"] < ordered["score"].cummin().shift(fill_value=np.inf)]
    steps = steps.drop_duplicates("macs")
    assert front["macs"].tolist() == steps["macs"].tolist() and front["score"].tolist() == steps["score"].tolist()
    rng = np.random.default_rng(0)
    for macs in rng.integers(int(every["macs"].min()), int(every["macs"].max()), 50):
        wanted = front[front["macs"] <= macs]["score"].iloc[-1]
        assert best(tables, bounds={"macs": int(macs)})["score"] == pytest.approx(wanted, abs=1e-12)
    met = 0
    for _ in range(8):
        caps = {name: float(every[name].quantile(rng.uniform(0.1, 0.9))) for name in ("macs", "params", "latency_ms")}
        caps["macs"] = (0.8 * caps["macs"], caps["macs"])  # type: ignore[assignment]
        keep = every["macs"].between(*caps["macs"])  # type: ignore[misc]
        keep &= (every["params"] <= caps["params"]) & (every["latency_ms"] <= caps["latency_ms"])
        if not keep.any():
            with pytest.raises(SettingError, match="at (least|most)"):
                best(tables, bounds=caps)
            continue
        wanted = every[keep].nsmallest(20, "score")["score"].tolist()
        assert best(tables, bounds=caps)["score"] == pytest.approx(wanted[0], abs=1e-12)
        assert k_best(tables, 20, bounds=caps)["score"].tolist() == pytest.approx(wanted, abs=1e-12)
        met += 1
    assert met >= 3


@pytest.mark.parametrize("coupled", [False, True])
def test_long_walks_end_in_integer_programs_with_the_same_chains(draw: Any, coupled: bool, monkeypatch: Any) -> None:
    tables = draw(5, stages=6, rows=6, coupled=coupled, ties=False)
    caps = {"macs": float(sum(t["macs"].median() for t in tables))}
    whole = k_best(tables, 8, bounds=caps, different=0.2)
    monkeypatch.setattr(module, "MAX_POPS", 25)
    pd.testing.assert_frame_equal(k_best(tables, 8, bounds=caps, different=0.2), whole)
    pairs = [(a, b) for n, a in enumerate(picked(whole)) for b in picked(whole)[:n]]
    assert pairs and all(sum(x != y for x, y in zip(a, b, strict=True)) >= 2 for a, b in pairs)


def test_all_there_are_and_bad_settings(draw: Any, chains: Any) -> None:
    tables = draw(1, stages=2, rows=3, coupled=False, ties=False)
    every = list(chains(tables))
    assert len(k_best(tables, 100)) == len(every)
    least, most = min(c[1] for c in every), max(c[1] for c in every)
    with pytest.raises(SettingError, match=f"macs at least {least}"):
        k_best(tables, 3, bounds={"macs": least - 1})
    with pytest.raises(SettingError, match=f"macs at most {most}"):
        k_best(tables, 3, bounds={"macs": (most + 1, None)})
    with pytest.raises(SettingError, match=r"bounds\.macs"):
        k_best(tables, 3, bounds={"macs": (5, 4)})
    for bad in ({"k": 0}, {"k": 2.5}, {"k": "2"}, {"different": 1.5}, {"engine": "ilp"}):
        with pytest.raises(SettingError, match=next(iter(bad))):
            k_best(tables, **({"k": 2} | bad))


@pytest.mark.parametrize("cap", ["60%", "4", float("nan"), (1, 2, 3), [1], {"most": 3}, (float("nan"), 3)])
def test_caps_that_are_no_numbers_are_refused(draw: Any, cap: Any) -> None:
    tables = draw(1, stages=2, rows=3, coupled=False, ties=False)
    for solver in (best, exact_front, partial(k_best, k=2)):
        with pytest.raises(SettingError, match=r"bounds\.macs=.*an upper bound, or a pair"):
            solver(tables, bounds={"macs": cap})
    with pytest.raises(SettingError, match=r"bounds\.macs=.*use nas_kd\.solve\.best for ranges"):
        exact_front(tables, bounds={"macs": (1, 10**9)})
    assert exact_front(tables, bounds={"macs": (None, 10**9)}).equals(exact_front(tables))
    with pytest.raises(SettingError, match="a list of tables"):
        exact_front(tables[0])


def test_a_range_between_two_chains_names_its_neighbours() -> None:
    table = pd.DataFrame({"score": [1.0, 2.0], "macs": [10, 20], "params": [1, 1]})
    with pytest.raises(SettingError, match="macs at least 30; macs at most 20"):
        best([table, table], bounds={"macs": (21, 29)})
