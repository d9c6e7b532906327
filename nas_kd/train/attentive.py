"""AttentiveNAS: among some archs of equal size, the best or the worst is trained, on the batch or by a predictor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from torch import nn

from nas_kd.runtime.seeds import seed_for
from nas_kd.space import Arch, ElasticSpace
from nas_kd.supernet.predictor import Predictor, fit_predictor
from nas_kd.train.loop import StepInfo
from nas_kd.train.rules import Sandwich, Score

MEASURED = 128  # subnets that a predictor learns from
WARM = 3  # after one epoch of so many, and by the label loss before


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


class Chooser(nn.Module):
    """A predictor of the quality of subnets, once some of them were measured; a part of checkpoints.

    Args:
        space: of the archs.
        seed: seed of the archs that are measured, and of the predictor.
    """

    def __init__(self, space: ElasticSpace, seed: int) -> None:
        super().__init__()
        self.space = space
        self.seed = seed
        self.predictor: Predictor | None = None
        self._measured: list[float] = []

    @property
    def archs(self) -> list[Arch]:
        """The archs that are measured, distinct ones; fewer than ``MEASURED`` in small spaces."""
        drawn = (self.space.sample(seed_for(self.seed, "chooser", draw)) for draw in range(4 * MEASURED))
        return list(dict.fromkeys(drawn))[:MEASURED]

    def learn(self, qualities: Sequence[float]) -> Predictor:
        """Fit the predictor to the qualities of `archs`, high for good ones."""
        self._measured = [float(quality) for quality in qualities]
        self.predictor = fit_predictor(self.space, self.archs, self._measured, self.seed)
        return self.predictor

    def get_extra_state(self) -> list[float]:
        """Return what was measured."""
        return self._measured

    def set_extra_state(self, state: list[float]) -> None:
        """Fit the predictor again to what was measured: it comes to the same."""
        if state:
            self.learn(state)


@dataclass(frozen=True)
class Attentive(Sandwich):
    """The sandwich whose random subnets are chosen among candidates of equal MACs, by label loss or by a predictor.

    Args:
        random: number of chosen subnets per step.
        candidates: archs to choose each subnet from; each costs a forward pass without gradient where the loss chooses.
        best: True trains the best (BestUp), False the worst (WorstUp).
        chooser: chooses by its predictor as soon as that has learned; None chooses by the label loss.

    Source: AttentiveNAS (Wang et al. 2021), section 3 and algorithm 1; there three candidates are drawn from
    the product of the marginals and rejected until they fit; here they are looked up.
    """

    table: MacsTable | None = None
    candidates: int = 3
    best: bool = True
    chooser: Chooser | None = None

    def draw(self, info: StepInfo, k: int, score: Score | None) -> Arch:
        assert self.table is not None and score is not None
        drawn = self.table.draw(self.candidates, self.seed, "attentive", info.epoch, info.step, k)
        if self.chooser is not None and self.chooser.predictor is not None:
            expected = self.chooser.predictor(drawn)
            return drawn[int(expected.argmax() if self.best else expected.argmin())]
        losses = score(drawn)
        return drawn[int(losses.argmin() if self.best else losses.argmax())]
