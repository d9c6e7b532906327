"""Claim: sharing weights costs next to nothing against the same networks standing alone.

Measured, always both sides in turn in one process, medians and the median of the paired ratios, without an
optimiser, with equal memory format (channels_last) and threads:
  sandwich step      forward + backward of largest, smallest and two random subnets with in-place distillation,
                     against the same four extracted networks with the same losses, one after the other;
  subnet forward     in evaluation mode with calibrated statistics, against the extracted network, for the
                     largest, the smallest and a random subnet;
  closed-form cost   codes a second, once the look-up tables of a shape stand (their making is shown apart);
  calibration        of 16 archs in one pass, against 16 passes of one arch.
Numbers are printed and never asserted: bars are 1.05, 1.05, 100,000 codes a second, and 1.

Hardware: one thread on 2 cores of an AMD EPYC shared with other work (load 5), torch 2.15: trust ratios only.
Seeds: weights 0, archs 0 .. 31, images 0.
Command: OMP_NUM_THREADS=1 python experiments/benchmarks/supernet.py --space resnet_cifar
Numbers: resnet_cifar, batch 64, 40 repeats: step 1.010 (493 against 488 ms); forward largest 1.014, smallest
0.985, random 0.981; calibration 0.949; 10.2 million codes a second (tables 0.41 s). mobilenet_cifar, 6 repeats:
step 1.071; forward 1.034, 1.073, 1.029. digits, 150 repeats: step 1.011; forward 1.012, 1.076, 1.062: its layers
take 0.3 ms each, where the Python of cutting slices shows; calibration 1.045; 5.1 million codes a second.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from statistics import median
from time import perf_counter

import numpy as np
import torch
from torch import Tensor, nn

import nas_kd
from nas_kd.distill import Classification
from nas_kd.losses import adaptive_alpha_divergence
from nas_kd.train.sandwich import sandwich_step

TASK = Classification(smoothing=0.1)


def compare(name: str, ours: Callable[[], None], theirs: Callable[[], None], repeats: int, warmup: int = 2) -> None:
    """Time two functions in turn, the order swapped every time, and print medians and the ratio's median."""
    a, b = [], []
    for number in range(warmup + repeats):
        pair = [(ours, a), (theirs, b)]
        for function, times in pair if number % 2 else reversed(pair):
            began = perf_counter()
            function()
            if number >= warmup:
                times.append(perf_counter() - began)
    ratio = median(x / y for x, y in zip(a, b, strict=True))
    print(f"{name:28} {1e3 * median(a):9.2f} ms {1e3 * median(b):9.2f} ms   ratio {ratio:.3f}", flush=True)


def sandwich(net: nas_kd.Supernet, x: Tensor, y: Tensor, repeats: int) -> None:
    """Compare a step of the supernet with the four networks it trains."""
    net.train()
    space = net.space
    archs = [space.largest(), space.smallest(), space.sample(0), space.sample(1)]
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
    named = {"largest": net.space.largest(), "smallest": net.space.smallest(), "random": net.space.sample(0)}
    norms = nas_kd.calibrate(net, [x], list(named.values()))
    for (name, arch), norm in zip(named.items(), norms, strict=True):
        student: nn.Module = net.extract(arch, norm=norm).to(memory_format=torch.channels_last)
        assert torch.allclose(student(x), net(x, arch, norm), atol=1e-5)
        compare(
            f"forward, {name}",
            lambda arch=arch, norm=norm: net(x, arch, norm),  # type: ignore[misc]
            lambda student=student: student(x),  # type: ignore[misc]
            repeats,
        )


def calibration(net: nas_kd.Supernet, x: Tensor, repeats: int) -> None:
    """Compare one pass for 16 archs with 16 passes for one."""
    archs = [net.space.sample(seed) for seed in range(16)]
    batches = [x, x.flip(0)]

    def one_by_one() -> None:
        for arch in archs:
            nas_kd.calibrate(net, batches, [arch])

    compare("calibration of 16", lambda: nas_kd.calibrate(net, batches, archs), one_by_one, max(3, repeats // 4), 1)


def cost(space: nas_kd.space.ElasticSpace, repeats: int) -> None:
    """Print how many archs a second the closed form counts."""
    sizes = [stage.size for stage in space.stages]
    codes = np.random.default_rng(0).integers(0, sizes, (100_000, len(sizes)))
    began = perf_counter()
    space.costs(codes[:1], num_classes=10)
    tables, times = perf_counter() - began, []
    for _ in range(repeats):
        began = perf_counter()
        space.costs(codes, num_classes=10)
        times.append(perf_counter() - began)
    rate = len(codes) / median(times)
    print(f"{'closed-form cost':28} {rate:12,.0f} codes a second   tables once {tables:.2f} s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--space", default="resnet_cifar")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=20)
    settings = parser.parse_args()
    space = nas_kd.load_space(settings.space)
    torch.manual_seed(0)
    net = nas_kd.Supernet(space, num_classes=10).to(memory_format=torch.channels_last)
    x = torch.randn(settings.batch_size, 3, space.resolution, space.resolution)
    x, y = x.to(memory_format=torch.channels_last), torch.arange(settings.batch_size) % 10
    print(f"{space.name}, batch {settings.batch_size}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    print(f"{'':28} {'supernet':>12} {'static':>12}")
    sandwich(net, x, y, settings.repeats)
    forward(net, x, settings.repeats)
    calibration(net, x, settings.repeats)
    cost(space, settings.repeats)


if __name__ == "__main__":
    main()
