"""Small rating tables and every chain through them."""

from __future__ import annotations

from itertools import product

import numpy as np
import pandas as pd
import pytest


@pytest.fixture
def draw():
    return draw_tables


@pytest.fixture
def chains():
    return every_chain


def draw_tables(seed: int, stages: int = 3, rows: int = 6, *, coupled: bool, ties: bool, nan: bool = False):
    """Draw small rating tables; dyadic scores and few costs make many exact ties."""
    rng = np.random.default_rng(seed)
    tables = []
    for _ in range(stages):
        n = int(rng.integers(2, rows + 1))
        high = 6 if ties else 10_000
        score = rng.integers(0, 8, n) / 8 if ties else rng.random(n)
        macs, params = rng.integers(1, high, (2, n))
        table = pd.DataFrame({"score": score, "macs": macs, "params": params})
        if coupled:
            table["in_width"], table["out_width"] = rng.integers(0, 2, (2, n)) * 8 + 8
        if nan:
            table.loc[rng.random(n) < 0.2, "score"] = np.nan
            table.loc[rng.random(n) < 0.1, "macs"] = np.nan
        table.index = pd.Index(rng.permutation(100)[:n], name="row")
        tables.append(table)
    return tables


def every_chain(tables: list[pd.DataFrame]):
    """Iterate over every chain as (score, macs, params, labels)."""
    for rows in product(*(list(t.dropna().itertuples()) for t in tables)):
        pairs = zip(rows, rows[1:], strict=False)
        if "in_width" in tables[0] and any(left.out_width != right.in_width for left, right in pairs):
            continue
        score, macs, params = 0.0, 0, 0
        for row in rows:
            score, macs, params = score + row.score, macs + row.macs, params + row.params
        yield score, macs, params, tuple(row.Index for row in rows)
