"""BSS: images on the teacher's decision boundary, found with its input gradient."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from nas_kd import losses
from nas_kd.data import Batch
from nas_kd.distill.game import open_teacher
from nas_kd.distill.pair import Pair
from nas_kd.losses._common import positive


def attack(
    network: Callable[[Tensor], Tensor],
    x: Tensor,
    y: Tensor,
    toward: Tensor,
    steps: int = 10,
    rate: float = 0.3,
    limit: float = 2.5,
) -> tuple[Tensor, Tensor]:
    """Move images across a network's decision boundary towards a class, each until its class changes.

    Args:
        network: returns (B, C) logits, with a gradient for its input.
        x: (B, C, H, W) images.
        y: (B,) their classes; misclassified images are not moved.
        toward: (B,) the other class to move towards.
        steps: maximum number of steps.
        rate: length of a step for a gap of 1 between the two logits.
        limit: maximum magnitude of a moved pixel, in the units of the images.

    Returns:
        (B, C, H, W) images, and (B,) whether each was moved and its class changed.

    Source: Heo et al., Knowledge distillation with adversarial samples supporting decision boundary, arXiv 1805.05532,
    eq. 4 to 6.
    """
    moved = x.detach().clone()
    going = started = network(moved).argmax(1) == y
    for _ in range(steps):  # a fixed number of steps: an early exit would synchronise with the device
        moved.requires_grad_(True)
        with torch.enable_grad():
            z = network(moved)
            gap = (z.gather(1, y[:, None]) - z.gather(1, toward[:, None]))[:, 0]
            (grad,) = torch.autograd.grad(gap.sum(), moved)
        going = going & (z.argmax(1) == y)
        length = grad.flatten(1).norm(dim=1).clamp_min(1e-12)
        step = (rate * (gap.detach() + 1e-4) / length).view(-1, *(1,) * (x.ndim - 1))
        now = (moved.detach() - step * grad).clamp(-limit, limit)
        moved = torch.where(going.view(-1, *(1,) * (x.ndim - 1)), now, moved.detach())
    return moved, started & (network(moved).argmax(1) != y)


class Boundary(nn.Module):
    """The student matches the teacher on images at the teacher's decision boundary.

    Args:
        pair: student and teacher; the teacher must run live.
        attacked: maximum number of moved images per batch.
        temperature: of both sides' logits; without T^2, as published.

    Source: Heo et al., arXiv 1805.05532, section 3; the class to move towards is drawn from the teacher's
    probabilities.
    """

    def __init__(
        self, pair: Pair, attacked: int = 64, steps: int = 10, rate: float = 0.3, temperature: float = 3.0
    ) -> None:
        super().__init__()
        inside, normalise = open_teacher(pair.source, "bss")
        self._teacher: Callable[[Tensor], Tensor] = lambda x: inside(normalise(x))
        self._student = (pair.model,)  # a tuple keeps it out of this module's parameters
        self.attacked = attacked
        self.steps = steps
        self.rate = rate
        self.temperature = positive("temperature", temperature)

    def forward(self, student: Tensor, teacher: Tensor, y: Tensor, batch: Batch) -> Tensor:
        """Return the mean KL on the moved images, 0 if none could be moved; logits are (B, C)."""
        with torch.no_grad():
            fit = (teacher.argmax(1) == y) & (student.argmax(1) == y)
            mixed = fit + torch.rand(len(y), device=y.device) / 2  # correctly classified images first, in random order
            chosen = mixed.topk(min(self.attacked, len(y))).indices
            others = (teacher[chosen].float().softmax(1) + 1e-12).scatter(1, y[chosen, None], 0.0)
            toward = (others / torch.empty_like(others).exponential_()).argmax(
                1
            )  # a random draw; multinomial would synchronise
        with torch.autocast(device_type=y.device.type, enabled=False):
            x, hit = attack(self._teacher, batch.x[chosen].float(), y[chosen], toward, self.steps, self.rate)
            with torch.no_grad():
                target = self._teacher(x)
        count = hit.sum()
        s = self._student[0](x)
        # images that were not moved must not count: with both sides equal their KL is 0
        keep = hit[:, None]
        s = torch.where(keep, s.float(), 0.0)
        t = torch.where(keep, target.float(), 0.0)
        return losses.kl_divergence(s / self.temperature, t / self.temperature) * (len(y[chosen]) / count.clamp_min(1))
