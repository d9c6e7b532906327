"""Claim: with a filled cache a teacher costs a training nothing, and no loss costs much beside the student's step.

Measured, all sides in turn in one process, medians and medians of the paired ratios, equal memory format
(channels_last) and threads:
  step      fetch, crop, forward, loss and backward, without an optimiser: distilled (kd_ls) from the filled cache
            of all views, from the live ResNet-56, and plain (cross-entropy); bar: cached / plain at most 1.05;
  losses    every method of METHODS: its loss and the gradient back to the student's features, what it trains
            beside the student included, other networks left out, as a share of a plain step (forward, loss and
            backward); bar: 15 %;
  library   whole training steps, data and optimiser included, ResNet-56 to ResNet-20 by Hinton's loss, against
            torchdistill with its data loader (no worker processes: they would take the other side's cores) where
            it is installed; bars: 1.3 x its images a second live, 2 x cached. torchdistill has no cache (1.1.5).
On a GPU the cached step runs under torch.cuda.set_sync_debug_mode("error"): it must not wait for the device.
Numbers are printed and never asserted. Pixels and weights are random: time does not depend on them.

Hardware: one thread on 2 cores of an AMD EPYC shared with other work (load 4 to 14), torch 2.15: trust ratios only.
Seeds: 0. Command: OMP_NUM_THREADS=1 python experiments/benchmarks/distil.py [step losses library]
Numbers: step (two runs of 10 and 12 repeats): cached / plain 0.997 and 1.017 at batch 64, 0.986 and 1.039 at 256;
live / plain 3.6 to 4.3.
losses (5 repeats; found student, then ResNet-20): all of labels, relations and online 0.1 to 11 % but irg, at 5 to 7,
crd 2 to 8, fitnet 2 to 3, fsp 6. Five were made faster without another value, old and new in one process (15 repeats,
then 5), found student at batch 64 and 256, ResNet-20 at 64, processor time:
  nst     24 and 24, 23 %    now 12 and 10, 12 %: products of places or of channels, norms out of their diagonal
  irg     17 and  6, 20 %    now 13 and  5, 14 %: one product backwards instead of two
  ab      18 and 15, 20 %    now 11 and 10, 13 %: one pass backwards
  vid     21 and 17, 19 %    now 15 to 19 and 11 to 14, 15 %: errors by channel; the rest is three convolutions a stage
  review  94 and 95, 97 %    now 88 and 77, 78 %: one difference is averaged, attention at the deeper stage's size
Above the bar: vid at batch 64; ft 15 to 16 and 14, nearly all of it convolutions, in the stage without a student step;
byot 25 to 28 and 22, the exits' strided convolutions; review, whose fusions of 64 channels have 0.86 of the student's
MACs (`width=16`: 47 and 35 %); bss (its search is steps of the teacher). library (the same): live 1.22 and 1.30 x
torchdistill 1.1.5 at batch 64, 1.28 and 1.30 x at 256: both sides are convolutions; cached 2.2 and 1.9 x, 2.2 and
2.3 x, most of it channels_last and the teacher in parts that fit a CPU's cache. On a GPU: not measured.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from itertools import count
from statistics import median
from time import perf_counter, process_time
from typing import Any

import torch
from random_inputs import found_student, random_data, random_resnet56
from torch import Tensor, nn
from torchdistill_step import torchdistill_step

import nas_kd
from nas_kd.data import Batch, Data, Split
from nas_kd.distill import METHODS, Distiller, pair_of
from nas_kd.errors import SettingError
from nas_kd.nn import Output
from nas_kd.runtime.device import Runtime, place
from nas_kd.teacher import TargetSource, Teacher, ViewCache, as_targets, cifar_resnet20
from nas_kd.train.optim import sgd

BATCHES = (64, 256)
IMAGES = 1024


def interleaved(sides: Mapping[str, Callable[[], None]], repeats: int, runtime: Runtime) -> dict[str, list[float]]:
    """Time functions in turn, the order turned round every time, after two calls that do not count."""
    cuda = runtime.device.type == "cuda"
    clock = perf_counter if cuda else process_time  # of one thread: other work on the machine is not counted
    times: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(-2, repeats):
        for name in list(sides) if number % 2 else reversed(list(sides)):
            began = clock()
            sides[name]()
            if cuda:
                torch.cuda.synchronize()
            if number >= 0:
                times[name].append(clock() - began)
    return times


def ratio(a: list[float], b: list[float]) -> float:
    """Return the median of the paired ratios."""
    return median(x / y for x, y in zip(a, b, strict=True))


def endless(split: Split, size: int) -> Iterator[Batch]:
    """Give the batches of the first four epochs for ever."""
    return (batch for epoch in count() for batch in split.batches(size, epoch=epoch % 4, seed=0))


def bound(method: str, model: nn.Module, source: TargetSource | None, data: Data, **settings: Any) -> Distiller:
    """Bind a method as `train_network` does."""
    distiller = Distiller(method, **settings)
    image = (data.in_chans, data.resolution, data.resolution)
    distiller.bind(pair_of(model, distiller.recipe, source, image, data.num_classes, len(data.train)))
    distiller.trained.to(next(model.parameters()).device)
    return distiller


def step_of(
    distiller: Distiller,
    model: nn.Module,
    batches: Iterator[Batch],
    runtime: Runtime,
    optimizer: torch.optim.Optimizer | None = None,
) -> Callable[[], None]:
    """Return a training step as the loop makes it."""

    def step() -> None:
        model.zero_grad(set_to_none=True)
        distiller.step(next(batches), 0.5, runtime.autocast())
        if optimizer is not None:
            optimizer.step()

    return step


def steps(
    model: nn.Module,
    teacher: Teacher,
    cache: ViewCache,
    data: Data,
    repeats: int,
    runtime: Runtime,
    sizes: Sequence[int],
) -> None:
    """Compare plain, cached and live steps."""
    sources: dict[str, TargetSource | None] = {"plain": None, "cached": cache, "live": teacher}
    for size in sizes:
        sides = {}
        for name, source in sources.items():
            distiller = bound("kd_ls" if source else "ce", model, source, data)
            sides[name] = step_of(distiller, model, endless(data.train, size), runtime)
        if runtime.device.type == "cuda":
            never_waits(sides["cached"])
        times = interleaved(sides, repeats, runtime)
        rates = ", ".join(f"{name} {size / median(times[name]):,.0f} images/s" for name in sides)
        print(
            f"step, batch {size:3}: cached / plain {ratio(times['cached'], times['plain']):.3f},"
            f" live / plain {ratio(times['live'], times['plain']):.3f}; {rates}",
            flush=True,
        )


def never_waits(step: Callable[[], None]) -> None:
    """Run a step in which waiting for the device is an error."""
    step()
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    step()
    torch.cuda.set_sync_debug_mode("default")
    print("a cached step does not wait for the device", flush=True)


def losses(
    model: nn.Module, teacher: Teacher, data: Data, repeats: int, runtime: Runtime, sizes: Sequence[int]
) -> None:
    """Measure each method's loss beside a plain step on the same batch."""
    print(f"{'loss, share of a plain step in %':34} {''.join(f'batch {size:<6}' for size in sizes)}")
    for method in METHODS:
        cells = []
        for size in sizes:
            try:
                cells.append(f"{100 * loss_share(method, model, teacher, data, size, repeats, runtime):8.1f}    ")
            except SettingError as error:
                cells.append(f"not here: {error.expected}"[:90])
                break
        print(f"{method:34} {''.join(cells)}", flush=True)


def loss_share(
    method: str, model: nn.Module, teacher: Teacher, data: Data, size: int, repeats: int, runtime: Runtime
) -> float:
    """Return the time of a method's loss over that of a plain step; of several stages the dearest."""
    recipe = Distiller(method).recipe
    if recipe.inputs is not None:
        raise SettingError("method", method, "a loss on the data's images", "time a whole training step")
    given: Any = [teacher, teacher] if METHODS[method].needs.startswith("two or more") else teacher
    distiller = bound(method, model, as_targets(given) if recipe.needs_teacher else None, data)
    split = data.train if recipe.sampler is None else recipe.sampler(data.train)
    batch = next(iter(split.batches(size, epoch=0, seed=0))).to(runtime.device)
    forward = pair_of(model, recipe, None, (3, 32, 32), 10).forward if recipe.needs_features else None
    with torch.no_grad():
        found = forward(batch.x) if forward else model(batch.x)
        target = leaves(distiller.target(batch)) if distiller.source is not None else None
    student = leaves(found)
    shares = []
    plain = bound("ce", model, None, data)
    for progress in (0.0, 0.5, 1.0):

        def loss(progress: float = progress) -> None:
            distiller.trained.zero_grad(set_to_none=True)
            distiller(student, target, batch.y, progress, batch)[0].backward()

        def whole() -> None:
            model.zero_grad(set_to_none=True)
            plain(model(batch.x), None, batch.y)[0].backward()

        times = interleaved({"loss": loss, "step": whole}, repeats, runtime)
        shares.append(ratio(times["loss"], times["step"]))
        if len(recipe.phases) == 1:
            break
    return max(shares)


def leaves(found: Any) -> Any:
    """Cut features off their network and let gradients reach them."""
    if isinstance(found, Tensor):
        return found.detach().requires_grad_()
    if isinstance(found, Output):
        return Output(*(leaves(part) for part in found))
    return [leaves(part) for part in found]


def library(data: Data, repeats: int, runtime: Runtime, sizes: Sequence[int]) -> None:
    """Compare training steps with those of torchdistill on the same networks, images and batch."""
    if find_spec("torchdistill") is None:
        print("library: torchdistill is not installed (pip install torchdistill): skipped")
        return
    logging.disable(logging.INFO)
    with tempfile.TemporaryDirectory() as folder:
        teacher = nas_kd.load_teacher(random_resnet56(data)).to(runtime.device).bind(data)
        cache = ViewCache.open(folder, teacher, data, epochs=4)
        for size in sizes:
            sides: dict[str, Callable[[], None]] = {
                "torchdistill": torchdistill_step(
                    random_resnet56(data), cifar_resnet20(num_classes=10), data, size, runtime.device
                )
            }
            for name, source in (("live", teacher), ("cached", cache)):
                model = place(cifar_resnet20(num_classes=10), runtime).train()
                distiller = bound("kd", model, source, data)
                optimizer = sgd([model])
                sides[name] = step_of(distiller, model, endless(data.train, size), runtime, optimizer)
            times = interleaved(sides, repeats, runtime)
            rates = ", ".join(f"{name} {size / median(times[name]):,.0f}" for name in sides)
            print(
                f"library, batch {size:3}: time of theirs / live {ratio(times['torchdistill'], times['live']):.2f},"
                f" / cached {ratio(times['torchdistill'], times['cached']):.2f}; images/s: {rates}",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", default=["step", "losses", "library"])
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--student", default="found", choices=["found", "resnet20"], help="of step and losses")
    parser.add_argument("--device", default="auto")
    parser.add_argument(
        "--quick", action="store_true", help="few images, once, to see that it runs; times mean nothing"
    )
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.repeats = 1
    images, sizes = (48, (8,)) if arguments.quick else (IMAGES, BATCHES)
    runtime = Runtime(arguments.device, threads=1)
    torch.manual_seed(0)
    data = random_data(images, runtime)
    found = arguments.student == "found"
    model = found_student(data, runtime) if found else place(cifar_resnet20(num_classes=10), runtime).train()
    teacher = nas_kd.load_teacher(random_resnet56(data)).to(runtime.device).bind(data)
    print(f"{torch.__version__}, {runtime.device}, student {sum(p.numel() for p in model.parameters()):,} parameters")
    if "step" in arguments.parts:
        with tempfile.TemporaryDirectory() as folder:
            cache = ViewCache.open(folder, teacher, data, epochs=4)
            steps(model, teacher, cache, data, arguments.repeats, runtime, sizes)
    if "losses" in arguments.parts:
        losses(model, teacher, data, arguments.repeats, runtime, sizes)
    if "library" in arguments.parts:
        library(data, arguments.repeats, runtime, sizes)


if __name__ == "__main__":
    main()
