"""Claim: sharing weights costs next to nothing against the same networks standing alone.

Always both sides in turn in one process, the order swapped every time; medians, and the median of the paired
ratios; without an optimiser, with equal memory format (channels_last), threads and allocator settings:
  sandwich step      forward + backward of largest, smallest and two random subnets with in-place distillation,
                     against the same four extracted networks with the same losses, one after the other;
  forward            of a subnet in evaluation mode with calibrated statistics, against the extracted network;
  Python a layer     the same on one image whose last feature map is a pixel: what slicing costs a layer;
  calibration        of 16 archs in one call, against 16 calls of one arch, over two batches in memory; archs
                     at random, and one arch with 15 that differ from it in one stage, as a search makes them;
  closed-form cost   codes a second, once the look-up tables of a shape stand (their making is shown apart);
  GPU                images a second of the sandwich step, eager float32 against bfloat16 with the two fixed
                     subnets compiled, and memory.
Numbers are printed and never asserted; the bars are 1.05, 1.05, none, 0.7, 100,000 codes a second, and 3.
With one thread the clock is the processor time of this process, so that other work on the machine counts less.

Hardware: one thread on 2 cores of an AMD EPYC, shared with other work (load 6 to 9), torch 2.15: trust ratios only.
Seeds: weights 0, archs 0 .. 15, images 0.
Command: OMP_NUM_THREADS=1 python experiments/benchmarks/supernet.py --space S --batch-size B --repeats R
         and --resolution 192 for attentive_nas; calibration there at 96 px and batch 16
Numbers (ms are the supernet's and the static networks'):
                    resnet_cifar 32    resnet_cifar 128   mobilenet_cifar 32  mobilenet_cifar 128  attentive_nas 32
  sandwich step      76.6   75.5 1.007  257    256  0.996  1059   1069  0.994  3907   3974  0.986   7850   7730  1.000
  forward, largest   7.51   7.37 1.022  23.9   23.7 0.998   106    105  1.027   382    380  1.005    751    741  1.011
  forward, smallest  2.28   2.14 1.082  7.93   7.54 1.040  11.2   10.5  1.058  41.8   39.0  1.051    226    219  0.989
  forward, random    3.65   3.58 1.027  12.2   12.1 1.010  50.1   50.5  1.014   185    185  1.018    421    405  1.048
  Python a layer       12 us                15 us            26 us                                    117 us
  calibration, random              0.622              0.610               0.948                                0.921
  calibration, neighbours          0.407              0.383               0.419                                0.567
  repeats               60                 30                 12                   6                    5
Above the bars are the smallest subnets of both CIFAR spaces (1.04 to 1.08 where 1.05 is wanted: slices cost 10 to
30 us a layer, most of it copies of weights cut in both dimensions), and the calibration of random archs of
inverted residuals: archs share what runs before they differ, and these differ in their first layer, in one of
36 ways in mobilenet_cifar (attentive_nas at 192 px, batch 8: 0.984 and 0.536). attentive_nas at batch 128 needs
more memory than the machine has (23 GB).
Closed-form cost: 6 to 16 million codes a second. On a GPU: not measured.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from statistics import median
from time import perf_counter, process_time
from typing import Any

import numpy as np
import torch
from torch import Tensor

import nas_kd
from nas_kd.distill import Classification
from nas_kd.losses import adaptive_alpha_divergence
from nas_kd.runtime.device import reuse_memory
from nas_kd.space import ElasticSpace
from nas_kd.train.compiled import compiled_forward
from nas_kd.train.rules import sandwich_targets
from nas_kd.train.sandwich import Images, sandwich_step, teach

TASK = Classification(smoothing=0.1)
PARTS = ("sandwich", "forward", "layer", "calibration", "cost", "gpu")


def clock() -> float:
    """Return seconds: of the processor where one thread does all the work, else of the wall."""
    return process_time() if torch.get_num_threads() == 1 else perf_counter()


def in_turn(
    ours: Callable[[], Any], theirs: Callable[[], Any], repeats: int, warmup: int = 2
) -> tuple[list[float], list[float]]:
    """Time two functions in turn, the order swapped every time, in seconds."""
    a: list[float] = []
    b: list[float] = []
    for number in range(warmup + repeats):
        pair = [(ours, a), (theirs, b)]
        for function, times in pair if number % 2 else reversed(pair):
            began = clock()
            function()
            if number >= warmup:
                times.append(clock() - began)
    return a, b


def compare(name: str, ours: Callable[[], Any], theirs: Callable[[], Any], repeats: int, warmup: int = 2) -> None:
    """Print the medians of two functions and the median of their ratios."""
    a, b = in_turn(ours, theirs, repeats, warmup)
    ratio = median(x / y for x, y in zip(a, b, strict=True))
    print(f"{name:28} {1e3 * median(a):9.2f} ms {1e3 * median(b):9.2f} ms   ratio {ratio:.3f}", flush=True)


def some_archs(space: ElasticSpace, size: int) -> dict[str, nas_kd.Arch]:
    """Return archs that take images of that size, where the space chooses it, so that none is resized."""
    archs = {"largest": space.largest(), "smallest": space.smallest(), "random": space.sample(0)}
    archs["random 2"] = space.sample(1)
    if space.resolutions:
        archs = {name: replace(arch, resolution=size) for name, arch in archs.items()}
    return archs


def sandwich(net: nas_kd.Supernet, x: Tensor, y: Tensor, repeats: int) -> None:
    """Compare a step of the supernet with the four networks it trains."""
    net.train()
    archs = list(some_archs(net.space, x.shape[-1]).values())
    students = [net.extract(arch).to(memory_format=torch.channels_last).train() for arch in archs]

    def ours() -> None:
        net.zero_grad(set_to_none=True)
        sandwich_step(net, x, y, archs, task=TASK, divergence=adaptive_alpha_divergence)

    def theirs() -> None:
        soft = None
        for student in students:
            student.zero_grad(set_to_none=True)
            logits = student(x)
            loss = TASK.loss(logits, y) if soft is None else adaptive_alpha_divergence(logits, soft)
            loss.backward()
            soft = logits.detach() if soft is None else soft

    compare("sandwich step", ours, theirs, repeats)


@torch.no_grad()
def forward(net: nas_kd.Supernet, x: Tensor, repeats: int) -> None:
    """Compare the forward pass of a subnet with that of the extracted network."""
    net.eval()
    archs = some_archs(net.space, x.shape[-1])
    for (name, arch), norm in zip(archs.items(), nas_kd.calibrate(net, [x], list(archs.values())), strict=True):
        student = net.extract(arch, norm=norm).to(memory_format=torch.channels_last)
        assert torch.allclose(student(x), net(x, arch, norm), atol=1e-5)
        compare(f"forward, {name}", partial(net, x, arch, norm), partial(student, x), repeats)


@torch.no_grad()
def layer(net: nas_kd.Supernet, x: Tensor, repeats: int) -> None:
    """Print what a layer of a subnet costs above the extracted network's on the smallest input."""
    net.eval()
    size = net.space.stem.stride
    for stage in net.space.stages:
        size *= stage.stride
    arch = some_archs(net.space, x.shape[-1])["random"]
    (norm,) = nas_kd.calibrate(net, [x], [arch])
    student = net.extract(arch, norm=norm).to(memory_format=torch.channels_last)
    pixel = x[:1, :, :size, :size].contiguous(memory_format=torch.channels_last)
    a, b = in_turn(partial(net, pixel, arch, norm), partial(student, pixel), 20 * repeats, 20)
    layers = sum(candidate.depth for candidate in arch.stages)
    extra = 1e6 * (median(a) - median(b)) / layers
    print(f"{'Python a layer, random':28} {extra:9.1f} us of {1e6 * median(b) / layers:.1f}", flush=True)


def calibration(net: nas_kd.Supernet, x: Tensor, repeats: int) -> None:
    """Compare one pass for 16 archs with 16 passes for one."""
    batches = [x, x.flip(0)]
    random = [net.space.sample(seed) for seed in range(16)]
    for name, archs in (("random", random), ("neighbours", neighbours(random[0], random[1:]))):

        def one_by_one(archs: Sequence[nas_kd.Arch] = archs) -> None:
            for arch in archs:
                nas_kd.calibrate(net, batches, [arch])

        together = partial(nas_kd.calibrate, net, batches, archs)
        compare(f"calibration of 16, {name}", together, one_by_one, max(3, repeats // 4), 1)


def neighbours(arch: nas_kd.Arch, others: Sequence[nas_kd.Arch]) -> list[nas_kd.Arch]:
    """Return an arch, and it with one stage of each of the others in turn."""
    archs = [arch]
    for number, other in enumerate(others):
        place = number % len(arch.stages)
        stages = (*arch.stages[:place], other.stages[place], *arch.stages[place + 1 :])
        archs.append(replace(arch, stages=stages))
    return archs


def cost(space: ElasticSpace, resolution: int, repeats: int) -> None:
    """Print how many archs a second the closed form counts."""
    codes = space.encode([space.sample(seed) for seed in range(1000)])
    codes = codes[np.random.default_rng(0).integers(0, len(codes), 100_000)]
    began = perf_counter()
    space.costs(codes[:1], resolution=resolution, num_classes=10)
    tables = perf_counter() - began
    times = []
    for _ in range(repeats):
        began = clock()
        space.costs(codes, resolution=resolution, num_classes=10)
        times.append(clock() - began)
    rate = len(codes) / median(times)
    print(f"{'closed-form cost':28} {rate:12,.0f} codes a second   tables once {tables:.2f} s", flush=True)


def gpu(space: ElasticSpace, x: Tensor, y: Tensor, repeats: int) -> None:
    """Compare the plainest way to train on a GPU with the fastest."""
    if not torch.cuda.is_available():
        print("GPU                          not measured", flush=True)
        return
    archs = list(some_archs(space, x.shape[-1]).values())
    rates = {}
    for name, fast in (("eager float32", False), ("bfloat16, compiled ends", True)):
        memory_format = torch.channels_last if fast else torch.contiguous_format
        net = nas_kd.Supernet(space, num_classes=10).cuda().to(memory_format=memory_format)
        images = x.cuda().to(memory_format=memory_format)
        labels = y.cuda()
        run = compiled_forward(net) if fast else None
        torch.cuda.reset_peak_memory_stats()
        times = []
        for number in range(repeats + 5):
            torch.cuda.synchronize()
            began = perf_counter()
            net.zero_grad(set_to_none=True)
            context = torch.autocast("cuda", torch.bfloat16) if fast else nullcontext()
            teach(
                net,
                Images(images),
                labels,
                sandwich_targets(archs),
                task=TASK,
                divergence=adaptive_alpha_divergence,
                autocast=context,
                forward=run,
            )
            torch.cuda.synchronize()
            if number >= 5:  # the first ones compile
                times.append(perf_counter() - began)
        rates[fast] = len(x) / median(times)
        memory = torch.cuda.max_memory_allocated() / 2**30
        print(f"{'GPU, ' + name:28} {rates[fast]:9.0f} images/s, {memory:.1f} GiB", flush=True)
    print(f"{'GPU, best / eager float32':28} {rates[True] / rates[False]:9.2f} on {torch.cuda.get_device_name()}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--space", default="resnet_cifar")
    parser.add_argument("--resolution", type=int, help="input size in pixels; default: the space's")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--quick", action="store_true", help="digits, once, to see that it runs; times mean nothing")
    settings = parser.parse_args()
    if settings.quick:
        settings.space, settings.batch_size, settings.repeats = "digits", 4, 1
    reuse_memory()
    space = nas_kd.load_space(settings.space)
    size = settings.resolution or space.resolution
    torch.manual_seed(0)
    net = nas_kd.Supernet(space, num_classes=10).to(memory_format=torch.channels_last)
    x = torch.randn(settings.batch_size, 3, size, size).to(memory_format=torch.channels_last)
    y = torch.arange(settings.batch_size) % 10
    setting = f"{space.name}, {size} px, batch {settings.batch_size}, {settings.repeats} repeats"
    print(f"{setting}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    print(f"{'':28} {'supernet':>12} {'static':>12}")
    parts: dict[str, Callable[[], None]] = {
        "sandwich": lambda: sandwich(net, x, y, settings.repeats),
        "forward": lambda: forward(net, x, settings.repeats),
        "layer": lambda: layer(net, x, settings.repeats),
        "calibration": lambda: calibration(net, x, settings.repeats),
        "cost": lambda: cost(space, size, settings.repeats),
        "gpu": lambda: gpu(space, x, y, settings.repeats),
    }
    for part in settings.only:
        parts[part]()


if __name__ == "__main__":
    main()
