"""Integer programming against brute force and against the exact front."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from nas_kd.errors import SettingError
from nas_kd.solve import best, exact_front, feasible_range


def big(coupled: bool, seed: int = 0, stages: int = 4, rows: int = 200) -> list[pd.DataFrame]:
    rng = np.random.default_rng(seed)
    tables = []
    for _ in range(stages):
        macs = rng.integers(1_000, 1_000_000, rows)
        score = (macs / 1e6) ** -0.3 * rng.lognormal(0, 0.3, rows)
        table = pd.DataFrame({"score": score, "macs": macs, "params": rng.integers(10, 10_000, rows)})
        if coupled:
            table["in_width"], table["out_width"] = rng.integers(0, 3, (2, rows))
        tables.append(table)
    return tables


@pytest.mark.parametrize("coupled", [False, True])
def test_fifty_random_budgets_equal_the_front(coupled):
    tables = big(coupled)
    front = exact_front(tables)
    rng = np.random.default_rng(1)
    for cap in rng.integers(front["macs"].iloc[0], front["macs"].iloc[-1] * 1.2, 25):
        wanted = front[front["macs"] <= cap].iloc[-1]
        found = best(tables, bounds={"macs": int(cap)})
        assert found["score"] == pytest.approx(wanted["score"], abs=1e-12)
        assert found["macs"] <= cap
    assert best(tables, bounds={"macs": int(front["macs"].iloc[7])})["row_1"] == front["row_1"].iloc[7]


@pytest.mark.parametrize("coupled", [False, True])
def test_two_caps_equal_brute_force_and_the_capped_front(draw, chains, coupled):
    solved = 0
    for seed in range(25):
        tables = draw(seed, coupled=coupled, ties=seed % 2 == 0)
        every = list(chains(tables))
        if not every:
            continue
        rng = np.random.default_rng(seed)
        caps = {"macs": float(np.quantile([c[1] for c in every], rng.random()))}
        caps["params"] = float(np.quantile([c[2] for c in every], rng.random()))
        legal = [c for c in every if c[1] <= caps["macs"] and c[2] <= caps["params"]]
        if not legal:
            with pytest.raises(SettingError, match="at least"):
                best(tables, bounds=caps)
            continue
        found = best(tables, bounds=caps)
        assert found["score"] == min(c[0] for c in legal)
        assert found["score"] == exact_front(tables, bounds=caps)["score"].iloc[-1]
        for name, column in (("macs", 1), ("params", 2)):
            control = best(tables, bounds=caps, objective=name, maximise=True)
            assert control[name] == max(c[column] for c in legal)
        solved += 1
    assert solved > 10


def test_budgets_at_the_edge_of_the_solvers_tolerance_are_kept():
    # 2e12 MACs: HiGHS' tolerance of 1e-6 is worth a million of them
    table = pd.DataFrame({"score": [2.0, 1.0], "macs": [10**12, 10**12 + 1], "params": [1, 1]})
    found = best([table, table], bounds={"macs": 2 * 10**12 + 1})
    assert (found["macs"], found["score"]) == (2 * 10**12 + 1, 3.0)
    assert best([table, table], bounds={"macs": 2 * 10**12})["score"] == 4.0


def test_infeasible_caps_name_the_smallest_feasible_values():
    table = pd.DataFrame({"score": [1.0, 2.0], "macs": [10, 20], "params": [200, 100]})
    with pytest.raises(SettingError, match="macs at least 20, params at least 200"):
        best([table, table], bounds={"macs": 19, "params": 500})
    with pytest.raises(SettingError, match="with params <= 200 macs at least 40; with macs <= 25 params at least 400"):
        best([table, table], bounds={"macs": 25, "params": 200})
    with pytest.raises(SettingError, match="with params <= 200 macs at least 40"):
        exact_front([table, table], bounds={"macs": 25, "params": 200})


def test_no_chain_is_an_error():
    table = pd.DataFrame({"score": [1.0], "macs": [1], "params": [1], "in_width": [8], "out_width": [16]})
    for call in (lambda t: best(t, bounds={"macs": 9}), lambda t: feasible_range(t, "macs")):
        with pytest.raises(SettingError, match="out_width values"):
            call([table, table])


@pytest.mark.parametrize("coupled", [False, True])
def test_feasible_range_equals_brute_force(draw, chains, coupled):
    for seed in range(20):
        tables = draw(seed, coupled=coupled, ties=False)
        every = [c[1] for c in chains(tables)]
        if every:
            assert feasible_range(tables, "macs") == (min(every), max(every))
    assert feasible_range([t[["macs"]] for t in draw(0, coupled=False, ties=False)], "macs")[0] > 0


@pytest.mark.parametrize("whole", [True, False])
def test_the_largest_sum_within_its_own_cap(monkeypatch, whole):
    rng = np.random.default_rng(4)
    for cells in (100_000, 300):  # the second rounds, as tables with very many different sums do
        monkeypatch.setattr("nas_kd.solve.largest.CELLS", cells)
        for _ in range(10):
            tables = []
            for _ in range(3):
                table = pd.DataFrame({"macs": rng.integers(1, 4_000, 20) * 7 + 3, "params": rng.integers(1, 99, 20)})
                table["in_width"], table["out_width"] = rng.integers(0, 2, (2, 20))
                tables.append(table if whole else table.assign(macs=table["macs"] / 3))
            joined = tables[0].merge(tables[1], left_on="out_width", right_on="in_width", suffixes=("", "_2"))
            joined = joined.merge(tables[2], left_on="out_width_2", right_on="in_width", suffixes=("", "_3"))
            macs = joined["macs"] + joined["macs_2"] + joined["macs_3"]
            params = joined["params"] + joined["params_2"] + joined["params_3"]
            caps = {"macs": float(macs.quantile(rng.random())), "params": float(params.quantile(0.3))}
            for use in (caps, {"macs": caps["macs"]}):
                legal = (macs <= use["macs"]) & (params <= use.get("params", np.inf))
                if not legal.any():
                    continue
                found = best(tables, bounds=use, objective="macs", maximise=True)
                assert found["macs"] <= use["macs"] and found["params"] <= use.get("params", np.inf)
                if whole and cells == 100_000:
                    assert found["macs"] == macs[legal].max()
                    assert found["params"] == params[legal & (macs == found["macs"])].min()
                else:
                    near = 1e-4 if cells == 100_000 else 0.02
                    assert found["macs"] >= macs[legal].max() - near * macs.max()
