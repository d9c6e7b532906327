"""The latency of every row of the rating tables, as a column that adds up, and the error of the sums."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch

from nas_kd.cost.layers import LayerKey, layer_key, layer_times
from nas_kd.errors import SettingError
from nas_kd.export.onnx_timed import ONNX, latency_in, onnx_layer_times
from nas_kd.runtime.seeds import seed_for
from nas_kd.space import Arch, ElasticSpace
from nas_kd.space.rows import arch_of_rows

WHOLE = 20  # whole networks that sums are compared with


class RowTimes(NamedTuple):
    """Latencies of rows.

    Args:
        rows: milliseconds of each row by its label, one series per stage; the stem counts to the first stage and the
            head to the last; infinity where no network has the row, as no row of another stage has its width.
        whole: one row per whole network: key, macs, predicted_ms (the sum), and what `latency_in` returned.
        error: median of the sums' relative errors.
        worst: the largest of them.
    """

    rows: list[pd.Series]
    whole: pd.DataFrame
    error: float
    worst: float


def latency_rows(
    space: ElasticSpace,
    tables: Sequence[pd.DataFrame],
    *,
    resolution: int,
    in_chans: int,
    num_classes: int,
    batch_size: int = 1,
    device: torch.device | str = "cpu",
    runtime: str = "torch",
    seed: int = 0,
    whole: int = WHOLE,
) -> RowTimes:
    """Time all rows by timing their layers, each distinct one inside a network that has it.

    Args:
        tables: one rating table per stage.
        resolution: input size of the tables.
        in_chans: channels of the image.
        num_classes: classes of the head.
        batch_size: images a pass.
        device: where to run.
        runtime: torch, or onnxruntime on this CPU.
        seed: seed of what completes a network.
        whole: whole networks, drawn at random, that the sums are compared with.

    Returns:
        The rows' latencies, and the comparison.

    Raises:
        SettingError: no rows of all stages fit together.
    """
    rng = np.random.default_rng(seed_for(seed, "latency rows"))
    given = tables
    tables = _joined(given)
    if not len(tables[0]):
        expected = "tables with a chain in which in_width equals the previous out_width"
        raise SettingError("tables", f"{len(given)} stages", expected, "rate every stage at all its input widths")

    def network(stage: int, label: object) -> Arch:
        return arch_of_rows(space, tables, _completed(tables, stage, label, rng), resolution)

    charged = [
        dict(zip(table.index, _keys(space, stage, table, in_chans, num_classes), strict=True))
        for stage, table in enumerate(tables)
    ]
    covered: set[LayerKey] = set()
    networks = []
    for stage, needed in enumerate(charged):
        for label, keys in needed.items():
            if not covered.issuperset(keys):
                networks.append(space.layers(network(stage, label), num_classes, in_chans))
                covered.update(map(layer_key, networks[-1]))
    known: dict[LayerKey, float] = {}
    if runtime == ONNX:
        known = onnx_layer_times(networks, space.kinds, resolution, in_chans, batch_size=batch_size)
    else:
        for layers in networks:
            found = layer_times(layers, space.kinds, resolution, in_chans, batch_size=batch_size, device=device)
            known = found | known  # the first time of a layer stays
    rows = []
    for stage, needed in enumerate(charged):
        total = {label: sum(known[key] for key in keys) for label, keys in needed.items()}
        times = pd.Series(total, dtype=float, name="latency_ms")
        rows.append(times.reindex(given[stage].index, fill_value=np.inf))
    compared = []
    for _ in range(whole):
        labels = _completed(tables, 0, tables[0].index[int(rng.integers(len(tables[0])))], rng)
        arch = arch_of_rows(space, tables, labels, resolution)
        built = space.build(arch, num_classes, in_chans)
        measured = latency_in(runtime, built, resolution, in_chans, batch_size=batch_size, device=device)
        predicted = sum(float(times[label]) for times, label in zip(rows, labels, strict=True))
        compared.append({"key": arch.key, "predicted_ms": predicted, **measured._asdict()})
    frame = pd.DataFrame(compared)
    errors = (frame["predicted_ms"] / frame["median_ms"] - 1).abs()
    return RowTimes(rows, frame, float(errors.median()), float(errors.max()))


def _keys(
    space: ElasticSpace, stage: int, table: pd.DataFrame, in_chans: int, num_classes: int
) -> Iterator[list[LayerKey]]:
    """Yield the layers that each row of a stage is charged with."""
    candidates = space.stages[stage].candidates()
    described = space.stages[stage]
    for row in table.to_dict("records"):
        candidate = candidates[int(row["candidate"])]
        width = int(row["in_width"])
        layers = [layer | {"stage": stage} for layer in described.resolve(candidate, width)]
        if stage == 0:
            setting = space.stem.choices()[int(row.get("stem", 0))]
            layers.insert(0, space.stem.resolve(setting, in_chans) | {"stage": None})
        if stage == len(space.stages) - 1:
            head = space.head.choices()[int(row.get("head", 0))]
            layers.append(space.head.resolve(head, candidate.width, num_classes) | {"stage": None})
        yield [layer_key(layer) for layer in layers]


def _joined(tables: Sequence[pd.DataFrame]) -> list[pd.DataFrame]:
    """Keep the rows that some network has: those that a chain of equal widths leads to, and on to the end."""
    kept = list(tables)
    for at in range(1, len(kept)):
        kept[at] = kept[at][kept[at]["in_width"].isin(kept[at - 1]["out_width"])]
    for at in range(len(kept) - 2, -1, -1):
        kept[at] = kept[at][kept[at]["out_width"].isin(kept[at + 1]["in_width"])]
    return kept


def _completed(tables: Sequence[pd.DataFrame], stage: int, label: object, rng: np.random.Generator) -> list[object]:
    """Draw rows for the other stages that a row can be in one network with."""
    labels: dict[int, object] = {stage: label}
    steps = [(s, s - 1, "in_width", "out_width") for s in range(stage + 1, len(tables))]
    steps += [(s, s + 1, "out_width", "in_width") for s in range(stage - 1, -1, -1)]
    for at, beside, mine, theirs in steps:
        width = tables[beside][theirs].loc[labels[beside]]  # type: ignore[call-overload]  # any label
        fits = tables[at].index[tables[at][mine] == width]
        labels[at] = fits[int(rng.integers(len(fits)))]
    return [labels[at] for at in range(len(tables))]
