"""GAN-KD: a critic that distinguishes the student's logits from the teacher's."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from nas_kd import losses
from nas_kd.distill.game import LR, Player
from nas_kd.distill.pair import Pair
from nas_kd.losses._common import wide


class Critic(Player):
    """A discriminator: takes its own step on every batch, then scores how much the student resembles the teacher.

    Source: Xu et al., Training shallow and thin networks for acceleration via knowledge distillation with conditional
    adversarial networks, arXiv 1709.00513, eq. 5 and 6: it also predicts the class.
    """

    def __init__(self, pair: Pair, width: int = 128, lr: float = LR) -> None:
        classes = pair.student.logits
        hidden = [nn.Linear(classes, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU()]
        super().__init__(nn.Sequential(*hidden, nn.Linear(width, 1 + classes)), lr)

    def judge(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Map (B, C) logits to (B,) logits of coming from the teacher, and (B, C) class logits."""
        found = wide(self.net(logits))
        return found[:, 0], found[:, 1:]

    def learn(self, student: Tensor, teacher: Tensor, y: Tensor) -> Tensor:
        """Take a step of the critic; the student gets no gradient."""
        s = wide(student).detach()
        t = wide(teacher).detach()

        def loss() -> Tensor:
            (real, real_class) = self.judge(t)
            (fake, fake_class) = self.judge(s)
            named = F.cross_entropy(real_class, y) + F.cross_entropy(fake_class, y)
            return losses.critic(real, fake) + named

        return self.step(loss)

    def forward(self, student: Tensor, teacher: Tensor, y: Tensor) -> Tensor:
        """Train the critic on logits (B, C), and return the student's loss, without a gradient for the critic."""
        if student.requires_grad:  # not when a trained student is only evaluated
            self.learn(student, teacher, y)
        fake, named = self.judge(wide(student))
        return losses.fooled(fake) + F.cross_entropy(named, y)
