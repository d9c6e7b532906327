"""The lines that a run and `nas-kd describe` begin with: what a data set is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from nas_kd.data.dataset import Data
from nas_kd.data.duplicates import Equal

SHOWN = 10  # classes, sizes and reasons that a line names


def summary(data: Data, origin: str) -> Iterator[str]:
    """Word what a data set is, a line each.

    Args:
        origin: what the user named.
    """
    outputs = {
        "classes": f"{data.num_classes} classes",
        "multilabel": f"{data.num_classes} labels of 0 and 1 {data.spoken('an image')}",
        "regression": f"{data.num_classes} numbers {data.spoken('an image')}",
    }[data.kind]
    shape = f"{data.in_chans} x {data.resolution} x {data.resolution}"
    noun = data.spoken("images")
    if data.tokens is not None:
        kind = "pairs of texts" if data.tokens.pairs else "texts"
        shape = f"{kind} of {data.resolution} tokens ({100 * data.tokens.cut:.1f} % are longer and were cut)"
    splits = ", ".join(f"{split.name} {len(split)}" for split in data.splits)
    yield f"data: {origin}, {outputs}, {shape}; {noun}: {splits}"
    names = data.classes[:SHOWN]
    if data.kind == "classes":
        sizes = [np.bincount(split.labels.numpy(), minlength=data.num_classes) for split in data.splits]
        each = [f"{name} {'/'.join(str(size[c]) for size in sizes)}" for c, name in enumerate(names)]
        yield f"data: {noun} a class (train/rate/select/test): {_some(each, data.num_classes)}"
    else:
        yield f"data: {data.kind} of {_some(names, data.num_classes)}"
    found = data.found
    if found.sizes:
        sizes_ = [f"{h} x {w}{_times(n)}" for (h, w), n in found.sizes[:SHOWN]]
        modes = ", ".join(f"{n} {mode}" for mode, n in found.modes)
        traits = "".join(f"; {count} {trait}" for trait, count in found.traits)
        yield f"data: images found: {modes}; pixels {_some(sizes_, len(found.sizes))}{traits}"
    yield from (f"data: {note}" for note in found.notes)
    if found.ignored:
        reasons = [f"{count} {reason}" for reason, count in found.ignored]
        yield f"data: files ignored: {_some(reasons[:SHOWN], len(reasons))}"
    if data.unreadable:
        lost = ", ".join(name for name, _ in data.unreadable[:5]) + (" ..." if len(data.unreadable) > 5 else "")
        yield f"data: {len(data.unreadable)} unreadable images are left out, see data.csv: {lost}"
    yield from _equal(found.equal, noun, "have the pixels of" if data.tokens is None else "are equal to")


def _equal(equal: Equal, noun: str, same: str) -> Iterator[str]:
    if not equal.images:
        return
    line = f"data: {equal.images} {noun} {same} another"
    parts = [
        f"{count} {words}"
        for count, words in (
            (equal.moved, "were put into the split of their twin"),
            (equal.apart, "have a twin in another split"),
            (equal.labels, "have a twin of another label"),
        )
        if count
    ]
    yield f"{line}: {', '.join(parts)}" if parts else f"{line}, each in one split with it"


def _some(words: Sequence[str], total: int) -> str:
    return ", ".join(words) + (f" ... ({total} in all)" if total > len(words) else "")


def _times(count: int) -> str:
    return f" ({count})" if count > 1 else ""
