"""The exact front against brute force over every chain."""

from __future__ import annotations

from itertools import product

import numpy as np
import pandas as pd
import pytest

from nas_kd.errors import SettingError
from nas_kd.solve import exact_front, pruned


def brute_front(every: list[tuple], budget: str = "macs", caps: dict[str, float] | None = None):
    """Walk over given chains from cheap to dear and keep each that scores better than every cheaper one."""
    column, other = {"macs": (1, 2), "params": (2, 1)}[budget]
    limit = {1: (caps or {}).get("macs", np.inf), 2: (caps or {}).get("params", np.inf)}
    legal = [c for c in every if c[1] <= limit[1] and c[2] <= limit[2]]
    front, best = [], np.inf
    for chain in sorted(legal, key=lambda c: (c[column], c[0], c[other], c[3])):
        if chain[0] < best:
            best = chain[0]
            front.append((chain[column], chain[0], chain[other], *chain[3]))
    return front


def rows_of(front: pd.DataFrame) -> list[tuple[float, ...]]:
    return list(front.itertuples(index=False, name=None))


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("coupled", [False, True])
@pytest.mark.parametrize("budget", ["macs", "params"])
def test_equals_brute_force(draw, chains, budget, coupled, ties):
    compared = 0
    for seed in range(40):
        tables = draw(seed, coupled=coupled, ties=ties, nan=seed % 3 == 0)
        try:
            front = exact_front(tables, budget=budget)
        except SettingError:  # every row of a stage is NaN, or no widths meet
            assert not brute_front(list(chains(tables)), budget)
            continue
        assert rows_of(front) == brute_front(list(chains(tables)), budget)
        compared += 1
    assert compared > 20


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("coupled", [False, True])
def test_caps_stay_exact(draw, chains, coupled, ties):
    compared = 0
    for seed in range(40):
        tables = draw(seed, rows=7, coupled=coupled, ties=ties)
        every = list(chains(tables))
        if not every:
            continue
        rng = np.random.default_rng(seed)
        for quantile in rng.random(3):
            cap = float(np.quantile([c[2] for c in every], quantile))
            for caps in ({"params": cap}, {"params": cap, "macs": float(np.median([c[1] for c in every]))}):
                wanted = brute_front(every, "macs", caps)
                if wanted:
                    assert rows_of(exact_front(tables, bounds=caps)) == wanted
                    compared += 1
                else:
                    with pytest.raises(SettingError, match="at least"):
                        exact_front(tables, bounds=caps)
    assert compared > 60


def test_columns_order_and_types(draw):
    tables = draw(1, stages=2, coupled=False, ties=False)
    front = exact_front(tables)
    assert list(front.columns) == ["macs", "score", "params", "row_1", "row_2"]
    assert list(exact_front(tables, budget="params").columns)[:3] == ["params", "score", "macs"]
    assert front["macs"].is_monotonic_increasing and (front["score"].diff().dropna() < 0).all()
    assert front["macs"].dtype == front["params"].dtype == np.int64
    assert front.attrs["nan_rows"] == 0
    for _, row in front.iterrows():  # labels lead back to the rows
        picked = [table.loc[row[f"row_{i}"]] for i, table in enumerate(tables, 1)]
        assert row["params"] == sum(r["params"] for r in picked)


def test_string_labels_and_float_budget():
    rng = np.random.default_rng(0)
    tables = [
        pd.DataFrame({"score": rng.random(5), "macs": 1, "params": 1, "latency_ms": rng.random(5)}, index=list("edcba"))
        for _ in range(3)
    ]
    front = exact_front(tables, budget="latency_ms")
    assert list(front.columns) == ["latency_ms", "score", "params", "macs", "row_1", "row_2", "row_3"]
    picks = list(product(range(5), repeat=3))
    sums = sorted(
        (
            sum(t["latency_ms"].iloc[i] for t, i in zip(tables, p, strict=True)),
            sum(t["score"].iloc[i] for t, i in zip(tables, p, strict=True)),
        )
        for p in picks
    )
    wanted, best = [], np.inf
    for cost, score in sums:
        if score < best:
            best = score
            wanted.append((cost, score))
    assert np.allclose(front[["latency_ms", "score"]], wanted)


def test_ties_take_fewest_params_then_lowest_labels():
    table = pd.DataFrame({"score": [1.0] * 4, "macs": [5] * 4, "params": [9, 3, 3, 4]}, index=pd.Index([0, 7, 2, 1]))
    front = exact_front([table, table])
    assert rows_of(front) == [(10, 2.0, 6, 2, 2)]


def test_nan_rows_are_counted_and_a_planted_chain_is_found():
    rng = np.random.default_rng(3)
    tables = [
        pd.DataFrame({"score": rng.random(500) + 1, "macs": rng.integers(10, 99, 500), "params": 1}) for _ in range(6)
    ]
    for number, table in enumerate(tables):
        table.loc[10 + number, ["score", "macs"]] = [0.0, 1]  # better and cheaper than all others
        table.loc[400, "score"] = np.nan
        table.loc[401, "score"] = np.inf
    front = exact_front(tables)
    assert rows_of(front) == [(6, 0.0, 6, 10, 11, 12, 13, 14, 15)]
    assert front.attrs["nan_rows"] == 12


def test_many_widths_against_a_plain_viterbi():
    rng = np.random.default_rng(5)
    tables = []
    for _ in range(5):
        table = pd.DataFrame({"score": rng.random(300), "macs": rng.integers(1, 40, 300), "params": 1})
        table["in_width"], table["out_width"] = rng.integers(0, 12, (2, 300))
        tables.append(table)
    best = {(width, 0): 0.0 for width in range(12)}  # (width, macs) -> score
    for table in tables:
        after: dict[tuple[int, int], float] = {}
        for row in table.itertuples():
            for (width, macs), score in best.items():
                if width == row.in_width:
                    at = (row.out_width, macs + row.macs)
                    after[at] = min(after.get(at, np.inf), score + row.score)
        best = after
    front = exact_front(tables)
    for macs, score in zip(front["macs"], front["score"], strict=True):
        assert score == min(s for (_, m), s in best.items() if m <= macs)
    assert front["macs"].iloc[0] == min(m for _, m in best)


def test_pruned_keeps_every_row_of_every_front(draw):
    for seed in range(20):
        tables = draw(seed, rows=12, coupled=True, ties=seed % 2 == 0)
        kept = pruned(tables)
        try:
            front = exact_front(tables)
        except SettingError:
            continue
        for number, labels in enumerate(kept, 1):
            assert set(front[f"row_{number}"]) <= set(labels)
            assert tables[number - 1].loc[labels, "macs"].is_monotonic_increasing
            widths = tables[number - 1].loc[labels].groupby(["in_width", "out_width"])["score"]
            assert all((scores.diff().dropna() < 0).all() for _, scores in widths)
        for wide, narrow in zip(pruned(tables, ("macs", "params")), kept, strict=True):
            assert set(narrow) <= set(wide)


def test_unusable_tables_are_refused():
    good = pd.DataFrame({"score": [1.0], "macs": [1], "params": [1]})
    with pytest.raises(SettingError, match="at least one table"):
        exact_front([])
    with pytest.raises(SettingError, match=r"tables\[1\]\.macs"):
        exact_front([good, good.drop(columns="macs")])
    with pytest.raises(SettingError, match="without NaN"):
        exact_front([good.assign(score=np.nan)])
    with pytest.raises(SettingError, match="unique labels"):
        exact_front([pd.concat([good, good])])
    with pytest.raises(SettingError, match="column of numbers"):
        exact_front([good.assign(macs=["many"])])
    with pytest.raises(SettingError, match=r"tables\[1\]\.in_width"):
        exact_front([good.assign(out_width=8), good.assign(in_width=16)])
    with pytest.raises(SettingError, match="solve.best"):
        exact_front([good.assign(ms=1.0)], bounds={"params": 1, "ms": 1})


def test_an_infeasible_cap_names_the_smallest_feasible_value(draw):
    tables = draw(2, coupled=False, ties=False)
    least = sum(int(table["macs"].min()) for table in tables)
    with pytest.raises(SettingError, match=f"macs at least {least}"):
        exact_front(tables, bounds={"macs": least - 1})
    assert exact_front(tables, bounds={"macs": least})["macs"].tolist() == [least]


def test_scores_of_fewer_images_are_left_out() -> None:
    table = pd.DataFrame({"score": [0.1, 0.5, 0.6], "macs": [1, 2, 3], "params": [1, 2, 3], "images": [8, 64, 64]})
    front = exact_front([table])
    assert front["row_1"].tolist() == [1] and front.attrs["nan_rows"] == 1
    assert exact_front([table.drop(columns="images")])["row_1"].tolist() == [0]
