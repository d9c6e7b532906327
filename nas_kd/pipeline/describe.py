"""What is known of a space and a budget before anything is trained."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from nas_kd.analyse.choice import few_images
from nas_kd.config.measures import measure_named
from nas_kd.data.summary import summary
from nas_kd.distill import task_of
from nas_kd.errors import SettingError
from nas_kd.pipeline.given import Given
from nas_kd.runtime.seeds import seed_for
from nas_kd.searcher.budget import UNITS, Budget
from nas_kd.searcher.latency_table import LatencyTable
from nas_kd.space import Cost, load_space
from nas_kd.space.load import space_names
from nas_kd.space.rows import check_size, sizes_said
from nas_kd.teacher import describe_taps
from nas_kd.teacher.cache import cache_bytes

DRAWS = 1000  # random archs that say what is usual


def describe(given: Given, *, shipped: bool = False) -> Iterator[str]:
    """Word what is known of a space and a budget, a line each.

    Args:
        given: what the settings name.
        shipped: add what a run says elsewhere: what the data are, which layer of the teacher teaches each stage of a
            named space, and the spaces that come with nas_kd, with the share of the teacher that they reach.

    Raises:
        SettingError: the budget is infeasible, or the teacher cannot teach the space.
    """
    space = given.outline
    drawn = [space.cost(space.sample(seed_for("describe", index)), **given.cost) for index in range(DRAWS)]
    ends = {
        "smallest": space.cost(space.smallest(), **given.cost),
        "largest": space.cost(space.largest(), **given.cost),
    }
    median = Cost(*(int(np.median([cost[index] for cost in drawn])) for index in range(2)))
    if shipped:
        yield from summary(given.images, given.config.data.train)
        measure = measure_named(task_of(given.images, measure=given.config.metric).measure)
        if few := few_images(len(given.images.select), measure):
            yield given.images.spoken(few)
    yield from _teacher(given)
    yield f"space: {space.name}, {_many(space.size)} archs, {space.parts}"
    for name, cost in (ends | {f"median of {DRAWS:,} random archs": median}).items():
        yield f"  {name}: {cost.macs:,} MACs, {cost.params:,} params{_share(cost, given.whole)}"
    yield from (f"  {line}" for line in space.details)
    if given.config.data.resolution is not None:
        check_size(space, given.images.resolution)
    if shipped and (said := sizes_said(space, given.images.resolution)):
        yield f"  {said}"
    yield from _budget(given, drawn, ends)
    if given.timing is not None:
        yield from _latencies(given, given.timing)
    if shipped:
        yield from _pairs(given)
    if shipped and given.whole is not None and given.images.tokens is None:
        yield from _shipped(given, given.whole)


def _teacher(given: Given) -> Iterator[str]:
    whole = given.whole
    if whole is None:
        return
    yield f"teacher: {given.model}, {whole.macs:,} MACs, {whole.params:,} params"
    if given.images.tokens is not None:
        network: Any = given.outlined.network
        length = given.images.resolution
        products = network.attention_macs(length)
        yield f"  of {length} tokens; the products of attention are {products:,} more, which no budget counts"
    if given.checked is not None:
        yield given.images.spoken(given.checked.line)
        yield from given.checked.judge(given.model, "warn")
    views = given.images.train.views
    if views is not None:
        size = cache_bytes(given.images) / 1e6
        images = len(given.images.train)
        count = given.images.spoken(f"{images:,} images")
        yield f"teacher logits: {len(views)} views of {count}, {size:,.1f} MB on the disk"


def _pairs(given: Given) -> Iterator[str]:
    """Word which layer of the teacher each stage of a named space is rated against."""
    if given.config.derived or not given.config.guided or not given.taught:
        return
    check_size(given.outline, given.images.resolution)
    yield from describe_taps(given.outlined.match(given.outline, given.images.resolution))


def _many(size: int) -> str:
    """Return a number with commas, or its power of ten where it is long."""
    return f"{size:,}" if size < 10**15 else f"10^{len(str(size)) - 1}"


def _percent(share: float) -> str:
    return f"{share:,.0f}%" if share >= 100 else f"{share:.3g}%"


def _share(cost: Cost, whole: Cost | None) -> str:
    """Return what share of the teacher a cost is."""
    return (
        ""
        if whole is None
        else f" ({_percent(100 * cost.macs / whole.macs)} and {_percent(100 * cost.params / whole.params)})"
    )


def _budget(given: Given, drawn: list[Cost], ends: dict[str, Cost]) -> Iterator[str]:
    """Word each bound, and how many archs keep it."""
    upper = given.upper
    lower = given.lower
    whole = given.whole
    owner = "largest" if whole is None else "teacher"
    for name in ("macs", "params"):
        bounds = [(word, by[name]) for word, by in (("at least", lower), ("at most", upper)) if name in by]
        if not bounds:
            continue
        low, high = (getattr(ends[end], name) for end in ("smallest", "largest"))
        most = getattr(whole or ends["largest"], name)
        kept = [lower.get(name, low) <= getattr(cost, name) <= upper.get(name, high) for cost in drawn]
        words = " and ".join(
            f"{word} {bound:,} {UNITS[name]} ({100 * bound / most:.3g}% of the {owner})" for word, bound in bounds
        )
        feasible = f"feasible from {low:,} ({100 * low / most:.3g}%)"
        yield f"budget: {words}; {feasible}; {100 * np.mean(kept):.0f}% of random archs keep it"
        if upper.get(name, 0) > high:
            yield f"  every arch keeps it: the largest has {high:,} ({100 * high / most:.3g}% of the {owner})"


def _latencies(given: Given, table: LatencyTable) -> Iterator[str]:
    """Word what a latency table has, which is checked against the space."""
    limit = given.config.search.max_latency_ms
    budget = Budget(given.outline, given.cost, given.upper, limit, lower=given.lower, table=table)
    what = (
        f"{len(table.units)} units and an overhead of {table.overhead:g} ms"
        if table.adds_up
        else f"{len(table.archs)} archs"
    )
    most = "" if limit is None else f"; at most {limit:g} ms"
    yield f"latencies: {table.path} has {what}; the fastest arch takes {budget.fastest:.3g} ms{most}"


def _shipped(given: Given, whole: Cost) -> Iterator[str]:
    """Word what share of the teacher's MACs the shipped spaces reach on these images."""
    yield "spaces that come with nas_kd (--space NAME), in shares of the teacher's MACs:"
    for name in space_names():
        space = load_space(name)
        size = {} if space.resolutions else {"resolution": given.images.resolution}
        shape = size | {"in_chans": given.images.in_chans, "num_classes": given.images.num_classes}
        try:
            low, high = (
                100 * space.cost(arch, **shape).macs / whole.macs for arch in (space.smallest(), space.largest())
            )
        except SettingError as error:  # of images that it does not take
            yield f"  {name}: takes {error.expected.partition(' (')[0]}"
        else:
            yield f"  {name}: {_percent(low)} to {_percent(high)}"
