"""Similarity of what student and teacher make of the same images, which no adapter and no width enters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from nas_kd.nn import at_resolution
from nas_kd.rate.scores.base import Bench, Score
from nas_kd.runtime.device import place
from nas_kd.space import Arch
from nas_kd.supernet import calibrate
from nas_kd.teacher import pool_to

IMAGES = 256

Similarity = Callable[[Tensor, Tensor], Tensor]


def rdm_correlation(student: Tensor, teacher: Tensor) -> Tensor:
    """Correlate the dissimilarities that two features see between images.

    Args:
        student: (N, ...) feature of each image.
        teacher: (N, ...); the shapes may differ.

    Returns:
        Pearson's correlation of the upper triangles of the two matrices of 1 - r, -1 to 1.

    Source: representational dissimilarity (Kriegeskorte et al. 2008); TG-SAGE (Bashivan et al. 2019).
    """
    s, t = (dissimilarities(x) for x in (student, teacher))
    return _cosine(s - s.mean(), t - t.mean())


def dissimilarities(x: Tensor) -> Tensor:
    """Compare all pairs of images.

    Args:
        x: (N, ...) feature of each image.

    Returns:
        (N (N - 1) / 2,) of 1 - r, r being Pearson's correlation of two features: the matrix above its diagonal.
    """
    above = torch.triu_indices(len(x), len(x), 1)
    return 1.0 - _correlations(x)[above[0], above[1]]


def linear_cka(student: Tensor, teacher: Tensor) -> Tensor:
    """Compare the centred Gram matrices of two features.

    Args:
        student: (N, ...) feature of each image.
        teacher: (N, ...); the shapes may differ.

    Returns:
        0 to 1; 1 for features that differ by a rotation and a scale.

    Source: Kornblith et al. 2019, linear CKA.
    """
    s, t = (_centred(x) @ _centred(x).T for x in (student, teacher))
    return _cosine(s, t)


def _flat(x: Tensor) -> Tensor:
    return x.flatten(1).double() if x.device.type != "mps" else x.flatten(1)


def _centred(x: Tensor) -> Tensor:
    return _flat(x) - _flat(x).mean(0)


def _correlations(x: Tensor) -> Tensor:
    rows = _flat(x) - _flat(x).mean(1, keepdim=True)
    rows = rows / rows.norm(dim=1, keepdim=True)
    return rows @ rows.T


def _cosine(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum() / (a.norm() * b.norm())


@torch.no_grad()
def similarity_sum(similarity: Similarity, bench: Bench, archs: Sequence[Arch]) -> list[float]:
    """Add up, over the stages, the similarity of a calibrated subnet's feature and the teacher's."""
    net = place(bench.need_net(), bench.runtime)
    teacher = bench.need_teacher()
    x = bench.rating_images[:IMAGES]
    out = teacher.forward_stages(x)
    bench.used.teacher += len(x)
    sizes = [tap.student_size for tap in teacher.taps or ()]
    targets = [pool_to(feature, size) for feature, size in zip(out.pre, sizes, strict=True)]
    calibration = [
        batch.x.to(bench.runtime.device) for batch in bench.data.train.clean(512, limit=bench.calibration_images)
    ]
    training = net.training
    found = []
    for arch in archs:
        norm = calibrate(net, [at_resolution(images, arch.resolution) for images in calibration], [arch])[0]
        net.eval()
        mine = net.forward_stages(at_resolution(x, arch.resolution), arch, norm).pre
        net.train(training)
        bench.used.student += len(x) + sum(len(images) for images in calibration)
        pairs = zip(mine, targets, strict=True)
        found.append(sum(float(similarity(student, target)) for student, target in pairs))
    return found


SUPERNET = frozenset({"teacher", "features", "supernet"})
RDM = Score("RDM correlation", partial(similarity_sum, rdm_correlation), True, needs=SUPERNET)
CKA = Score("linear CKA", partial(similarity_sum, linear_cka), True, needs=SUPERNET)
