"""An ensemble of teachers with learned weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas_kd.errors import SettingError
from nas_kd.losses._common import wide
from nas_kd.losses.logits import mixture
from nas_kd.teacher.targets import TargetSource

if TYPE_CHECKING:
    from nas_kd.data import Batch, Data
    from nas_kd.distill.pair import Pair


class LearnedEnsemble(nn.Module, TargetSource):
    """A weighted mean of several teachers' probabilities; the weights, which sum to 1, are learned from the labels.

    Args:
        sources: at least two sources of logits of the same classes.

    Raises:
        SettingError: fewer than two sources.

    Source: You et al., Learning from multiple teacher networks, KDD 2017; learned as in AdaNAS, arXiv 1903.06236.
    """

    def __init__(self, sources: Sequence[TargetSource]) -> None:
        super().__init__()
        if len(sources) < 2:
            raise SettingError("teacher", len(sources), "a list of at least two teachers", "use kd with one teacher")
        self.sources = list(sources)
        self.scores = nn.Parameter(torch.zeros(len(sources)))

    @staticmethod
    def of(pair: Pair) -> LearnedEnsemble:
        """Build it from the ensemble that the user passed as ``teacher=[...]``."""
        return LearnedEnsemble(() if pair.source is None else pair.source.members)

    @property
    def fingerprint(self) -> str:
        return " + ".join(source.fingerprint for source in self.sources)

    @property
    def members(self) -> Sequence[TargetSource]:
        return self.sources

    @property
    def trained(self) -> nn.Module:
        return self

    def bind(self, data: Data, epochs: int = 0) -> LearnedEnsemble:
        for source in self.sources:
            source.bind(data, epochs)
        return self

    @property
    def shares(self) -> Tensor:
        """(K,) weights of the teachers."""
        return self.scores.detach().softmax(0)

    def logits(self, batch: Batch) -> Tensor:
        """Return (B, C) log-probabilities; only the weights get a gradient."""
        with torch.no_grad():
            each = torch.stack([source.logits(batch) for source in self.sources]).float()
        return mixture(each, self.scores)


def label_loss_of_target(target: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy of the targets (B, C), not detached, with the labels: it trains the weights of an ensemble."""
    return F.cross_entropy(wide(target), y)
