"""What each of torchrun's processes does for test_ranks.py, which also calls it in one process."""

from __future__ import annotations

import copy
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

import nas_kd
from nas_kd.data import Batch, Data
from nas_kd.distill import Classification
from nas_kd.losses import adaptive_alpha_divergence
from nas_kd.nn.norm import NormValues, Recorder
from nas_kd.runs.run import Run
from nas_kd.runs.stage import Stage
from nas_kd.runtime.device import Runtime
from nas_kd.runtime.ranks import leave_group
from nas_kd.runtime.reduce import check_same, mean_over_ranks, reduce_gradients
from nas_kd.runtime.stop import Stopped
from nas_kd.space import Arch
from nas_kd.supernet import Supernet
from nas_kd.train.loop import StepInfo, fit
from nas_kd.train.optim import Schedule, sgd
from nas_kd.train.plan import Plan
from nas_kd.train.rules import Sandwich
from nas_kd.train.sandwich import Images, sandwich_targets, summary, teach

EPOCHS, BATCH = 3, 24
BAD = [(0, 2), (1, 0)]  # steps of the second process whose losses are not finite


class Killed(Exception):
    """Stands for kill -9."""


def digits() -> Data:
    return nas_kd.load_data("digits", subset=250, rate=0.1, select=0.1, views=0)


def supernet(seed: int = 0) -> Supernet:
    return Supernet(nas_kd.load_space("digits"), num_classes=10, in_chans=1, seed=seed)


def numbers_in(value: Any) -> int:
    """Count the numbers of all tensors in a tensor or container."""
    if isinstance(value, Tensor):
        return value.numel()
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return sum(map(numbers_in, items))


class Messages:
    """Counts what the collectives of torch.distributed carry while it is entered: (name, numbers)."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, int]] = []

    def __enter__(self) -> Messages:
        self._kept = {name: getattr(dist, name) for name in dir(dist) if name.startswith(COLLECTIVES)}
        for name, function in self._kept.items():
            setattr(dist, name, self._counted(name, function))
        return self

    def __exit__(self, *_: object) -> None:
        for name, function in self._kept.items():
            setattr(dist, name, function)

    def _counted(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            self.sent.append((name, max(map(numbers_in, args))))
            return function(*args, **kwargs)

        return call


COLLECTIVES = ("all_reduce", "all_gather", "all_to_all", "broadcast", "gather", "reduce", "scatter", "send", "isend")


def train(
    runtime: Runtime,
    stage: Stage | None,
    *,
    accumulate: int = 1,
    kill_after: int = 0,
    stop_at: tuple[int, int] | None = None,
    bad: Sequence[tuple[int, int]] = (),
) -> dict[str, Any]:
    """Train a sandwich in float64 by ``fit``, norms in evaluation mode: each arch has statistics of its own.

    The second process alone is asked to stop, and meets losses that are not finite.
    """
    net, data, task = supernet().double(), digits(), Classification(smoothing=0.1)
    frozen, probe = copy.deepcopy(net), torch.rand(32, 1, 8, 8, generator=torch.Generator().manual_seed(3)).double()
    norms: dict[Arch, NormValues] = {}
    carried: list[int] = []  # numbers of the parameters that a step gave a gradient, of its values, and whether to stop

    @torch.no_grad()
    def norm_of(arch: Arch) -> NormValues:
        if arch not in norms:
            recorder = Recorder()
            frozen.forward_stages(probe, arch, recorder)
            norms[arch] = recorder.values()
        return norms[arch]

    def forward(x: Tensor, arch: Arch, **_: float) -> Tensor:
        return net.forward_stages(x, arch, norm_of(arch)).logits

    def step(batch: Batch, info: StepInfo) -> dict[str, Tensor]:
        subnet_targets = sandwich_targets(Sandwich(net.space, 0, 2).archs(info))
        losses = teach(
            net,
            Images(batch.x.double()),
            batch.y,
            subnet_targets,
            task=task,
            divergence=adaptive_alpha_divergence,
            forward=forward,
        )
        parts = summary(losses, "sum", True)
        if runtime.rank == 1 and info[:2] == stop_at:
            os.kill(os.getpid(), signal.SIGTERM)
        if runtime.rank == 1 and info[:2] in bad:
            parts["loss"] = parts["loss"] * float("nan")
        carried.append(sum(p.numel() for p in net.parameters() if p.grad is not None) + len(parts) + 1)
        return parts

    def after_epoch(done: int) -> None:
        if done == kill_after:
            raise Killed

    with Messages() as messages:
        try:
            fit(
                step,
                Plan(Schedule(0.05, 0.5), EPOCHS, BATCH, accumulate=accumulate, clip=0.5, ema=0.9),
                name="supernet",
                modules={"net": net},
                optimizer=sgd([net]),
                split=data.train,
                seed=1,
                runtime=runtime,
                stage=stage,
                after_epoch=after_epoch,
            )
        except Killed:
            pass
        except Stopped as stop:
            return {"stopped": str(stop)}
    return {"weights": net.state_dict(), "messages": messages.sent, "carried": carried}


def stage_in(folder: Path) -> Stage:
    return Run(folder).stage("supernet", {"seed": 1})


def said(function: Callable[[], object]) -> str:
    """Return what an error says."""
    try:
        function()
    except (RuntimeError, FloatingPointError) as error:
        return f"{type(error).__name__}: {error}"
    return "nothing"


def different_archs(rank: int) -> None:
    check_same("archs", ["one", "one", "another"][rank + 1])


def different_gradients(rank: int) -> None:
    one, two = nn.Parameter(torch.zeros(3)), nn.Parameter(torch.zeros(3))
    (one if rank else two).grad = torch.ones(3)  # of equal size: an all-reduce alone would add them up
    reduce_gradients([one, two])


def different_starts(runtime: Runtime) -> None:
    net = supernet(seed=runtime.rank)
    fit(
        lambda batch, info: {},
        Plan(Schedule(0.1), 1, BATCH),
        name="supernet",
        modules={"net": net},
        optimizer=sgd([net]),
        split=digits().train,
        seed=1,
        runtime=runtime,
    )


def mean_gradients(rank: int) -> dict[str, Any]:
    """Average gradients of every memory order, and some that nobody has."""
    generator = torch.Generator().manual_seed(rank)
    shapes = [(4, 3, 3, 3), (5,), (2, 7), (6, 1, 5, 5), (3,)]
    parameters = [nn.Parameter(torch.zeros(shape)) for shape in shapes]
    parameters[0].data = parameters[0].data.to(memory_format=torch.channels_last)
    parameters[2].data = torch.zeros(7, 2).t()  # neither order: its own
    for parameter in parameters[:4]:
        parameter.grad = torch.rand(parameter.shape, generator=generator)
    own = [None if p.grad is None else p.grad.clone() for p in parameters]
    values = reduce_gradients(parameters, [torch.tensor(float(rank)), torch.tensor(float("nan") if rank else 1.0)])
    return {"own": own, "mean": [p.grad for p in parameters], "values": values}


def diverge(runtime: Runtime, stage: Stage) -> None:
    """Meet a NaN on the second process alone, in the second epoch."""
    net = nn.Linear(64, 10)

    def step(batch: Batch, info: StepInfo) -> dict[str, Tensor]:
        loss = net(batch.x.flatten(1)).square().mean()
        loss.backward()
        hit = runtime.rank == 1 and info[:2] == (1, 3)
        return {"loss": loss, "other": torch.tensor(float("nan")) if hit else loss}

    torch.manual_seed(0)
    nn.init.ones_(net.weight)
    nn.init.zeros_(net.bias)
    fit(
        step,
        Plan(Schedule(0.01), 2, BATCH),
        name="supernet",
        modules={"net": net},
        optimizer=sgd([net]),
        seed=1,
        split=digits().train,
        runtime=runtime,
        stage=stage,
        describe=lambda info: f"arch of step {info.step}",
    )


def draws(runtime: Runtime) -> list[float]:
    """Return what dropout would draw in the first steps."""
    net, seen = nn.Linear(1, 1), []

    def step(batch: Batch, info: StepInfo) -> dict[str, Tensor]:
        seen.append(float(torch.rand(())))
        loss = net.weight.sum()
        loss.backward()
        return {"loss": loss}

    with torch.random.fork_rng():
        torch.manual_seed(0)
        net.reset_parameters()
    nn.init.ones_(net.weight)
    nn.init.ones_(net.bias)
    fit(
        step,
        Plan(Schedule(0.01), 1, BATCH),
        name="supernet",
        modules={"net": net},
        optimizer=sgd([net]),
        seed=1,
        split=digits().train,
        runtime=runtime,
    )
    return seen


def by_rule(runtime: Runtime, rule: str, run: Path | None = None, epochs: int = 1) -> dict[str, Tensor]:
    settings: dict[str, Any] = {"epochs": epochs, "batch_size": BATCH, "warmup_epochs": 0.2, "lr": 0.05}
    net = nas_kd.train_supernet(supernet(), digits(), rule=rule, runtime=runtime, run=run and str(run), **settings)
    return net.state_dict()


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    runtime = Runtime("cpu")
    rank = runtime.rank
    own = folder / str(rank)  # a folder of its own: what the second process writes would be seen
    found: dict[str, Any] = {"place": (runtime.rank, runtime.world, str(runtime.device))}
    found["alone"] = (runtime.single_process().rank, runtime.single_process().world)
    found["whole"] = train(runtime, stage_in(own / "whole"))
    found["parts"] = train(runtime, None, accumulate=2)
    train(runtime, stage_in(own / "halved"), kill_after=2)
    found["resumed"] = train(runtime, stage_in(own / "halved"))
    found["asked"] = train(runtime, stage_in(own / "asked"), stop_at=(1, 3))
    found["went on"] = train(runtime, stage_in(own / "asked"))
    skipping = Runtime("cpu", on_nan="skip")
    found["skipped"] = train(skipping, stage_in(own / "skipped"), bad=BAD, accumulate=2)
    found["mean"] = mean_gradients(rank)
    found["score"] = mean_over_ranks(torch.tensor([1.0 + rank, 4.0 * rank]))
    found["archs"] = said(lambda: different_archs(rank))
    found["gradients"] = said(lambda: different_gradients(rank))
    found["starts"] = said(lambda: different_starts(runtime))
    found["nan"] = said(lambda: diverge(runtime, stage_in(own / "nan")))
    found["draws"] = draws(runtime)
    found["first"] = by_rule(runtime, "sandwich", own / "api", epochs=2)
    found["again"] = by_rule(runtime, "sandwich", own / "api", epochs=2)
    found["bestup"] = by_rule(runtime, "bestup")
    leave_group()
    found["parted"] = (runtime.rank, runtime.world, Runtime("cpu").world)
    torch.save(found, folder / f"{rank}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
