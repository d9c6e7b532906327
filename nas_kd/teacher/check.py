"""What is wrong with a teacher is looked for before anything is trained: on some images of the split `rate`."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from nas_kd.errors import SettingError
from nas_kd.teacher.linear import FOLDS, linear_probe
from nas_kd.teacher.suspicion import near_chance, other_order, surely_better

if TYPE_CHECKING:
    from nas_kd.data import Data
    from nas_kd.teacher.teacher import Teacher

_log = logging.getLogger(__name__)
IMAGES = 1000  # at most, whose answers are looked at
TRIED = 128  # of them, that each other normalisation is tried on
GOOD = 0.95  # accuracy that no other normalisation can improve on by much
WORK = 2e8  # images x features x classes of the linear probe
SOFTENED = 4.0  # the temperature of most methods
NORMALISATIONS = {
    "pixels of 0..1": (0.0, 1.0),
    "pixels of 0..255": (0.0, 1 / 255),
    "pixels of -1..1": (0.5, 0.5),
    "ImageNet's normalisation": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}


@dataclass(frozen=True)
class Finding:
    """Something that seems wrong with a teacher.

    Args:
        wrong: what was seen.
        cure: what mends it.
        fatal: whether students of such a teacher learn nothing useful; else it may be as it should.
    """

    wrong: str
    cure: str
    fatal: bool = True


@dataclass(frozen=True)
class TeacherCheck:
    """What was seen of a teacher on images of the split `rate`.

    Args:
        images: how many.
        accuracy: share of them that it knows; None without classes.
        chance: the accuracy of answers as frequent as its own, but unrelated to the images.
        probe: the accuracy of logistic regression on its own features, cross-validated; None where it was not tried.
        findings: what seems wrong.
    """

    images: int
    accuracy: float | None = None
    chance: float | None = None
    probe: float | None = None
    findings: tuple[Finding, ...] = ()

    @property
    def line(self) -> str:
        """The accuracy in words."""
        if self.accuracy is None or self.chance is None:
            return f"teacher: looked at on {self.images:,} rate images"
        probe = "" if self.probe is None else f", a linear probe of its features {self.probe:.1%}"
        return (
            f"teacher: {self.accuracy:.1%} of {self.images:,} rate images are right; chance is {self.chance:.1%}{probe}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return it in plain values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> TeacherCheck:
        """Read what `to_dict` returned."""
        findings = tuple(Finding(**finding) for finding in content["findings"])
        return cls(**{**content, "findings": findings})

    def judge(self, name: str, check: Literal["error", "warn"] = "error") -> Iterator[str]:
        """Yield the findings as warnings, a line each, once none of them is an error.

        Args:
            name: of the teacher.
            check: whether fatal findings are errors or warnings.

        Raises:
            SettingError: with all fatal findings.
        """
        fatal = [finding for finding in self.findings if finding.fatal]
        if fatal and check == "error":
            expected = "a teacher of these classes; " + "; ".join(finding.wrong for finding in fatal)
            cures = "; ".join(dict.fromkeys(finding.cure for finding in fatal))
            raise SettingError("teacher", name, expected, f"{cures} (teacher.check=warn goes on regardless)")
        for finding in self.findings:
            yield f"warning: teacher {name}: {finding.wrong}; {finding.cure}"


def check_teacher(
    teacher: Teacher, data: Data, *, check: Literal["error", "warn"] = "error", images: int = IMAGES
) -> TeacherCheck:
    """Look for what is wrong with a teacher, on images of the split `rate`.

    Errors are answers near chance, classes in another order, probabilities in the place of logits, values that are not
    finite, batch norms that were never measured, and a normalisation other than that it was trained with. Warnings are
    answers that are one-hot or all alike even when softened, log probabilities, and features that know more than it.

    Args:
        teacher: see `load_teacher`; it is bound to the data.
        check: whether what is surely wrong is an error or a warning.
        images: at most so many are looked at.

    Raises:
        SettingError: with what is wrong and what mends it.
    """
    found = examine(teacher.bind(data), data, images)
    for line in found.judge(teacher.name, check):
        _log.warning(line)
    return found


def examine(teacher: Teacher, data: Data, images: int = IMAGES, *, trained: bool = False) -> TeacherCheck:
    """Look for what is wrong with a teacher that is bound to the data; see `check_teacher`.

    Args:
        trained: it was trained on these data just before: classes and normalisation are the data's, and a short
            training may be all that was asked for, so that answers near chance are a warning.
    """
    if not len(data.rate):
        return TeacherCheck(0)
    logits, features, labels = _answers(teacher, data, images)
    count = len(logits)
    if not bool(torch.isfinite(logits).all()):
        share = (~torch.isfinite(logits)).any(1).double().mean()
        wrong = data.spoken(f"it answers NaN or infinity to {float(share):.1%} of {count} images")
        cure = "look at its weights, its precision and its normalisation (teacher.mean, teacher.std)"
        return TeacherCheck(count, findings=(Finding(wrong, cure),))
    findings = [*_probabilities(logits, data.kind)]
    if data.kind != "classes" or not len(labels) or int(labels.min()) < 0:
        return TeacherCheck(count, findings=(*findings, *_norms(teacher.network, known=False)))
    right = logits.argmax(1) == labels
    chance = _chance(logits.argmax(1), labels, data.num_classes)
    seen: list[Finding] = []
    if float(right.double().mean()) < GOOD:
        order = None if trained else other_order(logits.argmax(1).numpy(), labels.numpy(), data.num_classes)
        ordered = 0.0 if order is None else float((logits.argmax(1).numpy() == order[labels.numpy()]).mean())
        sure = trained or teacher.noted
        finding, normalised = (None, 0.0) if sure else _normalised(teacher, data)
        if finding is not None and normalised >= ordered:  # images of other brightness may shift classes, too
            seen = [finding]
        elif order is not None:
            seen = [_reordered(order, data.classes)]
        else:
            seen = [replace(each, wrong=data.spoken(each.wrong)) for each in _at_chance(right, chance, trained)]
    known = trained or not seen  # surely above chance
    probe = _probe(features, labels, data.num_classes)
    if probe is not None and surely_better(probe, right):
        wrong = f"logistic regression on its own features knows {float(probe.double().mean()):.1%} of the images, it "
        wrong += f"{float(right.double().mean()):.1%}"
        seen.append(Finding(data.spoken(wrong), "fine-tune it: teacher.epochs", fatal=False))
    accuracy = float(right.double().mean())
    every = (*findings, *seen, *_norms(teacher.network, known), *(() if findings else _confidence(logits)))
    return TeacherCheck(count, accuracy, chance, None if probe is None else float(probe.double().mean()), every)


def _answers(teacher: Teacher, data: Data, images: int) -> tuple[Tensor, Tensor | None, Tensor]:
    """Return logits (N, C), what the classifier reads (N, D), if that is known, and labels (N,)."""
    classifier = teacher.classifier(data.resolution)
    read: list[Tensor] = []
    handle = None
    if classifier is not None:
        keep = lambda module, args: read.append(args[0].flatten(1).float().cpu())  # noqa: E731
        handle = teacher.network.get_submodule(classifier).register_forward_pre_hook(keep)
    logits: list[Tensor] = []
    labels: list[Tensor] = []
    try:
        for batch in data.rate.clean(64, limit=min(images, len(data.rate))):
            logits.append(teacher(batch.x).float().cpu())
            labels.append(batch.y.cpu())
    finally:
        if handle is not None:
            handle.remove()
    features = torch.cat(read) if read and len({part.shape[1] for part in read}) == 1 else None
    whole = torch.cat(logits)
    return whole, features if features is not None and len(features) == len(whole) else None, torch.cat(labels)


def _chance(answers: Tensor, labels: Tensor, classes: int) -> float:
    """Return the accuracy of the same answers, were they given to images at random (Cohen's)."""
    shares = [torch.bincount(values, minlength=classes).double() / len(values) for values in (answers, labels)]
    return float(shares[0] @ shares[1])


def _at_chance(right: Tensor, chance: float, trained: bool) -> Iterator[Finding]:
    certain = near_chance(int(right.sum()), len(right), chance)
    if certain is not None:
        wrong = (
            f"{float(right.double().mean()):.1%} of {len(right)} images are right, and {chance:.1%} would be by chance"
        )
        cure = "look at its checkpoint, the order of its classes and its normalisation, or train it: teacher.epochs"
        yield Finding(wrong, cure, fatal=certain and not trained)


def _reordered(order: np.ndarray, classes: tuple[str, ...]) -> Finding:
    moved = [at for at in range(len(order)) if order[at] != at]
    shown = ", ".join(f"output {order[at]} is {classes[at]!r}" for at in moved[:10]) + (
        " ..." if len(moved) > 10 else ""
    )
    text = str(order.tolist()) if len(order) <= 100 else "the order that nas_kd.teacher.check_teacher finds"
    cure = (
        f"reorder its last layer, weight[order] and bias[order] with order = {text}, or name the classes in its order"
    )
    return Finding(f"its classes are in another order: {shown}", cure)


def _normalised(teacher: Teacher, data: Data) -> tuple[Finding | None, float]:
    """Try the usual normalisations of images; return the one that the teacher knows much more with, and how much."""
    batch = next(iter(data.rate.clean(TRIED, limit=min(TRIED, len(data.rate)))))
    labels = batch.y.cpu()
    right = teacher(batch.x).argmax(1).cpu() == labels
    best = right
    finding = None
    usual = {**NORMALISATIONS, "the data's normalisation": (data.mean, data.std)}
    own = (teacher.mean or data.mean, teacher.std or data.std)
    for name, pair in usual.items():
        values = [_per_channel(value, teacher.in_chans) for value in pair]
        if np.allclose(values[0], own[0], atol=0.02) and np.allclose(values[1], own[1], rtol=0.1):
            continue
        other = teacher.renormalised(data, *values)(batch.x)
        found = other.argmax(1).cpu() == labels
        if bool(torch.isfinite(other).all()) and found.sum() > best.sum() and surely_better(found, right):
            best = found
            rise = f"{float(right.double().mean()):.0%} to {float(found.double().mean()):.0%}"
            wrong = f"its accuracy rises from {rise} with {name} (on {len(right)} images)"
            mean, std = ([round(float(number), 4) for number in value] for value in values)
            finding = Finding(wrong, f"set teacher.mean={mean} and teacher.std={std}")
    return finding, float(best.double().mean())


def _per_channel(value: Any, channels: int) -> tuple[float, ...]:
    each = value if isinstance(value, tuple) else (value,)
    return each if len(each) == channels else (sum(each) / len(each),) * channels


def _probabilities(logits: Tensor, kind: str) -> Iterator[Finding]:
    """Tell outputs that are no logits: softening them has no meaning."""
    low = float(logits.min())
    high = float(logits.max())
    if kind == "multilabel" and 0 <= low and high <= 1:
        yield Finding("all its outputs are within 0 and 1: a sigmoid is at its end", "return what the sigmoid is given")
    if kind != "classes" or logits.shape[1] < 2:
        return
    if low >= 0 and bool((logits.sum(1) - 1).abs().max() < 1e-3):
        yield Finding("its outputs are positive and sum to one: a softmax is at its end", "return what it is given")
    elif high <= 0 and bool(logits.logsumexp(1).abs().max() < 1e-3):
        wrong = (
            "its outputs are log probabilities, which teach as logits do but for methods that compare them as they are"
        )
        yield Finding(wrong, "return what the log-softmax is given", fatal=False)


def _norms(network: nn.Module, known: bool) -> Iterator[Finding]:
    norms = [part for part in network.modules() if isinstance(part, _BatchNorm) and part.running_mean is not None]
    fresh = all(not part.running_mean.any() and part.running_var.eq(1).all() for part in norms)  # type: ignore[union-attr]
    if norms and fresh:
        wrong = f"all its {len(norms)} batch norms have a mean of 0 and a variance of 1: they were never measured"
        cure = "save running_mean and running_var too (model.state_dict()), or call nas_kd.calibrate(network, batches)"
        yield Finding(wrong, cure, fatal=not known)


def _confidence(logits: Tensor) -> Iterator[Finding]:
    top = float((logits / SOFTENED).softmax(1).amax(1).mean())
    if top > 0.999:
        wrong = f"its answers are one-hot even at temperature {SOFTENED:g} (mean of the largest probability {top:.4f})"
        yield Finding(wrong, "raise the method's temperature: such answers teach no more than labels", fatal=False)
    flat = float(logits.softmax(1).amax(1).mean())
    if flat < 1.05 / logits.shape[1]:
        wrong = f"its answers are nearly equal for all classes (mean of the largest probability {flat:.4f})"
        yield Finding(wrong, "look at the scale of its outputs, or lower the method's temperature", fatal=False)


def _probe(features: Tensor | None, labels: Tensor, classes: int) -> Tensor | None:
    """Return which images (N,) a cross-validated linear probe knows; None where there are too few or too many."""
    if features is None or not bool(torch.isfinite(features).all()) or features.numel() * classes > WORK:
        return None
    counts = torch.bincount(labels, minlength=classes)
    counts = counts[counts > 0]
    return linear_probe(features, labels) if len(counts) > 1 and int(counts.min()) >= FOLDS else None
