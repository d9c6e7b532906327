"""Losses between peers, and between a network and itself."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from nas_kd.config.kinds import checked
from nas_kd.losses._common import logit_pair, one_of, positive, same_shape, wide
from nas_kd.losses.divergence import kl_of_log


@checked
def mutual(student: Tensor, peers: Tensor) -> Tensor:
    """Deep mutual learning, one network's share: the mean KL of its peers' distributions from its own.

    Args:
        student: (B, C) logits.
        peers: (K, B, C) logits of the K others; no gradient goes to them.

    Source: Zhang et al., arXiv 1706.00384, eq. 5 and 8, at temperature 1.
    """
    s = wide(student)
    log_q = s.log_softmax(1)
    log_p = peers.detach().to(s.dtype).log_softmax(2)
    return kl_of_log(log_p, log_q.expand_as(log_p)).mean()


@checked
def peers_loss(student: Tensor, peers: Tensor, labels: Tensor, share: float = 1.0) -> Tensor:
    """Loss of the peers of a student: labels, the student and each other.

    Args:
        student: (B, C) logits; no gradient goes to it.
        peers: (K, B, C) logits.
        labels: (B,) classes.
        share: weight of :func:`mutual`; 0 leaves each peer to the labels.

    Returns:
        Scalar, the sum over the peers.
    """
    logits = [wide(student).detach(), *wide(peers)]
    total = torch.zeros((), dtype=logits[0].dtype, device=student.device)
    for k, own in enumerate(logits[1:], 1):
        total = total + F.cross_entropy(own, labels)
        if share:
            total = total + share * mutual(own, torch.stack(logits[:k] + logits[k + 1 :]))
    return total


@checked
def consistency(student: Tensor, teacher: Tensor, kind: str = "mse") -> Tensor:
    """Agreement of two predictions for one image.

    Args:
        student, teacher: (B, C) logits.
        kind: "mse" is the mean squared difference of the probabilities, "kl" their KL.

    Source: Tarvainen and Valpola, Mean teachers, arXiv 1703.01780, section 2 and 3.5.
    """
    one_of("kind", kind, ("mse", "kl"))
    s, t = logit_pair(student, teacher)
    if kind == "kl":
        return kl_of_log(t.log_softmax(1), s.log_softmax(1)).mean()
    return F.mse_loss(s.softmax(1), t.softmax(1))


@checked
def symmetric_kd(student: Tensor, teacher: Tensor, temperature: float = 3.0) -> Tensor:
    """Two predictions that teach each other: T^2 (KL(sg a || b) + KL(sg b || a)).

    Args:
        student: (B, C) logits a of one view.
        teacher: (B, C) logits b of the other; it learns too.
        temperature: T > 0.

    Source: Xu and Liu, Data-distortion guided self-distillation, AAAI 2019, eq. 6.
    """
    positive("temperature", temperature)
    a = wide(student) / temperature
    b = wide(teacher) / temperature
    log_a = a.log_softmax(1)
    log_b = b.log_softmax(1)
    both = kl_of_log(log_a.detach(), log_b) + kl_of_log(log_b.detach(), log_a)
    return temperature**2 * both.mean()


@checked
def linear_mmd(student: Tensor, teacher: Tensor) -> Tensor:
    """Squared distance of the means of two batches of features: MMD^2 with a linear kernel.

    Args:
        student: (B, D) of one view.
        teacher: (B, D) of the other; it learns too.

    Source: Xu and Liu, AAAI 2019, eq. 4.
    """
    return (wide(student).mean(0) - wide(teacher).mean(0)).square().sum()


@checked
def self_hint(student: Tensor, teacher: Tensor, variant: str = "paper") -> Tensor:
    """Squared distance of an exit's feature from the deepest one's.

    Args:
        student: (B, ...) feature of the exit.
        teacher: (B, ...) feature of the deepest stage.
        variant: "paper" counts every element, "code" only those where either side is above 0.

    Returns:
        Scalar, the sum over a sample's elements, the mean over the batch.

    Source: Zhang et al., Be your own teacher, arXiv 1905.08094, eq. 3; the mask is that of the authors' code.
    """
    one_of("variant", variant, ("paper", "code"))
    s, t = same_shape(student, teacher)
    squared = (s - t).square()
    if variant == "code":
        squared = squared * ((s > 0) | (t > 0))
    return squared.flatten(1).sum(1).mean()
