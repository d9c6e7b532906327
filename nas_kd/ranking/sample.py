"""The archs that scores are judged on: part over all sizes, part inside narrow bands of MACs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from nas_kd.config.checks import MIN_ARCHS
from nas_kd.errors import SettingError
from nas_kd.ranking.config import RankConfig
from nas_kd.runs.files import read_frame
from nas_kd.runtime.seeds import seed_for
from nas_kd.searcher.amounts import parse_budget
from nas_kd.space import Arch, ElasticSpace

POOL = 20_000  # random archs that the sample is chosen from
OVERALL = "all sizes"
COLUMNS = ["group", "key", "label", "macs", "params", "depth", "arch"]


def draw_archs(config: RankConfig, space: ElasticSpace, seed: int, cost: Mapping[str, int]) -> pd.DataFrame:
    """Return the archs that a ranking trains: a new sample, or those of another ranking.

    Args:
        seed: seed of the draws.
        cost: what ``space.cost`` needs besides an arch.

    Returns:
        See `sample_archs`.

    Raises:
        SettingError: a band holds too few archs, two bands overlap, or there is no such list of archs.
    """
    if config.archs is not None:
        if not Path(config.archs).is_file():
            raise SettingError("rank.archs", config.archs, "an archs.csv of another ranking", "check the path")
        return listed_archs(read_frame(config.archs), space, limit=config.limit, cost=cost)
    return sample_archs(config, space, seed=seed, cost=cost)


def bands_of(config: RankConfig, space: ElasticSpace, cost: Mapping[str, int]) -> list[float] | None:
    """Return the MACs in the middle of each band, or None for percentiles."""
    if config.bands is None:
        return None
    largest = space.cost(space.largest(), **cost).macs
    return [float(parse_budget(middle, largest, "rank.bands")) for middle in config.bands]


def sample_archs(config: RankConfig, space: ElasticSpace, *, seed: int = 0, cost: Mapping[str, int]) -> pd.DataFrame:
    """Draw a stratified sample, every beginning of which is a fair small sample.

    A band's archs are spread evenly over its depths, and within a depth over its parameters: uniform draws
    would hold hardly any of the extremes, between which a score is to decide. The archs over all sizes lie at
    even steps of log MACs. The rows of the groups alternate, each group in random order.

    Args:
        config: the settings: bands, band, in_band and overall.
        seed: seed of the draws.
        cost: what ``space.cost`` needs besides an arch.

    Returns:
        One row an arch: group, key, label, macs, params, depth and arch (JSON), in the order of their turns.

    Raises:
        SettingError: a band holds too few archs, or two bands overlap.
    """
    pool = _pool(space, seed, cost)
    band = config.band
    in_band = config.in_band
    bands = bands_of(config, space, cost)
    if bands is None:
        bands = [float(value) for value in np.percentile(pool["macs"], [25, 50, 80])]
    centres = sorted(bands)
    for low, high in zip(centres, centres[1:], strict=False):
        if low * (1 + band) >= high * (1 - band):
            expected = "bands that do not overlap"
            raise SettingError("rank.bands", list(bands), expected, "move them apart, or lower rank.band")
    groups: dict[str, pd.DataFrame] = {}
    for number, centre in enumerate(centres, 1):
        inside = pool[(pool["macs"] - centre).abs() <= band * centre]
        if len(inside) < in_band:
            low, high = pool["macs"].quantile([0.05, 0.95])
            expected = f"a band with at least {in_band} archs; {len(inside)} of {len(pool):,} random ones lie in it"
            hint = f"choose bands between {low:,.0f} and {high:,.0f} MACs, a wider rank.band or a smaller rank.in_band"
            raise SettingError("rank.bands", centre, expected, hint)
        chosen = _by_depth(inside, in_band, np.random.default_rng(seed_for(seed, "rank band", number)))
        groups[f"band {number}"] = chosen
    taken = {key for rows in groups.values() for key in rows["key"]}
    free = pool[~pool["key"].isin(taken)]
    rng = np.random.default_rng(seed_for(seed, "rank all sizes"))
    if config.overall:
        groups[OVERALL] = _by_size(free, config.overall, rng)
    return _alternate(groups)


def listed_archs(
    table: pd.DataFrame, space: ElasticSpace, *, limit: int | None, cost: Mapping[str, int]
) -> pd.DataFrame:
    """Take the archs of another ranking, for another teacher or another training.

    Args:
        table: its archs.csv.
        space: the space that they must be of.
        limit: only the first so many, which hold the groups in proportion; None takes all.
        cost: what ``space.cost`` needs besides an arch.

    Returns:
        The same columns as `sample_archs`, recounted.

    Raises:
        SettingError: the table is no list of archs, an arch is of another space, or they are too few.
    """
    lacking = [name for name in ("group", "arch") if name not in table]
    if lacking:
        expected = f"the archs.csv of a ranking; it lacks {', '.join(lacking)}"
        raise SettingError("rank.archs", list(table.columns), expected, "give runs/NAME/rank/archs.csv")
    table = table.head(limit) if limit is not None else table
    archs = archs_of(table)
    if len(archs) < MIN_ARCHS:
        raise SettingError("rank.limit", len(archs), f"at least {MIN_ARCHS} archs for a rank correlation")
    rows = []
    for arch, group in zip(archs, table["group"], strict=True):
        space.validate(arch)
        rows.append(_row(arch, space, cost) | {"group": group, "label": arch.label, "arch": json.dumps(arch.to_dict())})
    return pd.DataFrame(rows)[COLUMNS]


def archs_of(table: pd.DataFrame) -> list[Arch]:
    """Read the archs of a sample."""
    return [Arch.from_dict(json.loads(text)) for text in table["arch"]]


def _pool(space: ElasticSpace, seed: int, cost: Mapping[str, int]) -> pd.DataFrame:
    """Draw random archs, each once, with their costs."""
    count = min(POOL, 4 * space.size)
    archs = list(dict.fromkeys(space.sample(seed_for(seed, "rank", number)) for number in range(count)))
    frame = pd.DataFrame([_row(arch, space, cost) for arch in archs])
    frame["value"] = archs
    return frame


def _row(arch: Arch, space: ElasticSpace, cost: Mapping[str, int]) -> dict[str, Any]:
    total = space.cost(arch, **cost)
    return {"key": arch.key, "macs": total.macs, "params": total.params, "depth": arch.depth}


def _by_depth(inside: pd.DataFrame, count: int, rng: np.random.Generator) -> pd.DataFrame:
    """Choose archs evenly over depths, and over parameters within each."""
    sizes = inside["depth"].value_counts().sort_index()
    quota = dict.fromkeys(sizes.index, 0)
    while sum(quota.values()) < count:
        open_ = [depth for depth in quota if quota[depth] < sizes[depth]]
        for depth in sorted(open_, key=lambda depth: quota[depth])[: count - sum(quota.values())]:
            quota[depth] += 1
    parts = []
    for depth, wanted in quota.items():
        rows = inside[inside["depth"] == depth].sort_values(["params", "key"])
        # one of each of `wanted` equal parts
        edges = np.linspace(0, len(rows), wanted + 1).astype(int)
        picks = [int(rng.integers(a, b)) for a, b in zip(edges, edges[1:], strict=False)]
        parts.append(rows.iloc[picks])
    return pd.concat(parts).sample(frac=1.0, random_state=int(rng.integers(2**31)))


def _by_size(pool: pd.DataFrame, count: int, rng: np.random.Generator) -> pd.DataFrame:
    """Choose archs at even steps of log MACs, from the smallest to the largest."""
    if len(pool) < count:
        expected = f"at most {len(pool)}, the archs that are left of the space"
        raise SettingError("rank.overall", count, expected, "lower rank.overall or rank.in_band")
    logs = np.log(pool["macs"].to_numpy(dtype=float))
    picks: list[int] = []
    for target in np.linspace(logs.min(), logs.max(), count):
        order = np.argsort(np.abs(logs - target), kind="stable")
        picks.append(next(int(i) for i in order if int(i) not in picks))
    return pool.iloc[picks].sample(frac=1.0, random_state=int(rng.integers(2**31)))


def _alternate(groups: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Merge groups so that every beginning holds them in proportion."""
    rows = []
    for name, table in groups.items():
        share = (np.arange(len(table)) + 0.5) / len(table)
        rows.append(table.assign(group=name, share=share))
    merged = pd.concat(rows).sort_values(["share", "group"], kind="stable")
    merged["label"] = [arch.label for arch in merged["value"]]
    merged["arch"] = [json.dumps(arch.to_dict()) for arch in merged["value"]]
    return merged[COLUMNS].reset_index(drop=True)
