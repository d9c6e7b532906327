"""How long a step of each kind takes: a few on the real networks and images, which are thrown away."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from nas_kd.data import Batch
from nas_kd.nn import at_resolution, resized
from nas_kd.pipeline.given import Given
from nas_kd.runtime.seeds import seed_for
from nas_kd.space import Arch
from nas_kd.supernet import Supernet

ENOUGH = 0.25  # seconds that a kind of step is timed for, at least twice
MOST = 5  # times
DRAWS = 200  # random archs, of which the largest within the budget stands for the students
FORWARD = 256  # images of a forward pass
PROPOSED = 3  # proposals that are timed


class Pace(NamedTuple):
    """Seconds an image.

    Args:
        teacher: a forward pass of the teacher.
        teacher_step: a training step of it.
        student: a forward pass of an arch at the budget.
        student_step: a training step of it.
        supernet_step: a training step of the largest, the smallest and two other subnets; 0 where none is trained.
        params: parameters of the student.
        proposal: seconds for one proposal of the search, with half of its trials behind it.
    """

    teacher: float
    teacher_step: float
    student: float
    student_step: float
    supernet_step: float
    params: int
    proposal: float


@torch.enable_grad()
def pace(given: Given) -> Pace:
    """Time a few steps of each kind; neither networks nor generators nor files of a run change."""
    config = given.config
    with _undisturbed():
        arch = typical_arch(given)
        space = given.outline
        student = space.build(arch, given.images.num_classes, given.images.in_chans)
        params = sum(parameter.numel() for parameter in student.parameters())
        sized = resized(student, arch.resolution)
        clock = _Clock(given)
        teacher = teacher_step = 0.0
        if given.taught:
            network = deepcopy(given.untrained.network).requires_grad_(True)
            teacher_step = clock.step(network, config.teacher.fitted(clock.images).batch_size)
            teacher = clock.forward(network)
        student_step = clock.step(sized, config.retrain.fitted(clock.images).batch_size)
        forward = clock.forward(sized)
        supernet_step = 0.0
        if not config.derived and config.supernet.epochs:
            supernet_step = clock.supernet(config.supernet.fitted(clock.images).batch_size)
        proposal = proposal_seconds(given)
    return Pace(teacher, teacher_step, forward, student_step, supernet_step, params, proposal)


def proposal_seconds(given: Given) -> float:
    """Time how long the search's sampler takes for a proposal, with half of the trials behind it."""
    import optuna

    from nas_kd.searcher.optuna import quiet
    from nas_kd.searcher.proposals import Proposals
    from nas_kd.searcher.variables import SearchVariables

    config = given.config
    sampler = config.search.sampler if config.guided else "nsga2"
    if not config.guided and config.engine != "nsga2":  # drawn at random, or by rules of its own: no time to speak of
        return 0.0
    sizes = SearchVariables(given.outline).sizes
    with quiet():
        rules = Proposals(sizes, None, "kl", (), None, sampler, config.seed)
        study = rules.study()
        draws = np.random.default_rng(seed_for("plan", "proposals"))
        ranges: dict[str, optuna.distributions.BaseDistribution] = {
            f"i_{i}": optuna.distributions.IntDistribution(0, size - 1) for i, size in enumerate(sizes, 1)
        }
        for _ in range(config.search.trials // 2):
            point = {f"i_{i}": int(draws.integers(size)) for i, size in enumerate(sizes, 1)}
            study.add_trial(optuna.create_trial(params=point, distributions=ranges, value=float(draws.random())))
        times = []
        for number in range(PROPOSED):
            begin = time.perf_counter()
            trial, _ = rules.ask(study, number, None)
            study.tell(trial, float(draws.random()))
            times.append(time.perf_counter() - begin)
    return float(np.median(times))


def typical_arch(given: Given) -> Arch:
    """Return an arch that is as large as the budget lets it be, of some random ones and the ends."""
    space = given.outline
    drawn = [space.smallest(), *(space.sample(seed_for("plan", index)) for index in range(DRAWS)), space.largest()]
    costs = [space.cost(arch, **given.cost) for arch in drawn]
    within = [at for at, cost in enumerate(costs) if all(getattr(cost, k) <= most for k, most in given.upper.items())]
    return drawn[max(within or [0], key=lambda at: costs[at].macs)]


class _Clock:
    """Times work on training images, with the time to fetch them."""

    def __init__(self, given: Given) -> None:
        self.device = torch.device(given.device)
        self.split = given.images.train.to(self.device)
        self.images = len(self.split)
        self.given = given

    def batches(self, size: int) -> Iterator[Batch]:
        """Yield training batches without an end."""
        while True:
            for batch in self.split.batches(size, epoch=0, seed=0):
                yield batch.to(self.device)

    def step(self, network: nn.Module, size: int) -> float:
        """Return seconds an image of a training step."""
        network.to(self.device).train()
        optimizer = torch.optim.SGD(network.parameters(), lr=0.0, momentum=0.9)
        batches = self.batches(size)

        def once() -> None:
            optimizer.zero_grad(set_to_none=True)
            _loss(network(next(batches).x)).backward()
            optimizer.step()

        return self._median(once) / size

    def forward(self, network: nn.Module) -> float:
        """Return seconds an image of a forward pass."""
        network.to(self.device).eval()
        size = min(FORWARD, self.images)
        batches = self.batches(size)

        def once() -> None:
            with torch.no_grad():
                network(next(batches).x)

        return self._median(once) / size

    def supernet(self, size: int) -> float:
        """Return seconds an image of a step of four subnets."""
        data = self.given.images
        space = self.given.outline
        net = Supernet(space, data.num_classes, data.in_chans).to(self.device).train()
        archs = [space.largest(), space.smallest(), space.sample(0), space.sample(1)]
        batches = self.batches(size)

        def once() -> None:
            net.zero_grad(set_to_none=True)
            images = next(batches).x
            for arch in archs:
                _loss(net(at_resolution(images, arch.resolution), arch)).backward()

        return self._median(once) / size

    def _median(self, once: Callable[[], None]) -> float:
        times: list[float] = []
        once()
        while len(times) < 2 or (sum(times) < ENOUGH and len(times) < MOST):
            begin = time.perf_counter()
            once()
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
            times.append(time.perf_counter() - begin)
        return float(np.median(times))


def _loss(out: Any) -> torch.Tensor:
    logits: torch.Tensor = out[0] if isinstance(out, tuple | list) else out
    return logits.float().square().mean()


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Give all global generators back as they were."""
    python = random.getstate()
    numpy = np.random.get_state()
    try:
        with torch.random.fork_rng():
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
