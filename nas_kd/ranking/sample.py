"""The sample of archs: some over all sizes, some inside narrow bands of MACs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from nas_kd.config.checks import MIN_ARCHS
from nas_kd.config.reading import parsed
from nas_kd.errors import SettingError
from nas_kd.ranking.config import RankConfig
from nas_kd.runs.files import read_frame
from nas_kd.runtime.seeds import seed_for
from nas_kd.searcher.amounts import parse_budget
from nas_kd.space import Arch, ElasticSpace

POOL = 20_000  # random archs from which the sample is chosen
OVERALL = "all sizes"
COLUMNS = ["group", "key", "label", "macs", "params", "depth", "arch"]


Sizes = tuple[int, int]  # archs in each band, and over all sizes


def draw_archs(
    config: RankConfig, space: ElasticSpace, seed: int, cost: Mapping[str, int], before: Sequence[Sizes] = ()
) -> pd.DataFrame:
    """Return the archs that a ranking trains: a new sample, or those of another ranking.

    Args:
        seed: seed of the draws.
        cost: further arguments of ``space.cost``.
        before: of `sample_archs`.

    Returns:
        See `sample_archs`.

    Raises:
        SettingError: a band has too few archs, two bands overlap, or the list of archs does not exist.
    """
    if config.archs is not None:
        if not Path(config.archs).is_file():
            raise SettingError("rank.archs", config.archs, "an archs.csv of another ranking", "check the path")
        return listed_archs(read_frame(config.archs), space, limit=config.limit, cost=cost)
    return sample_archs(config, space, seed=seed, cost=cost, before=before)


def bands_of(config: RankConfig, space: ElasticSpace, cost: Mapping[str, int]) -> list[float] | None:
    """Return the MACs at the centre of each band, or None for percentiles."""
    if config.bands is None:
        return None
    largest = space.cost(space.largest(), **cost).macs
    return [float(parse_budget(middle, largest, "rank.bands")) for middle in config.bands]


def sample_archs(
    config: RankConfig, space: ElasticSpace, *, seed: int = 0, cost: Mapping[str, int], before: Sequence[Sizes] = ()
) -> pd.DataFrame:
    """Draw a stratified sample, of which every prefix is stratified too.

    The archs of a band are spread evenly over depths, and within a depth over parameters: uniform draws
    would contain hardly any extreme ones, which a score must be able to rank. The archs over all sizes are at
    equal steps of log MACs. The rows of the groups alternate, each group in random order.

    Args:
        config: the settings: bands, band, in_band and overall.
        seed: seed of the draws.
        cost: further arguments of ``space.cost``.
        before: sizes of smaller samples that this one goes on from, in their order. Their archs come first, the further
            ones are spread likewise among those that are left; a sample drawn at once is spread over all of them, and
            is therefore another.

    Returns:
        One row per arch: group, key, label, macs, params, depth and arch (JSON), in the order of training.

    Raises:
        SettingError: a band has too few archs, or two bands overlap.
    """
    pool = _pool(space, seed, cost)
    band = config.band
    bands = bands_of(config, space, cost)
    if bands is None:
        bands = [float(value) for value in np.percentile(pool["macs"], [25, 50, 80])]
    centres = sorted(bands)
    for low, high in zip(centres, centres[1:], strict=False):
        if low * (1 + band) >= high * (1 - band):
            expected = "bands that do not overlap"
            raise SettingError("rank.bands", list(bands), expected, "move them apart, or reduce rank.band")
    parts: list[pd.DataFrame] = []
    last = (0, 0)
    for step, sizes in enumerate([*before, (config.in_band, config.overall)]):
        taken = {key for part in parts for key in part["key"]}
        further = (sizes[0] - last[0], sizes[1] - last[1])
        salt = (step,) if step else ()
        parts.append(_drawn(pool[~pool["key"].isin(taken)], centres, band, further, seed, salt))
        last = sizes
    return pd.concat(parts, ignore_index=True)


def _drawn(
    pool: pd.DataFrame, centres: Sequence[float], band: float, sizes: Sizes, seed: int, salt: tuple[int, ...]
) -> pd.DataFrame:
    """Draw so many archs of each band and so many over all sizes."""
    in_band, overall = sizes
    groups: dict[str, pd.DataFrame] = {}
    for number, centre in enumerate(centres, 1):
        inside = pool[(pool["macs"] - centre).abs() <= band * centre]
        if len(inside) < in_band:
            low, high = pool["macs"].quantile([0.05, 0.95])
            expected = f"a band with at least {in_band} archs; {len(inside)} of {len(pool):,} random ones are in it"
            hint = f"choose bands between {low:,.0f} and {high:,.0f} MACs, a wider rank.band or a smaller rank.in_band"
            raise SettingError("rank.bands", centre, expected, hint)
        if in_band:
            rng = np.random.default_rng(seed_for(seed, "rank band", number, *salt))
            groups[f"band {number}"] = _by_depth(inside, in_band, rng)
    taken = {key for rows in groups.values() for key in rows["key"]}
    free = pool[~pool["key"].isin(taken)]
    if overall:
        groups[OVERALL] = _by_size(free, overall, np.random.default_rng(seed_for(seed, "rank all sizes", *salt)))
    return _alternate(groups) if groups else pd.DataFrame(columns=COLUMNS)


def listed_archs(
    table: pd.DataFrame, space: ElasticSpace, *, limit: int | None, cost: Mapping[str, int]
) -> pd.DataFrame:
    """Reuse the archs of another ranking, for another teacher or another training.

    Args:
        table: its archs.csv.
        space: the space of the archs.
        limit: use only this many, which are stratified; None uses all.
        cost: further arguments of ``space.cost``.

    Returns:
        The columns of `sample_archs`, with recounted costs.

    Raises:
        SettingError: the table is not a list of archs, an arch belongs to another space, or there are too few.
    """
    missing = [name for name in ("group", "arch") if name not in table]
    if missing:
        expected = f"the archs.csv of a ranking; it lacks {', '.join(missing)}"
        raise SettingError("rank.archs", list(table.columns), expected, "pass runs/NAME/rank/archs.csv")
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
    return [Arch.from_dict(parsed(text)) for text in table["arch"]]


def _pool(space: ElasticSpace, seed: int, cost: Mapping[str, int]) -> pd.DataFrame:
    """Draw distinct random archs with their costs."""
    count = min(POOL, 4 * space.size)
    archs = list(dict.fromkeys(space.sample(seed_for(seed, "rank", number)) for number in range(count)))
    frame = space.costs(space.encode(archs), **cost)[["macs", "params"]]
    frame.insert(0, "key", [arch.key for arch in archs])
    return frame.assign(depth=[arch.depth for arch in archs], value=archs)


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
    for depth, needed in quota.items():
        rows = inside[inside["depth"] == depth].sort_values(["params", "key"])
        # one from each of `needed` equal parts
        edges = np.linspace(0, len(rows), needed + 1).astype(int)
        picks = [int(rng.integers(a, b)) for a, b in zip(edges, edges[1:], strict=False)]
        parts.append(rows.iloc[picks])
    return pd.concat(parts).sample(frac=1.0, random_state=int(rng.integers(2**31)))


def _by_size(pool: pd.DataFrame, count: int, rng: np.random.Generator) -> pd.DataFrame:
    """Choose archs at equal steps of log MACs, from the smallest to the largest."""
    if len(pool) < count:
        expected = f"at most {len(pool)}, the remaining archs of the space"
        raise SettingError("rank.overall", count, expected, "lower rank.overall or rank.in_band")
    logs = np.log(pool["macs"].to_numpy(dtype=float))
    picks: list[int] = []
    for target in np.linspace(logs.min(), logs.max(), count):
        order = np.argsort(np.abs(logs - target), kind="stable")
        picks.append(next(int(i) for i in order if int(i) not in picks))
    return pool.iloc[picks].sample(frac=1.0, random_state=int(rng.integers(2**31)))


def _alternate(groups: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Merge groups so that every prefix is stratified."""
    rows = []
    for name, table in groups.items():
        share = (np.arange(len(table)) + 0.5) / len(table)
        rows.append(table.assign(group=name, share=share))
    merged = pd.concat(rows).sort_values(["share", "group"], kind="stable")
    merged["label"] = [arch.label for arch in merged["value"]]
    merged["arch"] = [json.dumps(arch.to_dict()) for arch in merged["value"]]
    return merged[COLUMNS].reset_index(drop=True)
