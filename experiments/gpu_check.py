"""Do the code paths of a GPU hold, and how fast are they? One table, in under eight minutes on one GPU.

    python experiments/gpu_check.py              # on the first GPU
    python experiments/gpu_check.py --quick      # the same on the CPU, on next to nothing

Each row is a check: what is compared, whether it holds, and what was seen. Comparisons are with the CPU, or with fp32
without compiling, on the same images and weights; throughput and memory are those of sandwich steps (four subnets,
forward and backward) and of a plain network, beside fp32. Hardware: meant for one GPU. Seeds: 0. Result: not measured
yet, no GPU was at hand; with --quick all rows hold on a CPU, which says that the script runs and nothing of a GPU.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from stand_in import HELP, random_data, untrained_teacher
from torch import Tensor

import nas_kd
from nas_kd.cost import measure_latency
from nas_kd.data import Data
from nas_kd.runtime.device import Runtime
from nas_kd.runtime.reduce import reduce_gradients
from nas_kd.supernet import Supernet
from nas_kd.train.compiled import compiled_forward
from nas_kd.train.sandwich import subnet_forward

SECONDS = 480  # of the whole
WIDE = "resnet_cifar"


class Setting(NamedTuple):
    """Where and on how much it runs."""

    device: torch.device
    images: int
    batch: int
    repeats: int
    quick: bool


class Row(NamedTuple):
    """A check and what came of it."""

    check: str
    holds: bool
    seen: str


def augmented_images(at: Setting) -> Row:
    """Crops and flips of numbered views are the same pixels on the device."""
    data = random_data(at.images)
    here, there = (next(iter(data.train.to(place).batches(at.batch, epoch=1, seed=0))) for place in ("cpu", at.device))
    far = float((here.x - there.x.cpu()).abs().max())
    same = bool(torch.equal(here.y, there.y.cpu()))
    return Row("batches with augmentation, against the CPU's", same and far < 1e-4, f"largest difference {far:.2g}")


def subnets(at: Setting) -> Row:
    """Subnets give the logits that they give on the CPU."""
    net = _net(at)
    archs = [net.space.largest(), net.space.smallest(), net.space.sample(0)]
    x = torch.randn(at.batch, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), _exact():
        here = [net.train()(x, arch) for arch in archs]
        net.to(at.device)
        there = [net(x.to(at.device), arch).cpu() for arch in archs]
    far = max(float((a - b).abs().max() / a.abs().max()) for a, b in zip(here, there, strict=True))
    return Row("logits of subnets, against the CPU's", far < 1e-3, f"largest relative difference {far:.2g}")


def calibrated(at: Setting) -> Row:
    """Norm statistics are those of the CPU."""
    net = _net(at)
    arch = net.space.sample(1)
    batches = [batch.x for batch in random_data(at.images).train.clean(at.batch)]
    with _exact():
        here = net.extract(arch, norm=nas_kd.calibrate(net, batches, archs=[arch])[0]).eval()
        net.to(at.device)
        moved = [x.to(at.device) for x in batches]
        there = net.extract(arch, norm=nas_kd.calibrate(net, moved, archs=[arch])[0]).eval()
        with torch.no_grad():
            a, b = here(batches[0]), there.cpu()(batches[0])
    far = float((a - b).abs().max() / a.abs().max())
    return Row("calibrated students, against the CPU's", far < 1e-3, f"largest relative difference {far:.2g}")


def half_precision(at: Setting) -> Row:
    """A supernet learns in bf16 as it does in fp32."""
    losses = {}
    for precision in ("32-true", "bf16-mixed"):
        frame = _trained(at, precision)
        losses[precision] = float(frame["loss"].iloc[-1])
        if not frame["loss"].iloc[-1] < float("inf"):
            return Row("training in bf16, against fp32", False, f"loss {losses[precision]} in {precision}")
    gap = abs(losses["bf16-mixed"] / losses["32-true"] - 1)
    return Row("training in bf16, against fp32", gap < 0.1, f"last losses {losses}, {100 * gap:.1f} % apart")


def compiled_ends(at: Setting) -> Row:
    """The compiled largest and smallest subnets have the gradients of the eager ones."""
    if at.quick:
        return Row("compiled ends, against eager ones", True, "left out with --quick: compiling takes minutes")
    net = _net(at).to(at.device)
    x = torch.randn(at.batch, 3, 32, 32, device=at.device)
    begin = time.perf_counter()
    found = {}
    with _exact():
        for name, forward in (("eager", subnet_forward(net)), ("compiled", compiled_forward(net))):
            net.zero_grad(set_to_none=True)
            for arch in (net.space.largest(), net.space.smallest()):
                forward(x, arch, dropout=0.0, drop_path=0.0).square().mean().backward()
            found[name] = torch.cat([p.grad.flatten() for p in net.parameters() if p.grad is not None])
    far = float((found["eager"] - found["compiled"]).norm() / found["eager"].norm())
    took = time.perf_counter() - begin
    return Row("compiled ends, against eager ones", far < 1e-2, f"gradients {far:.2g} apart, {took:.0f} s to compile")


def one_all_reduce(at: Setting) -> Row:
    """Two processes on the device average their gradients in one all-reduce."""
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(_reduce, args=(str(at.device), folder), nprocs=2)
        ranks = [torch.load(Path(folder) / f"{rank}.pt", weights_only=True) for rank in range(2)]
    mean = (ranks[0]["own"] + ranks[1]["own"]) / 2
    far = max(float((rank["mean"] - mean).abs().max()) for rank in ranks)
    calls = [int(rank["calls"]) for rank in ranks]
    return Row("gradients of two processes", far < 1e-6 and calls == [1, 1], f"{calls} all-reduces, {far:.2g} apart")


def _reduce(rank: int, device: str, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    torch.manual_seed(rank)
    layer = torch.nn.Linear(64, 64).to(device)
    layer(torch.randn(8, 64, device=device)).square().mean().backward()
    own = torch.cat([p.grad.flatten() for p in layer.parameters() if p.grad is not None]).cpu()
    calls = [0]
    reduce = dist.all_reduce

    def counted(*given: object, **more: object) -> object:
        calls[0] += 1
        return reduce(*given, **more)

    dist.all_reduce = counted
    reduce_gradients(layer.parameters())
    mean = torch.cat([p.grad.flatten() for p in layer.parameters() if p.grad is not None]).cpu()
    torch.save({"own": own, "mean": mean, "calls": torch.tensor(calls[0])}, Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


def whole_run(at: Setting) -> Row:
    """From a teacher to a student in Python, twice: the second time reads what the first has made."""
    data = nas_kd.load_data("digits", subset=300 if at.quick else 1500, rate=0.15, select=0.15, device=str(at.device))
    runtime = Runtime(str(at.device))
    epochs = 1 if at.quick else 6
    reached = []
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(2):
            run = nas_kd.Run(Path(folder) / "run")
            teacher = nas_kd.train_teacher("cifar_resnet8", data, run=run, epochs=epochs, runtime=runtime)
            space = nas_kd.teacher_space(teacher, data)
            net = Supernet(space)
            nas_kd.repair_units(net, teacher, data, epochs=1, run=run, runtime=runtime)
            tables = nas_kd.rate_units(net, teacher, data, run=run)
            search = {"max_macs": "30%", "trials": 10, "tuned": 2, "top": 1, "epochs": 1}
            result = nas_kd.search(net, teacher, data, tables, run=run, runtime=runtime, **search)
            student = nas_kd.retrain(
                result.best, teacher, data, space=space, supernet=net, epochs=epochs, run=run, runtime=runtime
            )
            reached.append((result.best.key, float(student.info["metrics"]["test_accuracy"])))
    seen = f"student {reached[0][0]}, test accuracy {100 * reached[0][1]:.1f} %"
    return Row("a whole run on digits, and again from its folder", reached[0] == reached[1], seen)


def speed(at: Setting) -> list[Row]:
    """Images a second and memory of sandwich steps, fp32 and bf16, and of the largest network alone."""
    rows = []
    network = nas_kd.load_space(WIDE).build(nas_kd.load_space(WIDE).largest(), num_classes=10).to(at.device)
    net = _net(at).to(at.device)
    archs = [net.space.largest(), net.space.smallest(), net.space.sample(0), net.space.sample(1)]
    x = torch.randn(at.batch, 3, 32, 32, device=at.device)
    sandwich = [partial(net, x, arch) for arch in archs]
    for precision in ("32-true", "bf16-mixed"):
        runtime = Runtime(str(at.device), precision)
        for name, passes in (("sandwich step", sandwich), ("the largest network alone", [partial(network, x)])):
            took, memory = _timed(at, runtime, passes)
            seen = f"{at.batch / took:,.0f} images/s, {memory / 2**20:,.0f} MiB"
            rows.append(Row(f"{name}, {precision}, batch {at.batch}", took > 0, seen))
    found = measure_latency(network, 32, device=at.device)
    seen = f"{found.median_ms:.2f} ms (IQR {found.iqr_ms:.2f}) on {found.device}"
    return [*rows, Row("latency of one image", found.median_ms > 0, seen)]


def _timed(at: Setting, runtime: Runtime, passes: list[Callable[[], Tensor]]) -> tuple[float, int]:
    """Return the median seconds of a step, and the most memory that it took."""
    cuda = at.device.type == "cuda"
    times = []
    if cuda:
        torch.cuda.reset_peak_memory_stats(at.device)
    for _ in range(at.repeats + 2):
        if cuda:
            torch.cuda.synchronize(at.device)
        begin = time.perf_counter()
        for once in passes:
            with runtime.autocast():
                loss = once().float().square().mean()
            loss.backward()
        if cuda:
            torch.cuda.synchronize(at.device)
        times.append(time.perf_counter() - begin)
    memory = torch.cuda.max_memory_allocated(at.device) if cuda else 0
    return float(pd.Series(times[2:]).median()), memory


def _trained(at: Setting, precision: str) -> pd.DataFrame:
    data: Data = random_data(at.images, device=str(at.device))
    teacher = untrained_teacher(data).to(at.device)
    net = _net(at)
    runtime = Runtime(str(at.device), precision)
    with tempfile.TemporaryDirectory() as folder:
        run = nas_kd.Run(Path(folder) / "run")
        nas_kd.train_supernet(
            net, data, run=run, teacher=teacher, teacher_weight=0.5, epochs=2, batch_size=at.batch, runtime=runtime
        )
        return pd.read_csv(run.path / "supernet" / "metrics.csv")


def _net(at: Setting) -> Supernet:
    return Supernet(nas_kd.load_space(WIDE), num_classes=10, in_chans=3, seed=0)


@contextmanager
def _exact() -> Iterator[None]:
    """Compute in full fp32, without TF32."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


CHECKS: tuple[Callable[[Setting], Row | list[Row]], ...] = (
    augmented_images,
    subnets,
    calibrated,
    half_precision,
    one_all_reduce,
    whole_run,
    speed,
    compiled_ends,  # last: compiling takes longest
)


def main() -> int:
    """Run all checks and print the table; the exit code is 1 where one does not hold."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help=HELP)
    quick = parser.parse_args().quick
    if not quick and not torch.cuda.is_available():
        print("gpu_check: no GPU is visible to torch; --quick runs the same on the CPU")
        return 2
    device = torch.device("cpu" if quick else "cuda:0")
    at = Setting(device, 64 if quick else 10_000, 16 if quick else 256, 1 if quick else 20, quick)
    name = "CPU" if quick else torch.cuda.get_device_name(device)
    print(f"nas_kd {nas_kd.__version__}, torch {torch.__version__}, {name}\n")
    begin = time.monotonic()
    rows: list[Row] = []
    for check in CHECKS:
        if time.monotonic() - begin > SECONDS:
            rows.append(Row(check.__name__, False, f"not begun: {SECONDS} s were over"))
            continue
        found = check(at)
        rows += found if isinstance(found, list) else [found]
    print("| check | holds | seen |\n|---|---|---|")
    for row in rows:
        print(f"| {row.check} | {'yes' if row.holds else 'NO'} | {row.seen} |")
    print(f"\n{time.monotonic() - begin:.0f} s")
    return 0 if all(row.holds for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
