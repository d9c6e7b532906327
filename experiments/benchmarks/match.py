"""Claim: matching students to a teacher costs little: shared prefixes, one teacher forward, exact fronts in no time.

Hardware: 2 cores of an AMD EPYC (busy), one thread, one process; medians over alternating repeats.
Seeds: 0 (weights, images), table draws 0 .. 4. Command: OMP_NUM_THREADS=1 python experiments/benchmarks/match.py
Numbers: 1,554 layer evaluations of 5,184 (0.300); 3.9 x as many candidates a second as static networks; 1.00
teacher forwards an image for 3 stages of 4 paths, 0.00 with its features stored; exact fronts 10 ms (6 stages of
10,000) and 16 ms (12 of 1,000); two budgets by milp 243 ms.
"""

from __future__ import annotations

import argparse
from collections import Counter
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import numpy as np
import torch
from exact_front import make_tables, seconds

import nas_kd
import nas_kd.solve as solve
from nas_kd.blocks import BasicStage, ConvStem, LinearHead
from nas_kd.data import load_data
from nas_kd.rate.errors import NSR
from nas_kd.rate.features import gather
from nas_kd.rate.halving import count_evaluations, rate_stage
from nas_kd.runtime.device import Runtime
from nas_kd.space import ElasticSpace
from nas_kd.space.rows import rows_of
from nas_kd.teacher import Teacher, load_teacher
from nas_kd.train.stages import Blockwise

# the second stage has 4 layers of 6 choices: 1,296 candidates, 1,554 nodes of their tree, 5,184 layers path by path
SPACE = ElasticSpace(
    name="4 layers of 6 choices",
    stem=ConvStem(width=16),
    stages=(
        BasicStage(widths=(16,), depths=(1,), mids=(8, 16), stride=2),
        BasicStage(widths=(32,), depths=(4,), mids=(8, 12, 16, 20, 24, 32), stride=2),
        BasicStage(widths=(64,), depths=(1,), mids=(16, 32), stride=2),
    ),
    head=LinearHead(),
    resolution=32,
)
# images, images, candidates that are rated as static networks
CALIBRATION = 128
RATING = 256
STATIC = 24


def main() -> None:
    """Measure, print, and fail where a bar is missed; ``--quick`` asks for no times."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="once, to see that it runs; the times mean nothing")
    quick = parser.parse_args().quick
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(0, 256, (1000, 3, 32, 32), dtype=torch.uint8, generator=generator)
    data = load_data((x, torch.arange(1000) % 10), rate=300, select=50)
    teacher = load_teacher("cifar_resnet8", num_classes=10).bind(data)
    rating(data, teacher, quick)
    teacher_forwards(data, teacher)
    fronts(quick)


def rating(data: nas_kd.data.Data, teacher: Teacher, quick: bool) -> None:
    """Layer evaluations, and time against the same candidates as static networks."""
    net = nas_kd.Supernet(SPACE, num_classes=10)
    runtime = Runtime("cpu")
    model = Blockwise(net, teacher.match(SPACE, 32))
    images = 16 if quick else CALIBRATION
    calibration = gather(model, teacher, data.train.clean(images, limit=images), runtime)
    images = 16 if quick else RATING
    rated = gather(model, teacher, data.rate.clean(images, limit=images), runtime)
    rows = rows_of(SPACE, 1, in_chans=3, num_classes=10, resolution=32)
    static = 4 if quick else STATIC
    shares = []
    table = rows
    for _ in range(1 if quick else 3):
        began = perf_counter()
        table = rate_stage(model, 1, rows, calibration[1], rated[1], max_rows=10**6)
        together = (perf_counter() - began) / len(rows)
        picks = np.linspace(0, len(rows) - 1, static).astype(int)
        began = perf_counter()
        for pick in picks:
            score = as_static(net, model, int(pick), calibration[1], rated[1])
            assert abs(score - table["score"][pick]) < 1e-5
        shares.append((perf_counter() - began) / static / together)
    made, path_by_path = count_evaluations(SPACE, 1, table)
    print(f"layer evaluations: {made:,} of {path_by_path:,} path by path, {made / path_by_path:.3f} (bar 0.30)")
    print(f"rating against static networks: {median(shares):.1f} x as many candidates a second (bar 3)")
    assert made / path_by_path <= 0.30 and (quick or median(shares) >= 3)


@torch.no_grad()
def as_static(net: nas_kd.Supernet, model: Blockwise, pick: int, calibration: object, rated: object) -> float:
    """Rate one candidate as a user without a supernet would: a network of its own, calibrated, measured."""
    first, _, last = SPACE.largest().stages
    arch = SPACE.arch([first, SPACE.stages[1].candidates()[pick], last])
    stage = net.extract(arch).stages[1]
    nas_kd.calibrate(stage, [model.enter(1, calibration.inputs, 16)])
    stage.eval()
    _, pre = stage(model.enter(1, rated.inputs, 16))
    return float(NSR(model.leave(1, pre), rated.targets))


def teacher_forwards(data: nas_kd.data.Data, teacher: Teacher) -> None:
    """Count how often the teacher sees each training image in an epoch of blockwise training, also with its features
    on the disk."""
    counts: Counter[str] = Counter()
    forward = teacher.forward_stages

    def counted(images: torch.Tensor) -> object:
        counts["images"] += len(images)
        return forward(images)

    teacher.forward_stages = counted  # type: ignore[method-assign,assignment]
    net = nas_kd.Supernet(SPACE, num_classes=10)
    settings = {"epochs": 1, "batch_size": 50, "rate_images": 16, "calibration_images": 16, "paths": 4}
    held_out = 16 + 16  # calibration and rating, once each

    def asked(**more: Any) -> float:
        counts.clear()
        nas_kd.rate_blockwise(net, teacher, data, **settings, **more)
        return (counts["images"] - held_out) / (data.train.steps(50) * 50)

    trained = asked()
    with TemporaryDirectory() as run:
        asked(run=run, cache_gb=4.0, stage=1)  # stores the features of all views
        stored = asked(run=run, cache_gb=4.0, stage=2)
    del teacher.forward_stages
    print(f"teacher forwards per image, 3 stages x 4 paths a step: {trained:.2f} (bar 1), stored {stored:.2f} (bar 0)")
    assert trained == 1.0 and stored == 0.0


def fronts(quick: bool) -> None:
    """Exact fronts, and two budgets on the pruned lists."""
    many, few, draws = (200, 50, 1) if quick else (10_000, 1_000, 5)
    for stages, rows, bar in ((6, many, 0.1), (12, few, 0.05)):
        times = [seconds(solve.exact_front, make_tables(stages, rows, 1, seed))[0] for seed in range(draws)]
        print(f"exact front, {stages} stages of {rows:,}: {median(times) * 1e3:.1f} ms (bar {bar * 1e3:.0f})")
        assert quick or median(times) < bar
    times = []
    for seed in range(draws):
        tables = make_tables(6, many, 1, seed)
        front = solve.exact_front(tables)
        caps = {"macs": int(front["macs"].median()), "params": int(front["params"].quantile(0.4))}
        times.append(seconds(solve.best, tables, bounds=caps, repeats=3)[0])
    print(f"two budgets by milp, 6 stages of {many:,}: {median(times) * 1e3:.0f} ms (bar 1000)")
    assert quick or median(times) < 1.0


if __name__ == "__main__":
    main()
