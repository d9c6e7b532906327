"""Several teachers as one whose shares are learnt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas_kd.distill.source import TargetSource, TeacherEnsemble
from nas_kd.errors import SettingError
from nas_kd.losses._common import wide
from nas_kd.losses.logits import mixture
from nas_kd.nn.output import Output

if TYPE_CHECKING:
    from nas_kd.data import Batch
    from nas_kd.distill.pair import Pair


class LearnedEnsemble(nn.Module):
    """A weighted mean of several teachers' probabilities; the weights, which sum to 1, learn from the labels.

    Args:
        sources: at least two sources of logits of the same classes.

    Raises:
        SettingError: fewer than two sources.

    Source:
        You et al., Learning from multiple teacher networks, KDD 2017; learnt as in AdaNAS, arXiv 1909.08911.
    """

    def __init__(self, sources: Sequence[TargetSource]) -> None:
        super().__init__()
        if len(sources) < 2:
            raise SettingError("teacher", len(sources), "a list of at least two teachers", "or use kd_ls")
        self.sources = list(sources)
        self.scores = nn.Parameter(torch.zeros(len(sources)))

    @staticmethod
    def of(pair: Pair) -> LearnedEnsemble:
        """Take the sources of the ensemble that the user gave as ``teacher=[...]``."""
        return LearnedEnsemble(pair.source.sources if isinstance(pair.source, TeacherEnsemble) else [])

    @property
    def fingerprint(self) -> str:
        """The fingerprints of all sources."""
        return TeacherEnsemble(self.sources).fingerprint

    @property
    def shares(self) -> Tensor:
        """(K,) share of every teacher."""
        return self.scores.detach().softmax(0)

    def forward(self, batch: Batch) -> Tensor:
        """Return (B, C) log-probabilities; a gradient goes to the shares alone."""
        with torch.no_grad():
            found = [source(batch) for source in self.sources]
            logits = torch.stack([x.logits if isinstance(x, Output) else x for x in found]).float()
        return mixture(logits, self.scores)


def label_loss_of_target(target: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy of the targets themselves with the labels: what the shares of an ensemble learn from.

    Args:
        target: (B, C) logits that are not detached.
        y: (B,) classes.

    Returns:
        Scalar.
    """
    return F.cross_entropy(wide(target), y)
