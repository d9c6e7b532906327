"""AttentiveNAS: of some archs of one size, the best or the worst on the batch is trained."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nas_kd.runtime import seed_for
from nas_kd.space import Arch, ElasticSpace
from nas_kd.train.loop import Moment
from nas_kd.train.rules import Sandwich, Score


class MacsTable:
    """Sampled archs by their MACs, so that an arch of a wanted size is looked up and not searched for.

    Args:
        space: the space.
        num_classes: classes of the head.
        in_chans: channels of the input image.
        resolution: input size where the space does not choose it, in pixels.
        seed: seed of the sample.
        size: archs to draw.
        bins: equal intervals between the fewest and the most MACs of the sample.
    """

    def __init__(
        self, space: ElasticSpace, *, num_classes: int, in_chans: int, resolution: int | None = None,
        seed: int = 0, size: int = 10_000, bins: int = 64,
    ) -> None:  # fmt: skip
        self.space = space
        self.codes = space.encode([space.sample(seed_for(seed, "table", k)) for k in range(size)])
        costs = space.costs(self.codes, resolution=resolution, in_chans=in_chans, num_classes=num_classes)
        self.macs = costs["macs"].to_numpy()
        edges = np.linspace(self.macs.min(), self.macs.max(), bins + 1)
        self.bin = np.digitize(self.macs, edges[1:-1])  # (size,) 0 .. bins - 1
        self.members = [np.flatnonzero(self.bin == number) for number in range(bins)]

    def draw(self, count: int, *seed: int | str) -> list[Arch]:
        """Draw archs of one size.

        Args:
            count: wanted number.
            seed: what the draw is for.

        Returns:
            Different rows of one bin, which is drawn as often as archs of the space fall into it; fewer than
            ``count`` where the bin has no more.
        """
        rng = np.random.default_rng(seed_for(*seed))
        members = self.members[self.bin[rng.integers(len(self.bin))]]
        chosen = rng.choice(members, min(count, len(members)), replace=False)
        return self.space.decode(self.codes[chosen])


@dataclass(frozen=True)
class Attentive(Sandwich):
    """The sandwich whose random subnets are chosen among candidates of equal MACs by their label loss.

    Args:
        space: the space.
        seed: the run's seed.
        random: number of chosen subnets a step.
        order: as in ``Sandwich``.
        teacher_weight: as in ``Sandwich``.
        table: archs by MACs.
        candidates: archs to choose each from; every one costs a forward pass without gradient.
        best: True trains the best (BestUp), False the worst (WorstUp).

    Source: AttentiveNAS (Wang et al. 2021), section 3 and algorithm 1; there three candidates are drawn from
    the product of the sizes' marginals and rejected until they fit, here looked up.
    """

    table: MacsTable | None = None
    candidates: int = 3
    best: bool = True

    def draw(self, moment: Moment, k: int, score: Score | None) -> Arch:
        assert self.table is not None and score is not None
        drawn = self.table.draw(self.candidates, self.seed, "attentive", moment.epoch, moment.step, k)
        losses = score(drawn)
        return drawn[int(losses.argmin() if self.best else losses.argmax())]
