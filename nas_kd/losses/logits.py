"""Losses on logits: student (B, C), teacher (B, C), labels (B,); the mean over the batch, a scalar."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from nas_kd.config.kinds import checked
from nas_kd.errors import SettingError
from nas_kd.losses._common import logit_pair, one_of, pearson, positive, wide
from nas_kd.losses.divergence import kl_divergence, kl_of_log


@checked
def kd(student: Tensor, teacher: Tensor, temperature: float = 4.0) -> Tensor:
    """Knowledge distillation: T^2 KL(softmax(t / T) || softmax(s / T)).

    Args:
        student, teacher: (B, C) logits.
        temperature: T > 0; T^2 keeps the gradient's size as T changes.

    Raises:
        SettingError: the temperature is not positive.

    Source: Hinton et al., arXiv 1503.02531, section 2.
    """
    positive("temperature", temperature)
    s, t = logit_pair(student, teacher)
    return temperature**2 * kl_divergence(s / temperature, t / temperature)


@checked
def standardise(logits: Tensor, eps: float = 1e-7) -> Tensor:
    """Logits of zero mean and unit (unbiased) standard deviation in every sample.

    Args:
        logits: (B, C).
        eps: added to the standard deviation, so that equal logits give zeros.

    Returns:
        (B, C) in fp32 or float64.

    Source: Sun et al., Logit standardization in knowledge distillation, arXiv 2403.01427, algorithm 1.
    """
    z = wide(logits)
    return (z - z.mean(1, keepdim=True)) / (z.std(1, keepdim=True) + eps)


@checked
def kd_ls(student: Tensor, teacher: Tensor, temperature: float = 2.0) -> Tensor:
    """Knowledge distillation of standardised logits: the student need not match the teacher's scale.

    Args:
        student, teacher: (B, C) logits.
        temperature: base temperature, > 0.

    Source: Sun et al., arXiv 2403.01427, eq. 13.
    """
    s, t = logit_pair(student, teacher)
    return kd(standardise(s), standardise(t), temperature)


@checked
def logit_mse(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared difference of the logits, over batch and classes.

    Args:
        student, teacher: (B, C) logits.

    Returns:
        Scalar; with both sides centred, half of it is the limit of :func:`kd` at infinite temperature.

    Source: Ba and Caruana, arXiv 1312.6184, eq. 1.
    """
    s, t = logit_pair(student, teacher)
    return F.mse_loss(s, t)


@checked
def dkd(
    student: Tensor,
    teacher: Tensor,
    labels: Tensor,
    alpha: float = 1.0,
    beta: float = 8.0,
    temperature: float = 4.0,
) -> Tensor:
    """Decoupled distillation: T^2 (alpha TCKD + beta NCKD).

    TCKD is the KL of (target, rest), NCKD the KL of the distributions among the other classes.

    Args:
        student, teacher: (B, C) logits.
        labels: (B,) int64 classes; soft labels have no single target.
        alpha: weight of the target part.
        beta: weight of the other classes' part; published values go from 2 to 8 with the pair.
        temperature: T > 0.

    Returns:
        Scalar; with two classes the second part is 0.

    Raises:
        ValueError: labels are not (B,) class numbers.

    Source: Zhao et al., arXiv 2203.08679, eq. 7. Here the target is deleted in log-space, where a masked softmax would
    underflow.
    """
    positive("temperature", temperature)
    s, t = logit_pair(student, teacher)
    if labels.shape != s.shape[:1] or labels.is_floating_point():
        raise ValueError(f"labels must be class numbers (B,), not {labels.dtype} {tuple(labels.shape)}")
    target = labels.long()[:, None]  # (B, 1); a boolean mask would synchronise with the device
    binary_s, rest_s = _decouple(s / temperature, target)
    binary_t, rest_t = _decouple(t / temperature, target)
    tckd = kl_of_log(binary_t, binary_s)
    nckd = kl_of_log(rest_t, rest_s)
    return temperature**2 * (alpha * tckd + beta * nckd).mean()


def _decouple(z: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probabilities of (target, rest), (B, 2), and among the rest, (B, C) with -inf at the target."""
    log_p = z.log_softmax(1)
    others = log_p.scatter(1, target, float("-inf"))
    rest = others.logsumexp(1, keepdim=True)
    return torch.cat([log_p.gather(1, target), rest], 1), others - rest


@checked
def dist(student: Tensor, teacher: Tensor, beta: float = 1.0, gamma: float = 1.0, temperature: float = 4.0) -> Tensor:
    """DIST: T^2 (beta (1 - rho of samples) + gamma (1 - rho of classes)), rho Pearson's correlation.

    Args:
        student, teacher: (B, C) logits.
        beta: weight of the inter-class part, one correlation a row of probabilities.
        gamma: weight of the intra-class part, one correlation a column; use B of 32 or more; a column that
            does not vary (B = 1) counts as uncorrelated.
        temperature: T > 0.

    Returns:
        Scalar in 0 .. 2 T^2 (beta + gamma).

    Source: Huang et al., arXiv 2205.10536, eq. 8 to 10.
    """
    positive("temperature", temperature)
    s, t = logit_pair(student, teacher)
    q = (s / temperature).softmax(1)
    p = (t / temperature).softmax(1)
    inter = 1 - pearson(q, p).mean()
    intra = 1 - pearson(q.T, p.T).mean()
    return temperature**2 * (beta * inter + gamma * intra)


@checked
def standardised(
    loss: Callable[..., Tensor], student: Tensor, teacher: Tensor, *rest: Tensor, **settings: Any
) -> Tensor:
    """Any logit loss on standardised logits.

    Args:
        loss: such as :func:`dkd`.
        student, teacher: (B, C) logits.
        rest: further inputs of the loss, such as labels.
        settings: keywords of the loss.

    Returns:
        Scalar, invariant to a shift and a positive scale of each sample's logits on either side.

    Source: Sun et al., arXiv 2403.01427, eq. 13.
    """
    s, t = logit_pair(student, teacher)
    return loss(standardise(s), standardise(t), *rest, **settings)


@checked
def virtual_teacher(
    student: Tensor, labels: Tensor, correct: float = 0.99, temperature: float = 20.0, variant: str = "code"
) -> Tensor:
    """Teacher-free distillation: KL(u' || softmax(s)), u peaked at the label and uniform elsewhere, u' softened.

    The virtual teacher gives the label ``correct`` and every other class the same share of the rest.

    Args:
        student: (B, C) logits.
        labels: (B,) int64 classes.
        correct: the label's probability before softening, 1/C < correct < 1.
        temperature: T > 0.
        variant: "code" softens the probabilities, softmax(u / T), and leaves the student as it is: at T = 20 they are
            nearly uniform; "paper" softens log u and the student's logits alike, u^(1/T) normalised and softmax(s / T),
            times T^2, which at T = 1 is the cross-entropy with smoothed labels, minus the constant entropy of u.

    Returns:
        Scalar.

    Raises:
        SettingError: ``correct`` would not make the label the likeliest class, or an unknown variant.

    Source: Yuan et al., Revisiting knowledge distillation via label smoothing, arXiv 1909.11723, eq. 8 and 9. The
    authors' code divides by C as well, which its multiplier of 100 takes back with 100 classes.
    """
    one_of("variant", variant, ("code", "paper"))
    classes = student.shape[1]
    if not 1 / classes < correct < 1:
        raise SettingError("correct", correct, f"above 1/{classes} and below 1")
    positive("temperature", temperature)
    s = wide(student)
    rest = (1 - correct) / (classes - 1)
    target = torch.full_like(s.detach(), rest).scatter(1, labels.long()[:, None], correct)
    if variant == "paper":
        return kd(s, target.log(), temperature)
    return kl_divergence(s, target / temperature)


@checked
def mixture(logits: Tensor, weights: Tensor) -> Tensor:
    """Log-probabilities of a weighted mean of several teachers' probabilities.

    Args:
        logits: (K, B, C) of K teachers.
        weights: (K,) unnormalised; their softmax weighs the teachers.

    Returns:
        (B, C) log-probabilities, which are logits too.

    Source: You et al., Learning from multiple teacher networks, KDD 2017, eq. 3 (equal weights); the mean of logits is
    another target, the geometric mean.
    """
    z = wide(logits)
    return (z.log_softmax(2) + weights.to(z.dtype).log_softmax(0)[:, None, None]).logsumexp(0)
