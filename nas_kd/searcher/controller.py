"""A recurrent controller that writes archs one choice after the other, and learns by REINFORCE which are rewarded."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from nas_kd.config.measures import TUNED, low_is_better
from nas_kd.runtime.seeds import seed_for
from nas_kd.searcher.engine import Problem, Row, point_of

if TYPE_CHECKING:
    from nas_kd.searcher.variables import Point

COST_POWER = -0.07  # w of MnasNet, which AKD takes over: twice the cost is worth 5 % more accuracy
OVER_POWER = -1.0  # MnasNet's beta for what is over the budget
HIDDEN = 64
RANGE = 0.08  # new weights are uniform in +- RANGE (Zoph and Le 2017)
BATCH = 8  # archs that the controller writes before it learns
LR = 0.01
DECAY = 0.9  # of the baseline, an average of the rewards before
ENTROPY = 0.001  # weight of the policy's entropy, which keeps it from settling at once
SIGNED = ("p_tg", "r2")  # qualities that may be below 0
TINY = 1e-12  # smallest scale of errors
ROUNDS = 10  # batches in a row without a new arch before a random one is taken


class Controller(nn.Module):
    """An LSTM that draws one value of each search variable after the other.

    Args:
        sizes: number of values of each variable, in the order in which they are drawn.
        seed: seed of the weights.
    """

    def __init__(self, sizes: Sequence[int], seed: int) -> None:
        super().__init__()
        self.start = nn.Parameter(torch.empty(HIDDEN))
        self.cell = nn.LSTMCell(HIDDEN, HIDDEN)
        self.embeddings = nn.ModuleList(nn.Embedding(size, HIDDEN) for size in sizes[:-1])
        self.heads = nn.ModuleList(nn.Linear(HIDDEN, size) for size in sizes)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.uniform_(-RANGE, RANGE, generator=generator)

    def walk(self, count: int, choose: Callable[[int, Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        """Write archs, and say how likely they are.

        Args:
            count: B, the number of archs.
            choose: returns the (B,) values of a variable from its number and the (B, size) log-probabilities.

        Returns:
            (B,) log-probability of each arch, and (B,) entropy of the policy along it; nats.
        """
        x = self.start.expand(count, HIDDEN)
        state = x.new_zeros(count, HIDDEN), x.new_zeros(count, HIDDEN)
        likely = x.new_zeros(count)
        entropy = x.new_zeros(count)
        for at, head in enumerate(self.heads):
            state = self.cell(x, state)
            log_probs = head(state[0]).log_softmax(1)  # (B, size)
            chosen = choose(at, log_probs)
            likely = likely + log_probs.gather(1, chosen[:, None])[:, 0]
            entropy = entropy - (log_probs.exp() * log_probs).sum(1)
            if at < len(self.embeddings):
                x = self.embeddings[at](chosen)
        return likely, entropy

    @torch.no_grad()
    def draw(self, count: int, seed: int) -> Tensor:
        """Draw archs from the policy.

        Returns:
            (B, D) indices.
        """
        generator = torch.Generator().manual_seed(seed)
        drawn: list[Tensor] = []

        def choose(at: int, log_probs: Tensor) -> Tensor:
            drawn.append(torch.multinomial(log_probs.exp(), 1, generator=generator)[:, 0])
            return drawn[-1]

        self.walk(count, choose)
        return torch.stack(drawn, 1)


def policy_loss(likely: Tensor, entropy: Tensor, rewards: Tensor, baseline: float) -> Tensor:
    """Return the loss whose gradient is REINFORCE's.

    Args:
        likely: (B,) log-probability of each arch.
        entropy: (B,) of the policy along it.
        rewards: (B,).
        baseline: what rewards are compared with.

    Source: Williams 1992; with an average reward as the baseline, Zoph and Le 2017.
    """
    return -((rewards - baseline) * likely).mean() - ENTROPY * entropy.mean()


def reward(quality: float, share: float) -> float:
    """Return what an arch is worth that was measured.

    Args:
        quality: its accuracy, or another number that is high for good archs.
        share: its cost as a share of the budget, above 0.

    Source: MnasNet (Tan et al. 2019), equation 2; AKD (Liu et al. 2020), with the accuracy of a distilled student.
    """
    return quality * share**COST_POWER


def has_unit(name: str) -> bool:
    """Whether a column is an error in a unit of the labels', such as MAE: its size says nothing by itself."""
    return low_is_better(name) and name.removeprefix(TUNED) != "kl"


def quality_of(name: str, value: float, scale: float = 1.0) -> float:
    """Return an objective's value so that high is good, and above 0, as a product with a cost must be.

    It is e to the minus of KL and errors, and of what R2 and ``p_tg``, which may be below 0, lack to 1.

    Args:
        name: its column.
        value: its value.
        scale: what counts as one of an error that `has_unit`: of years and of days the same archs are rewarded.
    """
    if low_is_better(name):
        return math.exp(-value / scale)
    return math.exp(value - 1.0) if name.removeprefix(TUNED) in SIGNED else value


class Proposer:
    """Proposes what the controller writes, and lets it learn when all archs of a batch have their rewards.

    An arch that was measured before is not proposed again: its reward is known. An arch over the budget is never
    measured; it gets the mean of what was measured so far, times the budget over its cost.

    Args:
        name: of the engine.
        quality: the objective that is rewarded.
        violations: returns by how much a point exceeds each bound, as a share of it.
    """

    def __init__(self, name: str, quality: str, violations: Callable[[Point], Mapping[str, float]]) -> None:
        self.name = name
        self.quality = quality
        self.violations = violations
        self.asked = 0  # number of rows that proposals were made after
        self.batches = 0
        self.batch: list[list[int]] = []
        self.known: dict[Point, float] = {}  # value of each point that was evaluated; NaN where there is none
        self.refused: set[Point] = set()  # points that turned out to be over the budget
        self.baseline: float | None = None

    def propose(self, problem: Problem, rows: Sequence[Row]) -> Point | None:
        """Return the next arch that was not measured; the same after the same rows, however often it was stopped."""
        if not self.asked:
            sizes = problem.variables.sizes
            self.controller = Controller(sizes, seed_for(problem.seed, "controller"))
            self.optimiser = torch.optim.Adam(self.controller.parameters(), lr=LR)
        found = None
        for number in range(self.asked, len(rows) + 1):
            if number:
                self._note(rows[number - 1], len(problem.variables.sizes))
            found = self._next(problem)
        self.asked = len(rows) + 1
        return found

    def _note(self, row: Row, dimensions: int) -> None:
        """Add what a row says."""
        point = point_of(row, dimensions)
        if row["kind"] == "infeasible":
            self.refused.add(point)
        else:
            self.known[point] = float(row[self.quality])

    def _worth(self, value: float) -> float:
        """Return the quality of a value; a network that gives no number is worth nothing."""
        return 0.0 if math.isnan(value) else quality_of(self.quality, value, self._scale)

    @property
    def _scale(self) -> float:
        """The median of the errors so far, where they have a unit."""
        values = [value for value in self.known.values() if math.isfinite(value)] if has_unit(self.quality) else []
        return max(statistics.median(values), TINY) if values else 1.0

    def _next(self, problem: Problem) -> Point | None:
        smallest = problem.variables.encode(problem.variables.space.smallest())
        if smallest not in self.known and smallest not in self.refused and problem.affordable(smallest):
            return smallest  # where the controller finds none within the budget, random ones are next to it
        for _ in range(ROUNDS):
            if not self.batch:
                seed = seed_for(problem.seed, "controller", self.batches)
                self.batch = self.controller.draw(BATCH, seed).tolist()
                self.batches += 1
            points = [problem.variables.canonical(point) for point in self.batch]
            for point in points:
                if point not in self.known and point not in self.refused and problem.affordable(point):
                    return point
            self._learn(points)
        return None

    def _learn(self, points: Sequence[Point]) -> None:
        """Move the policy towards the better half of a batch."""
        written = torch.tensor(self.batch)  # (B, D)
        likely, entropy = self.controller.walk(len(written), lambda at, _: written[:, at])
        rewards = torch.tensor([self._reward(point) for point in points])
        mean = float(rewards.mean())
        loss = policy_loss(likely, entropy, rewards, mean if self.baseline is None else self.baseline)
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
        self.baseline = mean if self.baseline is None else DECAY * self.baseline + (1 - DECAY) * mean
        self.batch = []

    def _reward(self, point: Point) -> float:
        over = self.violations(point)
        share = 1.0 + max(over.values(), default=0.0)
        if point in self.known:
            upper = [1.0 + value for name, value in over.items() if not name.startswith("min_")]
            return reward(self._worth(self.known[point]), max(upper, default=1.0))
        mean = statistics.fmean(map(self._worth, self.known.values())) if self.known else 1.0
        return mean * max(share, 1.0) ** OVER_POWER
