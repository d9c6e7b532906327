"""Random rating tables and budgets: what is called exact against every chain, and budgets as users write them."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import product

import pandas as pd
import pytest
from drawn import tables
from hypothesis import given
from hypothesis import strategies as st

from nas_kd.errors import SettingError
from nas_kd.searcher.amounts import parse_budget
from nas_kd.solve import best, exact_front

Chain = tuple[float, int, int]  # score, MACs, parameters


def every_chain(given_tables: list[pd.DataFrame]) -> list[Chain]:
    """Walk through all chains."""
    chains = []
    for rows in product(*(list(table.itertuples()) for table in given_tables)):
        pairs = zip(rows, rows[1:], strict=False)
        if "in_width" in given_tables[0] and any(left.out_width != right.in_width for left, right in pairs):
            continue
        chains.append((sum(r.score for r in rows), sum(r.macs for r in rows), sum(r.params for r in rows)))
    return chains


@given(tables(), st.sampled_from(["macs", "params"]))
def test_the_front_is_what_no_chain_beats(drawn: list[pd.DataFrame], budget: str) -> None:
    chains, at = every_chain(drawn), 1 if budget == "macs" else 2
    if not chains:
        with pytest.raises(SettingError):
            exact_front(drawn, budget=budget)
        return
    wanted: list[tuple[int, float]] = []
    for cost in sorted({chain[at] for chain in chains}):
        score = min(chain[0] for chain in chains if chain[at] <= cost)
        if not wanted or score < wanted[-1][1]:
            wanted.append((cost, score))
    front = exact_front(drawn, budget=budget)
    assert list(front[[budget, "score"]].itertuples(index=False, name=None)) == wanted
    for row in front.to_dict("records"):  # and its rows give what it says
        picked = [table.loc[row[f"row_{number}"]] for number, table in enumerate(drawn, 1)]
        for name in ("score", "macs", "params"):
            assert sum(one[name] for one in picked) == row[name]


@given(tables(), st.integers(1, 27), st.integers(1, 27))
def test_the_best_chain_within_two_caps(drawn: list[pd.DataFrame], macs: int, params: int) -> None:
    legal = [chain for chain in every_chain(drawn) if chain[1] <= macs and chain[2] <= params]
    caps = {"macs": float(macs), "params": float(params)}
    for solve in (lambda: exact_front(drawn, bounds=caps).iloc[-1], lambda: best(drawn, bounds=caps)):
        if not legal:
            with pytest.raises(SettingError):
                solve()
            continue
        found = solve()
        assert math.isclose(float(found["score"]), min(chain[0] for chain in legal), abs_tol=1e-9)
        assert found["macs"] <= macs and found["params"] <= params


@given(st.integers(1, 10_000), st.integers(1, 10**12))
def test_a_share_is_rounded_exactly(hundredths: int, largest: int) -> None:
    text = f"{hundredths // 100}.{hundredths % 100:02}%"
    found = parse_budget(text, largest, "search.max_macs")
    assert found == math.floor(largest * Fraction(hundredths, 10_000)) <= largest
    least = parse_budget(text, largest, "search.min_macs", up=True)
    assert 1 <= least == math.ceil(largest * Fraction(hundredths, 10_000)) <= largest


@given(st.integers(1, 10**15), st.sampled_from([("", 1), ("k", 10**3), ("M", 10**6), ("G", 10**9)]))
def test_a_number_is_what_it_says(number: int, unit: tuple[str, int]) -> None:
    for text in (f"{number}{unit[0]}", f" {number}{unit[0]} ", f"{number:_}{unit[0]}"):
        assert parse_budget(text, 1, "search.max_params") == number * unit[1]
    if not unit[0]:
        assert parse_budget(number, 1, "search.max_params") == number


@given(st.text(max_size=8))
def test_any_other_text_is_refused_in_words(text: str) -> None:
    try:
        found = parse_budget(text, 1000, "search.max_macs")
    except SettingError as error:
        assert error.field == "search.max_macs" and error.hint and "\n" not in str(error)
    else:
        assert isinstance(found, int) and found >= 0
