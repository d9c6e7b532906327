"""Claim: what a run costs grows with archs, stages, images and workers as designed; so an ImageNet run can be told.

Hardware: 2 cores of an AMD EPYC (busy); one thread, in seconds of the processor's time.
Seeds: 0. Command: OMP_NUM_THREADS=1 python experiments/scaling.py, some minutes.
Result: experiments/scaling.md. Times grow straight with images, stages and batch; a MAC of a supernet costs what it
says there in MACs of a teacher.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch
from imagenet import imagenet
from stand_in import HELP, QUICK

import nas_kd
from nas_kd.blocks import BasicStage, ConvStem, LinearHead
from nas_kd.data import Data, load_data
from nas_kd.rate.subnet import SubnetScorer
from nas_kd.runs.leases import Lease
from nas_kd.runtime.device import Runtime
from nas_kd.searcher.budget import cost_settings
from nas_kd.searcher.optuna import refine
from nas_kd.searcher.shared import WorkerGroup
from nas_kd.solve import exact_front
from nas_kd.space import ElasticSpace
from nas_kd.teacher import Teacher, ViewCache, load_teacher


def processor(work: Callable[[], object]) -> float:
    """Return the seconds of processor time that some work takes."""
    begun = time.process_time()
    work()
    return time.process_time() - begun


def images_of(count: int) -> Data:
    """Make random images of 32 px in ten classes, ``count`` of them for training."""
    generator = torch.Generator().manual_seed(0)
    kept = count + 320  # without the test images
    total = kept + 64
    x = torch.randint(0, 256, (total, 3, 32, 32), dtype=torch.uint8, generator=generator)
    y = torch.arange(total) % 10
    return load_data((x[:kept], y[:kept]), test=(x[kept:], y[kept:]), rate=256, select=64, views=2)


def staged(stages: int, mids: Sequence[int] = (8, 16), layers: int = 2) -> ElasticSpace:
    """Make a space of equal stages: each layer one of ``mids``, up to ``layers`` layers, no change of width or size."""
    stage = BasicStage(widths=(16,), depths=(layers,), mids=tuple(mids), stride=1)
    first = BasicStage(widths=(16,), depths=(layers,), mids=tuple(mids), stride=2)
    return ElasticSpace(
        name=f"{stages} stages",
        stem=ConvStem(width=16),
        stages=(first, *[stage] * (stages - 1)),
        head=LinearHead(),
        resolution=32,
    )


def saved_bytes(net: nas_kd.Supernet, x: torch.Tensor, arch: nas_kd.Arch) -> int:
    """Return the bytes that a forward keeps for its backward, besides the weights."""
    kept: dict[int, int] = {}
    own = {parameter.untyped_storage().data_ptr() for parameter in net.parameters()}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        out = net(x, arch)
    total = sum(kept.values())
    del out
    return total


@dataclass(frozen=True)
class Sizes:
    """How much is measured: images, archs, steps, trials, workers."""

    images: tuple[int, ...] = (128, 256, 512)
    archs: int = 12
    steps: int = 5
    proposals: int = 100
    workers: tuple[int, ...] = (1, 2, 4)


TINY = Sizes((64, 128), 2, 1, 20, (1,))


def by_images(teacher: Teacher, sizes: Sizes) -> tuple[list[str], float, float]:
    """Measure the teacher's answers and an epoch of the supernet; gives the page's lines and two work factors."""
    space = nas_kd.load_space("resnet_cifar")
    settings = cost_settings(space, images_of(64))
    macs = [space.cost(arch, **settings).macs for arch in (space.largest(), space.smallest())]
    drawn = [space.cost(space.sample(seed), **settings).macs for seed in range(200)]
    sandwich = 3 * (macs[0] + macs[1] + 2 * sum(drawn) / len(drawn))  # forward and backward of four subnets
    names = ("training images", "teacher's answers, 2 views", "a supernet epoch, sandwich of 4", "a blockwise epoch")
    lines = [f"| {' | '.join(names)} |", "|---|---|---|---|"]
    counts = sizes.images
    totals = []
    for count in counts:
        data = images_of(count)
        net = nas_kd.Supernet(space, num_classes=10, seed=0)
        with tempfile.TemporaryDirectory() as folder:
            teacher.bind(data)
            asked = processor(lambda data=data, folder=folder: ViewCache.open(folder, teacher, data, epochs=2))
        trained = processor(lambda net=net, data=data: nas_kd.train_supernet(net, data, epochs=1, batch_size=64))
        few = nas_kd.Supernet(staged(3), num_classes=10, seed=0)  # 3 stages of 4 candidates: rating takes no time
        rated = processor(
            lambda few=few, data=data: nas_kd.rate_blockwise(
                few, teacher, data, epochs=1, batch_size=64, rate_images=2, calibration_images=2
            )
        )
        totals.append((asked, trained, rated))
        lines.append(f"| {count} | " + " | ".join(f"{cell:.2f} s" for cell in totals[-1]) + " |")
    more = [(last - first) / (counts[-1] - counts[0]) for first, last in zip(totals[0], totals[-1], strict=True)]
    lines.append("| each more | " + " | ".join(f"{1000 * cell:.2f} ms" for cell in more) + " |")
    start = [first - counts[0] * each for first, each in zip(totals[0], more, strict=True)]
    lines.append("| for none | " + " | ".join(f"{cell:.2f} s" for cell in start) + " |")
    return lines, more[0] / 2 / RESNET20, more[1] / sandwich


RESNET20 = 40.8e6  # multiply-adds of the teacher at 32 px


def by_archs(teacher: Teacher, sizes: Sizes) -> list[str]:
    """Measure rating, exact search and scoring against the number of candidates."""
    data = images_of(128)
    lines = ["| candidates a stage | rating 3 stages, 64 images | exact front |", "|---|---|---|"]
    for mids, layers in (((8, 16), 2), ((8, 16), 4), ((8, 12, 16), 4)):
        space = staged(3, mids, layers)
        count = len(space.stages[0].candidates())
        net = nas_kd.Supernet(space, num_classes=10, seed=0)
        settings = {"epochs": 1, "batch_size": 64, "train": False, "calibration_images": 32}

        def rating(images: int, net: nas_kd.Supernet = net) -> list:
            return nas_kd.rate_blockwise(net, teacher, data, rate_images=images, **settings)  # noqa: B023

        begun = processor(lambda: rating(2))
        tables = []
        seconds = processor(lambda tables=tables: tables.extend(rating(66))) - begun
        front = median(processor(lambda tables=tables: exact_front(tables, budget="macs")) for _ in range(3))
        lines.append(f"| {count} | {1000 * max(seconds, 0) / count / 3:.2f} ms a candidate | {1000 * front:.1f} ms |")
    space = nas_kd.load_space("resnet_cifar")
    net = nas_kd.Supernet(space, num_classes=10, seed=0)
    logits = torch.zeros(len(data.rate), 10)
    scorer = SubnetScorer(
        net, data, logits, task=nas_kd.Classification(), calibration_images=64, runtime=Runtime("cpu")
    )
    archs = [space.sample(seed) for seed in range(sizes.archs)]
    each = processor(lambda: [scorer(arch) for arch in archs]) / len(archs)
    passed = 64 + len(data.rate)
    lines += ["", f"A whole subnet's score: {1000 * each:.0f} ms, {1e3 * each / passed:.2f} ms an image of {passed}."]
    return lines


def by_stages(sizes: Sizes) -> list[str]:
    """Measure a training step and its memory against the number of stages, and against the batch."""
    lines = ["| stages | forward and backward of the largest | kept for backward |", "|---|---|---|"]
    for stages, batch in ((2, 32), (4, 32), (8, 32), (4, 8), (4, 128)):
        space = staged(stages)
        net = nas_kd.Supernet(space, num_classes=10, seed=0)
        x = torch.randn(batch, 3, 32, 32)

        def step(net: nas_kd.Supernet = net, x: torch.Tensor = x, space: ElasticSpace = space) -> None:
            net(x, space.largest()).sum().backward()

        step()
        seconds = median(processor(step) for _ in range(sizes.steps)) / batch
        kept = saved_bytes(net, x, space.largest()) / batch
        lines.append(f"| {stages}, batch {batch} | {1000 * seconds:.2f} ms an image | {kept / 1e6:.2f} MB an image |")
    return lines


SIZES = [30] * 6


def score(point: tuple[int, ...]) -> dict[str, float]:
    """Score a point; waiting takes the place of a GPU's work."""
    time.sleep(WAIT)
    return {"kl": sum((at / 30 - 0.4) ** 2 for at in point)}


WAIT = 0.25


def helper(folder: str) -> None:
    """Help the search in a folder."""
    refine(SIZES, score, trials=WORKED, group=WorkerGroup(Path(folder), joins=True))


WORKED = 48


def by_workers(sizes: Sizes) -> tuple[list[str], float]:
    """Measure what sharing costs a trial and how trials a second grow with workers; the last share too."""
    count = sizes.proposals
    points = {"kl": 0.0}
    with tempfile.TemporaryDirectory() as name:
        alone = processor(lambda: refine(SIZES, lambda p: points, trials=count, sampler="tpe")) / count
        group = WorkerGroup(Path(name), patience=1e6)
        group.leases.put(Lease.own())  # somebody who never does anything: the study is shared from the first trial on
        shared = processor(lambda: refine(SIZES, lambda p: points, trials=count, sampler="tpe", group=group)) / count
    lines = [
        f"A proposal (TPE, 6 stages, {count} trials) takes {1000 * alone:.0f} ms of one processor alone and"
        f" {1000 * shared:.0f} ms shared through the journal. Only that is done one at a time.",
        "",
        f"| workers | trials a second, each waiting {WAIT} s | of the ideal |",
        "|---|---|---|",
    ]
    context = multiprocessing.get_context("spawn")
    for workers in sizes.workers:
        with tempfile.TemporaryDirectory() as name:
            group = WorkerGroup(Path(name))
            helpers = [context.Process(target=helper, args=(name,)) for _ in range(workers - 1)]
            stamps: list[float] = []
            for process in helpers:
                process.start()
            while len(group.leases.rows()) < workers - 1:
                time.sleep(0.1)
            refine(
                SIZES, score, trials=WORKED, group=group, record=lambda row, stamps=stamps: stamps.append(time.time())
            )
            for process in helpers:
                process.join()
        skipped = 2 * workers  # the first ones wait for who comes
        speed = (len(stamps) - skipped) / (stamps[-1] - stamps[skipped - 1])
        share = speed * WAIT / workers
        lines.append(f"| {workers} | {speed:.1f} | {share:.0%} |")
    return lines, share


def main() -> None:
    """Measure, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help=HELP)
    quick = parser.parse_args().quick
    sizes, out = (TINY, QUICK / "scaling.md") if quick else (Sizes(), Path(__file__).with_suffix(".md"))
    torch.set_num_threads(1)
    torch.manual_seed(0)
    teacher = load_teacher("cifar_resnet20", num_classes=10)
    images, unit, step = by_images(teacher, sizes)
    workers, share = by_workers(sizes)
    page = [
        "# What grows",
        "",
        "Written by `OMP_NUM_THREADS=1 python experiments/scaling.py` on two busy cores of an AMD EPYC, one thread;"
        " milliseconds are processor time. Space `resnet_cifar`, teacher `cifar_resnet20`, 32 px, unless it says"
        " otherwise.",
        "",
        "## With images: straight",
        *images,
        "",
        "A straight line, with a start (`for none`) that an ImageNet run does not notice (blockwise: 3 stages"
        " of 4 candidates). Memory is that of a batch,"
        " and of the images themselves up to `data.memory_gib`.",
        "",
        "## With archs",
        *by_archs(teacher, sizes),
        "",
        "A candidate of a larger stage costs less, because candidates share the beginnings of their paths. The exact"
        " front does not notice such numbers (10,000 a stage: `exact_front.py`).",
        "",
        "## With stages and batch: straight",
        *by_stages(sizes),
        "",
        "The subnets of a sandwich step run one after the other: a step keeps the memory of the largest, however many"
        " archs the space has.",
        "",
        "## With workers",
        *workers,
        "",
        "On a busy machine; the ideal is one trial a worker in each wait. A trial that takes a second is shared far"
        " better than these.",
        "",
        "## ImageNet on 8 GPUs: told from that, not measured",
        *imagenet(unit, step, share),
        "",
        "No GPU was at hand: the two rates a GPU and the images decoded a second are assumptions, and every hour above"
        " is as good as they are. With half the rate it is twice the hours.",
        "",
    ]
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text("\n".join(page))
    print("\n".join(page))


if __name__ == "__main__":
    main()
