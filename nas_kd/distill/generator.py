"""Data-free distillation: a generator creates the images; its loss weights select a published method."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nas_kd import losses
from nas_kd.data import Batch, Split
from nas_kd.distill.game import LR, Player, norm_inputs, norms, open_teacher
from nas_kd.distill.pair import Pair, Shape
from nas_kd.distill.sampling import Resampled
from nas_kd.errors import SettingError
from nas_kd.losses._common import one_of
from nas_kd.runtime.seeds import seed_for

WIDTH = 64  # of the noise vector of an image


@dataclass(frozen=True)
class Switches:
    """Weights of a generator's losses; 0 disables a loss.

    Args:
        one_hot: confident predictions of the teacher.
        activation: large features of the teacher.
        balance: balanced classes.
        entropy_base: of the logarithm in the entropy of the classes.
        adversarial: disagreement of student and teacher.
        kind: measure of the disagreement, "kl" or "l1".
        norm: statistics close to the running statistics of the teacher's norms.
        student_steps: steps of the student per step of the generator.
        lr: of the generator's Adam.
    """

    one_hot: float = 0.0
    activation: float = 0.0
    balance: float = 0.0
    entropy_base: float = math.e
    adversarial: float = 0.0
    kind: str = "kl"
    norm: float = 0.0
    student_steps: int = 1
    lr: float = LR

    def __post_init__(self) -> None:
        one_of("generator.kind", self.kind, ("kl", "l1"))
        weights = (self.one_hot, self.activation, self.balance, self.adversarial, self.norm)
        if min(weights) < 0 or max(weights) == 0:
            raise SettingError("generator", weights, "weights of 0 or more, one of them above 0")
        if self.student_steps < 1:
            raise SettingError("generator.student_steps", self.student_steps, "an integer of at least 1")


class Noise(Resampled):
    """As many batches as the data has, with noise instead of images; labels have no meaning."""

    def __init__(self, split: Split) -> None:
        super().__init__(split)

    def batches(self, batch_size: int, *, epoch: int, seed: int, rank: int = 0, world: int = 1) -> Iterator[Batch]:
        """Yield (B, WIDTH) standard normal noise."""
        for step in range(self.steps(batch_size)):
            generator = torch.Generator().manual_seed(seed_for(seed, "noise", epoch, step))
            z = torch.randn(batch_size, WIDTH, generator=generator)[rank::world]
            none = torch.zeros(len(z), dtype=torch.int64)
            yield Batch(z, none, none, none - 1)


class GeneratorNet(nn.Module):
    """A small convolutional generator.

    Source: The generator of Chen et al., arXiv 1904.01186, with half its channels: a linear layer to a quarter of the
    size, upsampled and convolved twice, and a norm without weights, because inputs are normalised images.
    """

    def __init__(self, image: Shape, base: int = 64) -> None:
        super().__init__()
        self.image = image
        self.first = (base, -(-image[1] // 4), -(-image[2] // 4))
        self.start = nn.Linear(WIDTH, self.first[0] * self.first[1] * self.first[2])
        self.body = nn.Sequential(
            nn.BatchNorm2d(base),
            nn.Upsample(scale_factor=2),
            nn.Conv2d(base, base, 3, 1, 1),
            nn.BatchNorm2d(base),
            nn.LeakyReLU(0.2),
            nn.Upsample(scale_factor=2),
            nn.Conv2d(base, base // 2, 3, 1, 1),
            nn.BatchNorm2d(base // 2),
            nn.LeakyReLU(0.2),
            nn.Conv2d(base // 2, image[0], 3, 1, 1),
            nn.Tanh(),
            nn.BatchNorm2d(image[0], affine=False),
        )

    def forward(self, z: Tensor) -> Tensor:
        """Map (B, WIDTH) noise to (B, C, H, W) images."""
        x = self.body(self.start(z).view(-1, *self.first))
        return x[:, :, : self.image[1], : self.image[2]]


class Generator(Player):
    """Generates the images of every batch from noise, and is trained against teacher and student.

    Args:
        pair: student and teacher; the teacher must run live.

    Source: DAFL, arXiv 1904.01186; ZSKT, arXiv 1905.09768; DFAD, arXiv 1912.11006; DFQ, arXiv 2005.04136.
    """

    def __init__(self, pair: Pair, switches: Switches, base: int = 64) -> None:
        super().__init__(GeneratorNet(pair.image, base), switches.lr)
        inside, self._normalise = open_teacher(pair.source, "a method without data")
        # a tuple keeps them out of this module's parameters
        self._networks = (inside, pair.model)
        self.switches = switches
        self.calls = 0
        if switches.norm and not norms(inside):
            expected = "a teacher with batch norms with running statistics"
            raise SettingError("generator.norm", switches.norm, expected, "use dafl or zskt")

    def loss(self, z: Tensor) -> Tensor:
        """Return the generator's loss on (B, WIDTH) noise."""
        s = self.switches
        teacher, student = self._networks
        images = self.net(z)
        feature: list[Tensor] = []
        classifier = [m for m in teacher.modules() if isinstance(m, nn.Linear)]
        handles = []
        if s.activation and classifier:  # the classifier's input is the pooled feature
            handles.append(classifier[-1].register_forward_pre_hook(lambda module, args: feature.append(args[0])))
        try:
            with norm_inputs(teacher) as found:
                logits = teacher(self._normalise(images))
        finally:
            for handle in handles:
                handle.remove()
        total = torch.zeros((), device=z.device)
        if s.one_hot:
            total = total + s.one_hot * losses.one_hot(logits)
        if s.activation:
            total = total + s.activation * losses.activation(feature[0] if feature else logits)
        if s.balance:
            total = total + s.balance * losses.balance(logits, s.entropy_base)
        if s.norm:
            kept = [(n.running_mean, n.running_var) for n in norms(teacher)]
            total = total + s.norm * losses.norm_statistics(found, kept)  # type: ignore[arg-type]
        if s.adversarial:
            total = total + s.adversarial * losses.disagreement(student(images), logits, s.kind)
        return total

    def forward(self, batch: Batch) -> Batch:
        """Take a step of the generator when it is due, and return the batch with images instead of noise."""
        if self.calls % self.switches.student_steps == 0:
            training = self._networks[1].training
            self._networks[1].eval()  # the student's statistics change only in its own step
            self.step(lambda: self.loss(batch.x))
            self._networks[1].train(training)
        self.calls += 1
        with torch.no_grad():
            return batch._replace(x=self.net(batch.x))

    def get_extra_state(self) -> dict[str, object]:
        """Return the optimiser's state and the step counter."""
        return super().get_extra_state() | {"calls": self.calls}

    def set_extra_state(self, state: dict[str, object]) -> None:
        """Restore from a checkpoint."""
        super().set_extra_state(state)
        self.calls = int(state["calls"])  # type: ignore[call-overload]
