"""Scores of whole subnets: calibrated on training images, measured on the rating split."""

from __future__ import annotations

import torch
from torch import Tensor

from nas_kd.data import Data
from nas_kd.distill import Task
from nas_kd.nn import at_resolution, inputs
from nas_kd.runtime.device import Runtime, place
from nas_kd.space import Arch
from nas_kd.supernet import Supernet, calibrate


class SubnetScorer:
    """Scores subnets of a supernet with the images decoded and moved to the device once.

    A score costs one calibration pass over ``calibration_images`` training images and one forward over
    ``rate_images`` rating images, both at the arch's own input size where the space chooses it; the teacher
    is not run.

    Args:
        teacher_logits: (N, C) of the teacher on the rating split, or None without a teacher.
        task: label loss, metric and agreement.
        calibration_images: training images for the norms.
        rate_images: rating images, None for all.
        runtime: device and precision.
        batch_size: images a forward pass.
    """

    def __init__(
        self,
        net: Supernet,
        data: Data,
        teacher_logits: Tensor | None,
        *,
        task: Task,
        calibration_images: int = 1024,
        rate_images: int | None = None,
        runtime: Runtime,
        batch_size: int = 512,
    ) -> None:
        self.net = place(net, runtime)
        self.task = task
        self.runtime = runtime
        calibration = data.train.clean(batch_size, limit=calibration_images)
        self.calibration = [inputs.moved(batch.x, runtime.device) for batch in calibration]
        rating = list(data.rate.clean(batch_size, limit=rate_images))
        self.images = [inputs.moved(batch.x, runtime.device) for batch in rating]
        self.labels = torch.cat([batch.y.cpu() for batch in rating])
        index = torch.cat([batch.index for batch in rating])
        self.targets = None if teacher_logits is None else teacher_logits[index]

    @torch.no_grad()
    def __call__(self, arch: Arch) -> dict[str, float]:
        """Score one arch.

        Args:
            arch: an arch of the supernet's space.

        Returns:
            The task's measure by its name, such as ``accuracy``, and ``loss`` with the labels; with a teacher ``kl``
            (the task's divergence, of classes the KL from the teacher to the subnet, nats, lower is better) and
            ``agreement`` with it, 0 to 1.
        """
        training = self.net.training
        size = arch.resolution
        with self.runtime.autocast():
            norm = calibrate(self.net, (at_resolution(x, size) for x in self.calibration), [arch])[0]
            self.net.eval()
            logits = torch.cat([self.net(at_resolution(x, size), arch, norm).float().cpu() for x in self.images])
        self.net.train(training)
        scores = {
            self.task.measure: self.task.metric(logits, self.labels),
            "loss": float(self.task.loss(logits, self.labels)),
        }
        if self.targets is not None:
            scores["kl"] = float(self.task.divergence(logits, self.targets))
            scores["agreement"] = self.task.agreement(logits, self.targets)
        return scores
