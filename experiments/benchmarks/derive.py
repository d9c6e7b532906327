"""Claim: a teacher becomes a space in seconds, its cuts run as fast as networks of their own, and rating them is cheap.

Both sides in turn in one process, the order swapped every time; medians, and the median of the paired ratios; one
thread, whose clock is the processor time of this process, so that other work on the machine counts less:
  derive        tracing, ordering (l1) and counting resnet50's space at 224 px, with and without its streams;
  forward       of a subnet of ResNet-56 in evaluation mode against the extracted network, at 64 images, random archs
                of the inner channels and of the streams too;
  local         local errors of all 27 units and 5 choices of ResNet-56, against one pass of the teacher over the same
                images, as it runs them (in parts that fit the cache) and in one batch; and the MACs of the choices;
  replace-one   KL of each of these choices alone, against running each network whole;
  sandwich      forward and backward of the largest, the smallest and two random subnets of ResNet-56 with in-place
                distillation, against the same four extracted networks with the same losses;
  front         the exact front of 27 and of 54 units of five choices, and of ResNet-56 with its streams.
Numbers are printed and never asserted; the bars are 20 s, 1.05, 5, 0.6, 1.05 and 0.1 s.

Hardware: one thread on 2 cores of an AMD EPYC, shared with other work (load 2 to 5), torch 2.14.1: trust ratios only.
Seeds: weights 0, archs 0 .. 3, images 0.
Command: OMP_NUM_THREADS=1 python experiments/benchmarks/derive.py [--quick] [--only PART ...]
Numbers:
  derive         2.7 to 3.4 s, with streams 3.0 to 4.3 s
  forward        inner channels: largest 0.998 and 1.007 in two runs, random 1.012 and 1.038, smallest 0.955 and 1.082
                 (6.7 against 6.3 ms); streams too: largest 1.006, smallest 1.103 (4.5 against 4.1 ms)
  local          4.76 to 4.84 with 128 images, 5.2 with 64; the choices are 1.49 of the teacher's MACs, so 2.49 in all:
                 convolutions of few channels do less a second, and batch norms take the batch's statistics
  replace-one    0.548 with 64 images (11.6 against 21.1 s)
  sandwich       1.008 and 1.034 in two runs, with streams 1.013 and 1.018
  front          27 units 19 ms, 54 units 33 ms, with streams 28 ms
Above the bar is the forward of the smallest networks: taking slices costs 0.3 to 0.4 ms a batch.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from statistics import median
from time import process_time
from typing import Any

import numpy as np
import pandas as pd
import timm
import torch
from torch import nn

import nas_kd
from nas_kd.derive.calling import called_with
from nas_kd.derive.network import Choice
from nas_kd.derive.space import TeacherSpace
from nas_kd.derive.supernet import TeacherSupernet
from nas_kd.distill import Classification
from nas_kd.losses import adaptive_alpha_divergence
from nas_kd.rate.unit_scores import batch_statistics, local_errors, replace_one
from nas_kd.space.rows import rows_of
from nas_kd.teacher import Teacher
from nas_kd.teacher.cifar_resnet import CifarResNet
from nas_kd.train.sandwich import sandwich_step

TASK = Classification(smoothing=0.1)
WIDTHS = (0.25, 0.5, 0.75, 1.0)
PARTS = ("derive", "forward", "local", "replace-one", "sandwich", "front")


def in_turn(ours: Callable[[], Any], theirs: Callable[[], Any], repeats: int) -> tuple[float, float, float]:
    """Time two functions in turn, and return their medians in seconds and the median of their ratios."""
    a: list[float] = []
    b: list[float] = []
    for number in range(1 + repeats):  # the first is for warming up
        pair = [(ours, a), (theirs, b)]
        for function, times in pair if number % 2 else reversed(pair):
            began = process_time()
            function()
            if number:
                times.append(process_time() - began)
    return median(a), median(b), median(x / y for x, y in zip(a, b, strict=True))


def show(name: str, times: tuple[float, float, float]) -> None:
    """Print the two medians and their ratio."""
    print(f"{name:34} {1e3 * times[0]:10.1f} ms {1e3 * times[1]:10.1f} ms   ratio {times[2]:.3f}", flush=True)


def trained(network: nn.Module, size: int) -> Teacher:
    """Return a teacher whose statistics are not the first ones."""
    torch.manual_seed(0)
    network.train()
    for _ in range(2):
        network(torch.randn(8, 3, size, size))
    return Teacher(network, type(network).__name__, num_classes=10)


def derive(quick: bool) -> None:
    """Time how long a space takes."""
    teacher = trained(timm.create_model("resnet18" if quick else "resnet50", num_classes=10), 64)
    for residual in (False, True):
        began = process_time()
        space = nas_kd.teacher_space(teacher, resolution=224, residual=residual)
        took = process_time() - began
        print(f"derive, residual={residual!s:5} {took:32.1f} s    {len(space.stages)} stages", flush=True)


def forward(space: TeacherSpace, name: str, batch: int, repeats: int) -> None:
    """Compare subnets with the networks that they are extracted to."""
    net = nas_kd.Supernet(space).eval()
    x = torch.randn(batch, 3, 32, 32, generator=torch.Generator().manual_seed(0)).to(memory_format=torch.channels_last)
    archs = {"largest": space.largest(), "smallest": space.smallest(), "random": space.sample(0)}
    for kind, arch in archs.items():
        (norm,) = nas_kd.calibrate(net, [x], archs=[arch])
        student = net.extract(arch, norm)
        with torch.no_grad():
            assert torch.equal(net(x, arch, norm), student(x))
            show(f"forward, {name}, {kind}", in_turn(partial(net, x, arch, norm), partial(student, x), repeats))


def full(stage: Any) -> tuple[int, ...]:
    """Return the choice that keeps all of a unit."""
    return tuple(counts[-1] for counts in stage.kept)


def offered(space: TeacherSpace) -> list[list[Choice]]:
    """Return the choices of every unit."""
    choices: list[list[Choice]] = []
    for stage in space.stages:
        layers = [candidate.layers for candidate in stage.candidates()]
        choices.append([tuple(int(v) for v in layer[0]) if layer else None for layer in layers])
    return choices


@torch.no_grad()
def naive(net: TeacherSupernet, x: torch.Tensor, choices: list[list[Choice]]) -> None:
    """Run the network of every choice whole."""
    whole = [net.cuts.whole(index) for index in range(len(choices))]
    for index, row in enumerate(choices):
        for choice in row:
            if choice != whole[index]:
                network, tensors = net.cuts.assembled([*whole[:index], choice, *whole[index + 1 :]])
                with batch_statistics(network):
                    called_with(network, tensors, x)


def rating(space: TeacherSpace, teacher: Teacher, images: int, repeats: int, parts: list[str]) -> None:
    """Compare scores of units with a pass of the teacher, and with whole networks."""
    net = nas_kd.Supernet(space)
    assert isinstance(net, TeacherSupernet)
    x = torch.randn(images, 3, 32, 32, generator=torch.Generator().manual_seed(0)).to(memory_format=torch.channels_last)
    choices = offered(space)
    print(f"{len(choices)} units, {sum(map(len, choices))} choices, {images} images")
    if "local" in parts:
        whole = space.cost(space.largest(), num_classes=10).macs
        cut = [costs[0][1] for stage in space.stages for (_, _, layer), costs in stage.costs if layer != full(stage)]
        print(f"choices cost {sum(cut) / whole:.2f} of the teacher's MACs in all, besides one pass of the teacher")
        ours = partial(local_errors, net.cuts, x, choices)
        show("local", in_turn(ours, partial(teacher, x), repeats))
        with torch.no_grad():
            show("local, teacher in one batch", in_turn(ours, partial(teacher.network, x), repeats))
    if "replace-one" in parts:
        ours = partial(replace_one, net.cuts, x, choices)
        show("replace-one", in_turn(ours, partial(naive, net, x, choices), 1))


def sandwich(space: TeacherSpace, name: str, batch: int, repeats: int) -> None:
    """Compare a step of the supernet with the four networks it trains."""
    net = nas_kd.Supernet(space).train()
    archs = [space.largest(), space.smallest(), space.sample(0), space.sample(1)]
    students = [net.extract(arch).train() for arch in archs]
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(batch, 3, 32, 32, generator=rng).to(memory_format=torch.channels_last)
    y = torch.randint(10, (batch,), generator=rng)

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

    show(f"sandwich, {name}", in_turn(ours, theirs, repeats))


def front(spaces: dict[str, TeacherSpace]) -> None:
    """Time the exact front of tables of random scores that fall with the cost."""
    for name, space in spaces.items():
        rng = np.random.default_rng(0)
        tables = []
        for index in range(len(space.stages)):
            table = rows_of(space, index, in_chans=3, num_classes=10)
            share = table["macs"] / table["macs"].max()
            tables.append(table.assign(score=(1 - share) * rng.uniform(0.5, 1.5, len(table)) * rng.uniform(0.1, 1.0)))
        loose = [table.drop(columns=["in_width", "out_width"]) for table in tables]
        for count, made in ((1, tables), (2, [*loose, *loose])) if name == "units" else ((1, tables),):
            times = []
            for _ in range(5):
                began = process_time()
                found = nas_kd.exact_front(made, budget="macs")
                times.append(process_time() - began)
            rows = sum(map(len, made))
            print(
                f"front, {name} x {count} {1e3 * median(times):30.1f} ms   {len(made)} stages, {rows} rows, "
                f"{len(found)} archs on it",
                flush=True,
            )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="smaller networks and fewer repeats")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    options = parser.parse_args()
    torch.set_num_threads(1)
    pd.set_option("display.width", 120)
    repeats = 2 if options.quick else 9
    images = 32 if options.quick else 128
    if "derive" in options.only:
        derive(options.quick)
    teacher = trained(CifarResNet(8 if options.quick else 56), 32)
    spaces = {
        name: nas_kd.teacher_space(teacher, None, WIDTHS, resolution=32, residual=residual)
        for name, residual in (("units", False), ("streams", True))
    }
    for name, space in spaces.items():
        if "forward" in options.only:
            forward(space, name, 64, 5 * repeats)
    if {"local", "replace-one"} & set(options.only):
        rating(spaces["units"], teacher, images, repeats, options.only)
    for name, space in spaces.items():
        if "sandwich" in options.only:
            sandwich(space, name, 64, repeats)
    if "front" in options.only:
        front(spaces)


if __name__ == "__main__":
    main()
