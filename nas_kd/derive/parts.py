"""A teacher's units and streams as the stages of a space, with what every choice costs."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from itertools import product

import torch

from nas_kd.derive.chain import Link
from nas_kd.derive.cost import Ledger
from nas_kd.derive.cut import sizes
from nas_kd.derive.derived import Derived
from nas_kd.derive.stage import Costs, KeepingStage, TeacherHead, TeacherStem, UnitStage
from nas_kd.space.arch import Layer


def parts_of(
    derived: Derived, shares: Sequence[float], depth: bool, heights: Sequence[int], multiple: int = 8
) -> tuple[TeacherStem, tuple[UnitStage, ...], TeacherHead]:
    """Describe a derived network as the parts of a space, and count every choice.

    Args:
        derived: the teacher, its units and its streams.
        shares: shares of channels to choose from, rising, the last 1.
        depth: whether units may be left out.
        heights: of the images in pixels.
        multiple: what numbers of channels are multiples of where there are at least 32.

    Returns:
        Stem, stages and head.
    """
    ledger = Ledger(derived.network, derived.in_chans, heights)
    counts = [sizes(stream, shares, multiple) for stream in derived.links.streams]
    rest = set(ledger.shapes)
    width = _channels(derived.units[0].shape) if derived.units else derived.in_chans
    stem_width = width
    before: tuple[int, ...] = (width,)
    stages = []
    for link in derived.links.links:
        widths = counts[link.leave] if link.leave is not None else (_out_width(derived, link),)
        names = [*link.outside]
        if link.unit is not None:
            names += [name for name in ledger.shapes if name.startswith(f"{link.path}.")]
        rest -= set(names)
        groups = derived.units[link.unit].groups if link.unit is not None else ()
        inside = tuple(sizes(group, shares, multiple) for group in groups)
        stages.append(_stage(derived, ledger, link, names, before, widths, inside, depth))
        before = widths
    rest -= set(derived.links.outside)
    last = derived.links.last
    head: list[tuple[int, Costs]] = []
    if last is not None:
        for count in counts[last]:
            cut = _cut(derived, ledger, [(last, count)])
            head.append((count, ledger.cost(derived.links.outside, cut)))
    stem = TeacherStem(stem_width, ledger.cost(rest, {}), _origin(derived))
    return stem, tuple(stages), TeacherHead(tuple(head))


def _stage(
    derived: Derived,
    ledger: Ledger,
    link: Link,
    names: Sequence[str],
    in_widths: Sequence[int],
    widths: tuple[int, ...],
    kept: tuple[tuple[int, ...], ...],
    depth: bool,
) -> UnitStage:
    """Describe a link and count its choices at every width that may come in and go out."""
    unit = None if link.unit is None else derived.units[link.unit]
    groups = unit.groups if unit is not None else ()
    order = derived.order[link.unit] if link.unit is not None else []
    keeps = link.enter is not None and link.enter == link.leave
    removable = depth and unit is not None and unit.removable and link.enter == link.leave
    outside = [name for name in names if unit is None or not name.startswith(f"{unit.path}.")]
    costs: list[tuple[tuple[int, int, Layer | None], Costs]] = []
    for in_width, width in product(in_widths, widths):
        if keeps and in_width != width:
            continue
        passing = {link.enter: in_width, link.leave: width}
        streams = _cut(derived, ledger, [(number, count) for number, count in passing.items() if number is not None])
        for inside in product(*kept):
            lost = dict(streams)
            for key, count in ledger.lost(groups, inside, order).items():
                lost[key] = lost.get(key, 0) + count
            costs.append(((in_width, width, inside), ledger.cost(names, lost)))
        if removable:
            costs.append(((in_width, width, None), ledger.cost(outside, streams)))
    kind = KeepingStage if keeps else UnitStage
    return kind(
        path=link.path,
        kept=kept,
        removable=removable,
        widths=widths,
        depths=(0, 1) if removable else (1,),
        costs=tuple(costs),
    )


def _cut(derived: Derived, ledger: Ledger, passing: Sequence[tuple[int, int]]) -> dict[tuple[str, int], int]:
    """Return what streams lose, by number and kept parts of each."""
    streams = [derived.links.streams[number] for number, _ in passing]
    ranks = [derived.order[len(derived.units) + number][0] for number, _ in passing]
    return ledger.lost(streams, [count for _, count in passing], ranks)


def _origin(derived: Derived) -> str:
    """Hash the teacher's weights and the order of its channels."""
    digest = hashlib.sha256()
    for tensor in derived.network.state_dict().values():
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    digest.update(repr([[rank.tolist() for rank in ranks] for ranks in derived.order]).encode())
    return digest.hexdigest()[:12]


def _out_width(derived: Derived, link: Link) -> int:
    assert link.unit is not None  # a layer is a link only where a stream begins
    return _channels(derived.units[link.unit].out_shape)


def _channels(shape: Sequence[int]) -> int:
    return shape[0] if len(shape) == 3 else shape[-1]
