"""AttentiveNAS: among some archs of equal size, the best or the worst on the batch is trained."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from nas_kd.runtime.seeds import seed_for
from nas_kd.space import Arch, ElasticSpace
from nas_kd.train.loop import StepInfo
from nas_kd.train.rules import Sandwich, Score


@dataclass(frozen=True)
class MacsTable:
    """Sampled archs grouped by their MACs, to look up archs of equal size; filled on first use.

    Args:
        resolution: input size in pixels if the space does not choose it.
        size: number of sampled archs.
        bins: number of equal intervals between the fewest and the most MACs of the sample.
    """

    space: ElasticSpace
    num_classes: int
    in_chans: int
    resolution: int | None = None
    seed: int = 0
    size: int = 10_000
    bins: int = 64

    @cached_property
    def codes(self) -> np.ndarray:
        """The codes (size, D) of the archs; see ``ElasticSpace.encode``."""
        return self.space.encode([self.space.sample(seed_for(self.seed, "table", k)) for k in range(self.size)])

    @cached_property
    def macs(self) -> np.ndarray:
        """Their MACs, (size,)."""
        settings = {"in_chans": self.in_chans, "num_classes": self.num_classes}
        return self.space.costs(self.codes, resolution=self.resolution, **settings)["macs"].to_numpy()

    @cached_property
    def bin(self) -> np.ndarray:
        """Their bins, (size,), 0 to ``bins - 1``."""
        edges = np.linspace(self.macs.min(), self.macs.max(), self.bins + 1)
        return np.digitize(self.macs, edges[1:-1])

    def draw(self, count: int, *seed: int | str) -> list[Arch]:
        """Draw archs of about equal MACs.

        Args:
            seed: parts of the seed of the draw.

        Returns:
            Distinct archs of one bin, drawn with the probability of its size; fewer than ``count`` if the bin has no
            more.
        """
        rng = np.random.default_rng(seed_for(*seed))
        members = np.flatnonzero(self.bin == self.bin[rng.integers(self.size)])
        chosen = rng.choice(members, min(count, len(members)), replace=False)
        return self.space.decode(self.codes[chosen])


@dataclass(frozen=True)
class Attentive(Sandwich):
    """The sandwich whose random subnets are chosen among candidates of equal MACs by their label loss.

    Args:
        random: number of chosen subnets per step.
        candidates: archs to choose each subnet from; each costs a forward pass without gradient.
        best: True trains the best (BestUp), False the worst (WorstUp).

    Source: AttentiveNAS (Wang et al. 2021), section 3 and algorithm 1; there three candidates are drawn from
    the product of the marginals and rejected until they fit; here they are looked up.
    """

    table: MacsTable | None = None
    candidates: int = 3
    best: bool = True

    def draw(self, info: StepInfo, k: int, score: Score | None) -> Arch:
        assert self.table is not None and score is not None
        drawn = self.table.draw(self.candidates, self.seed, "attentive", info.epoch, info.step, k)
        losses = score(drawn)
        return drawn[int(losses.argmin() if self.best else losses.argmax())]
