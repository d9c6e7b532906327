"""The embeddings of CRD and the memory bank of all images' embeddings."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas_kd import losses
from nas_kd.data import Batch
from nas_kd.distill.pair import Pair
from nas_kd.errors import SettingError
from nas_kd.losses._common import one_of, wide

EPS = 1e-7  # of the authors' denominators


class Contrast(nn.Module):
    """Contrastive representation distillation on the pooled features.

    The memory bank takes 1 kB an image. A step of "exact" and "relax" scores a batch against all N images in about 28
    bytes times batch times N: 133 MiB for 64 of 50,000 images, 896 MiB for 64 of 500,000 (measured on a CPU). From
    there on "shared" is the form to take: what a step of it adds does not grow with N.

    Args:
        pair: its labels tell which images are of other classes; where labels are no classes, every image is of its own.
        negatives: noise samples of every image (16384 as published), drawn anew in every step: none twice where there
            are as many, else with replacement.
        temperature: of the scores.
        momentum: of the update of an image's embedding in the memory bank.
        variant: "exact", the authors' default: the positive is the image's own embedding by the other network in the
            memory, the negatives are the memory of images of other classes; "relax": the positive is that of any image
            of the class; "shared": the positive is the embedding of the same step, and a batch shares its negatives,
            which may be of the own class. It costs a fraction, but its gradient is another.


    Raises:
        SettingError: an unknown variant.

    Source: Tian et al., arXiv 1910.10699, section 3.2, and the authors' code and settings.
    """

    single_process = True  # each process would store only its own images
    memory_student: Tensor
    memory_teacher: Tensor
    scales: Tensor
    classes: Tensor
    by_class: Tensor
    starts: Tensor
    counts: Tensor

    def __init__(
        self,
        pair: Pair,
        width: int = 128,
        negatives: int = 16384,
        temperature: float = 0.07,
        momentum: float = 0.5,
        variant: str = "exact",
    ) -> None:
        super().__init__()
        one_of("crd.variant", variant, ("exact", "relax", "shared"))
        ((s, t),) = pair.shapes("crd", "pooled")
        self.images = pair.images
        self.variant = variant
        self.negatives = min(negatives, pair.images) if variant == "shared" else negatives
        self.temperature = temperature
        self.momentum = momentum
        self.embed_student = nn.Linear(s[0], width)
        self.embed_teacher = nn.Linear(t[0], width)
        bound = 1 / math.sqrt(width / 3)  # lengths are 1 on average
        for side in ("student", "teacher"):
            memory = torch.empty(pair.images, width).uniform_(-bound, bound)
            self.register_buffer(f"memory_{side}", F.normalize(memory, dim=1) if variant == "shared" else memory)
        self.register_buffer("scales", torch.zeros(2))  # log Z, from the first batch
        self._scaled = False  # a Python flag: reading the buffer would synchronise with the device at every step
        classes = _classes(pair)
        counts = torch.bincount(classes)
        self._fewest = pair.images - int(counts.max())  # images of other classes, of the largest class
        if variant != "shared" and not self._fewest:
            expected = "training images of two classes or more: negatives are of other classes"
            raise SettingError("method", "crd", expected, "use --method.variant shared, or another method")
        # in the order of the classes, those of one are a run
        found = {"classes": classes, "by_class": classes.argsort(stable=True), "counts": counts}
        found["starts"] = counts.cumsum(0) - counts
        for name, tensor in found.items():
            self.register_buffer(name, tensor, persistent=False)  # of the data, not of a checkpoint

    def forward(self, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        """Return the loss of pooled features (B, D) and (B, D'), and update the memory bank with the batch."""
        s = F.normalize(wide(self.embed_student(student)), dim=1)
        t = F.normalize(wide(self.embed_teacher(teacher.detach())), dim=1)
        index = batch.index.to(s.device, non_blocking=True)
        loss = self._of_batch(s, t) if self.variant == "shared" else self._of_memory(s, t, index)
        self._remember(index, s, t)
        return loss

    def _of_memory(self, s: Tensor, t: Tensor, index: Tensor) -> Tensor:
        """Return the authors' loss: every sample against the memory of one positive and of its own negatives."""
        drawn = torch.cat([self.positives(index)[:, None], self.others(index)], 1)  # (B, 1 + K)
        sides = []
        with torch.autocast(device_type=s.device.type, enabled=False):
            for anchor, memory in ((s, self.memory_teacher), (t, self.memory_student)):
                # all scores by one product, then those drawn: a gather of (B, K, D) would be larger. Of a copy, because
                # the memory changes before the backward pass
                every = (anchor / self.temperature) @ memory.to(anchor.dtype, copy=True).T  # (B, N)
                sides.append(every.gather(1, drawn))
        if not self._scaled:
            with torch.no_grad():
                self.scales.copy_(torch.stack([self._log_mean(scores) for scores in sides]))
            self._scaled = True
        by_student, by_teacher = (side - z for side, z in zip(sides, self.scales.clone(), strict=True))
        one, other = (losses.nce(x[:, 0], x[:, 1:], self.images, EPS) for x in (by_student, by_teacher))
        return one + other

    def _of_batch(self, s: Tensor, t: Tensor) -> Tensor:
        """Return the loss of the batch's own embeddings, with negatives that all of it shares."""
        drawn = torch.randint(self.images, (self.negatives,), device=s.device)
        # eight times as fast as indexing on a CPU
        noise_s, noise_t = (memory.index_select(0, drawn) for memory in (self.memory_student, self.memory_teacher))
        if not self._scaled:
            with torch.no_grad():
                true = (s * t).sum(1, keepdim=True)
                scores = [torch.cat([true, a @ noise.T], 1) for a, noise in ((s, noise_t), (t, noise_s))]
                self.scales.copy_(torch.stack([self._log_mean(x / self.temperature) for x in scores]))
            self._scaled = True
        by_student, by_teacher = self.scales.clone()
        return losses.crd(s, t, noise_s, noise_t, self.images, by_student, by_teacher, self.temperature)

    def positives(self, index: Tensor) -> Tensor:
        """Return the numbers of the images whose memory is the positive of each of (B,) images."""
        if self.variant != "relax":
            return index
        c = self.classes[index]
        place = (torch.rand(len(index), device=index.device, dtype=torch.float64) * self.counts[c]).long()
        return self.by_class[self.starts[c] + place]

    def others(self, index: Tensor) -> Tensor:
        """Draw K images of other classes for each of (B,) images, (B, K): none twice where there are as many."""
        c = self.classes[index][:, None]
        start, count = self.starts[c], self.counts[c]
        if self._fewest >= self.negatives:
            keys = torch.rand(len(index), self.images, device=index.device)
            keys.masked_fill_(self.classes == c, 2.0)  # above all others
            return keys.topk(self.negatives, dim=1, largest=False, sorted=False).indices
        shape = (len(index), self.negatives)
        place = (torch.rand(shape, device=index.device, dtype=torch.float64) * (self.images - count)).long()
        return self.by_class[place + torch.where(place >= start, count, 0)]  # past the run of the own class

    def get_extra_state(self) -> dict[str, bool]:
        """Return whether the constants are known, for checkpoints."""
        return {"scaled": self._scaled}

    def set_extra_state(self, state: dict[str, bool]) -> None:
        """Restore from a checkpoint."""
        self._scaled = state["scaled"]

    def _log_mean(self, scores: Tensor) -> Tensor:
        """Return log Z = log(N mean of the scores), which makes the mean score 1/N."""
        return scores.flatten().logsumexp(0) - math.log(scores.numel()) + math.log(self.images)

    @torch.no_grad()
    def _remember(self, index: Tensor, s: Tensor, t: Tensor) -> None:
        for memory, now in ((self.memory_student, s), (self.memory_teacher, t)):
            mixed = self.momentum * memory[index] + (1 - self.momentum) * now
            memory[index] = F.normalize(mixed, dim=1)


def _classes(pair: Pair) -> Tensor:
    """(N,) class of every training image; one whose class is not known, or of data without classes, is of its own."""
    own = torch.arange(pair.images)
    if pair.classes is None:
        return own
    known = pair.classes.to("cpu", torch.int64)
    return torch.where(known >= 0, known, known.amax().clamp_min(-1) + 1 + own)
