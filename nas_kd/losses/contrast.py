"""Contrastive losses on embeddings."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from nas_kd.config.kinds import checked
from nas_kd.losses._common import wide


@checked
def nce(positive: Tensor, negative: Tensor, images: int, eps: float = 0.0) -> Tensor:
    """Noise-contrastive estimation: classify one true pair against K noise pairs.

    Args:
        positive: (B,) log of the unnormalised score h of every sample's true pair.
        negative: (B, K) log scores with the noise.
        images: N, the number of images the noise is drawn from.
        eps: added to every denominator; 1e-7 in the authors' code.

    Returns:
        Scalar, the mean over the batch of -log(h / (h + K/N)) - sum_K log((K/N) / (h_k + K/N)). Where every score is
        1/N it is log(1 + K) + K log(1 + 1/K).

    Source: Tian et al., Contrastive representation distillation, arXiv 1910.10699, eq. 10, 17 and 18, in the form of
    the authors' code.
    """
    p = wide(positive)
    n = wide(negative)
    share = n.shape[1] / images
    noise = math.log(share + eps)
    # log(h / (h + c)) = -softplus(log c - log h), which neither overflows nor cancels
    data_term = F.softplus(noise - p)
    noise_term = F.softplus(n - noise).sum(1) + n.shape[1] * math.log1p(eps / share)
    return (data_term + noise_term).mean()


@checked
def crd(
    student: Tensor,
    teacher: Tensor,
    noise_student: Tensor,
    noise_teacher: Tensor,
    images: int,
    scale_student: Tensor | float = 0.0,
    scale_teacher: Tensor | float = 0.0,
    temperature: float = 0.07,
) -> Tensor:
    """Contrastive representation distillation of embeddings of one batch, with negatives that all of it shares.

    Args:
        student: (B, D) embeddings of length 1.
        teacher: (B, D) embeddings of length 1; not detached, because its embedding layer is trained too.
        noise_student: (K, D) embeddings of other images by the student, of length 1.
        noise_teacher: (K, D) embeddings of the same images by the teacher.
        images: N, the number of images the noise is drawn from.
        scale_student: log of the normalisation constant Z of the student's anchors.
        scale_teacher: the same for the teacher's anchors.
        temperature: T of the scores exp(s.t / T).

    Returns:
        Scalar, the sum of both anchors' losses; invariant to the order of the negatives.

    Source: Tian et al., arXiv 1910.10699, eq. 18, in a cheaper form than the paper's: it has a positive from the memory
    and K negatives for every sample (see `nas_kd.distill.contrast.Contrast`), here all share theirs.
    """
    s = wide(student)
    t = wide(teacher)
    with torch.autocast(device_type=s.device.type, enabled=False):
        true = (s * t).sum(1) / temperature
        by_student = (s / temperature) @ noise_teacher.to(s.dtype).T  # divides B D numbers instead of B K
        by_teacher = (t / temperature) @ noise_student.to(s.dtype).T
    return nce(true - scale_student, by_student - scale_student, images) + nce(
        true - scale_teacher, by_teacher - scale_teacher, images
    )
