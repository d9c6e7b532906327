"""The embeddings of CRD and the memory bank of all images' embeddings."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas_kd import losses
from nas_kd.data import Batch
from nas_kd.distill.pair import Pair
from nas_kd.losses._common import wide


class Contrast(nn.Module):
    """Contrastive representation distillation on the pooled features.

    Args:
        negatives: noise samples shared by a batch (16384 as published), at most the number of images.
        temperature: of the scores.
        momentum: of the update of an image's embedding in the memory bank.

    Source: Tian et al., arXiv 1910.10699, section 3.2 and the authors' settings. Negatives may come from the image's
    own class, as in the authors' default.
    """

    single_process = True  # each process would store only its own images
    memory_student: Tensor
    memory_teacher: Tensor
    scales: Tensor

    def __init__(
        self, pair: Pair, width: int = 128, negatives: int = 16384, temperature: float = 0.07, momentum: float = 0.5
    ) -> None:
        super().__init__()
        ((s, t),) = pair.shapes("crd", "pooled")
        self.images = pair.images
        self.negatives = min(negatives, pair.images)
        self.temperature = temperature
        self.momentum = momentum
        self.embed_student = nn.Linear(s[0], width)
        self.embed_teacher = nn.Linear(t[0], width)
        bound = 1 / math.sqrt(width / 3)
        for side in ("student", "teacher"):
            memory = torch.empty(pair.images, width).uniform_(-bound, bound)
            self.register_buffer(f"memory_{side}", F.normalize(memory, dim=1))
        self.register_buffer("scales", torch.zeros(2))  # log Z, from the first batch
        self._scaled = False  # a Python flag: reading the buffer would synchronise with the device at every step

    def forward(self, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        """Return the loss of pooled features (B, D) and (B, D'), and update the memory bank with the batch."""
        s = F.normalize(wide(self.embed_student(student)), dim=1)
        t = F.normalize(wide(self.embed_teacher(teacher.detach())), dim=1)
        drawn = torch.randint(self.images, (self.negatives,), device=s.device)
        # eight times as fast as indexing on a CPU
        noise_s, noise_t = (memory.index_select(0, drawn) for memory in (self.memory_student, self.memory_teacher))
        if not self._scaled:
            with torch.no_grad():
                self.scales.copy_(torch.stack([self._log_mean(s, t, noise_t), self._log_mean(t, s, noise_s)]))
            self._scaled = True
        by_student, by_teacher = self.scales.clone()
        loss = losses.crd(s, t, noise_s, noise_t, self.images, by_student, by_teacher, self.temperature)
        self._remember(batch.index.to(s.device, non_blocking=True), s, t)
        return loss

    def get_extra_state(self) -> dict[str, bool]:
        """Return whether the constants are known, for checkpoints."""
        return {"scaled": self._scaled}

    def set_extra_state(self, state: dict[str, bool]) -> None:
        """Restore from a checkpoint."""
        self._scaled = state["scaled"]

    def _log_mean(self, anchor: Tensor, other: Tensor, noise: Tensor) -> Tensor:
        """Return log Z = log(N mean of the scores), which makes the mean score 1/N."""
        scores = torch.cat([(anchor * other).sum(1, keepdim=True), anchor @ noise.T], 1) / self.temperature
        return scores.flatten().logsumexp(0) - math.log(scores.numel()) + math.log(self.images)

    @torch.no_grad()
    def _remember(self, index: Tensor, s: Tensor, t: Tensor) -> None:
        for memory, now in ((self.memory_student, s), (self.memory_teacher, t)):
            mixed = self.momentum * memory[index] + (1 - self.momentum) * now
            memory[index] = F.normalize(mixed, dim=1)
