"""One network whose weights all architectures of a space share."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from nas_kd.config.kinds import checked
from nas_kd.errors import SettingError
from nas_kd.nn.elastic import ElasticDepthwise, centre, prefix
from nas_kd.nn.norm import ElasticBatchNorm2d, NormValues, Recorder
from nas_kd.nn.output import Output
from nas_kd.nn.static import StaticNet
from nas_kd.nn.unmeasured import refuse_unmeasured
from nas_kd.runtime.seeds import alone
from nas_kd.space.arch import Arch
from nas_kd.space.elastic import ElasticSpace
from nas_kd.supernet.elastic_stage import ElasticStage


class Supernet(nn.Module):
    """All architectures of a space in one set of weights; the arch is an argument, never a state.

    Args:
        seed: seed of the weights; the global generator is not touched.
        kernel_transform: learn matrices that turn large depthwise kernels into small ones, as in OFA; False crops
            their centre.
    """

    def __new__(cls, space: ElasticSpace | None = None, *args: Any, **kwargs: Any) -> Supernet:
        """Create an instance of the space's own class, if it has one. Copies and pickles pass no space."""
        own = getattr(space, "supernet_class", None) if cls is Supernet else None
        return super().__new__(own or cls)

    @checked
    @alone
    def __init__(
        self,
        space: ElasticSpace,
        num_classes: int = 10,
        in_chans: int = 3,
        seed: int = 0,
        *,
        kernel_transform: bool = False,
    ) -> None:
        super().__init__()
        self.kernel_transform = kernel_transform
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self._build(space, num_classes, in_chans)

    def _build(self, space: ElasticSpace, num_classes: int, in_chans: int) -> None:
        self.space = space
        self.num_classes = num_classes
        self.in_chans = in_chans
        self.stem = space.stem.elastic(in_chans)
        self.stages = nn.ModuleList(
            ElasticStage(stage, space.in_widths(index), self.kernel_transform)
            for index, stage in enumerate(space.stages)
        )
        self.head = space.head.elastic(space.stages[-1].widths[-1], num_classes)
        for name, module in self.named_modules():
            if isinstance(module, ElasticBatchNorm2d):
                module.path = name

    def check_images(self, x: Any) -> None:
        """Raise SettingError unless (B, C, H, W) images have the supernet's channels: slicing would accept fewer."""
        if isinstance(x, Tensor) and x.shape[1] != self.in_chans:
            raise SettingError("x", tuple(x.shape), f"images with {self.in_chans} channels, in_chans of the supernet")

    def check_data(self, in_chans: int, num_classes: int) -> None:
        """Check that the supernet fits a data set.

        Raises:
            SettingError: channels or classes differ.
        """
        for name, needed in (("in_chans", in_chans), ("num_classes", num_classes)):
            if getattr(self, name) != needed:
                hint = f"build the supernet with {name}={needed}"
                raise SettingError(f"net.{name}", getattr(self, name), f"{needed}, as in the data", hint)

    def forward(self, x: Any, arch: Arch, norm: NormValues | None = None) -> Tensor:
        """Run the subnet of an arch.

        Args:
            x: (B, in_chans, H, W), not resized where the arch chooses an input size; or texts, of a text teacher's.
            norm: calibrated statistics of this arch; None takes the batch's (training mode only).

        Returns:
            Logits (B, C).
        """
        return self.forward_stages(x, arch, norm).logits

    def forward_stages(
        self,
        x: Any,
        arch: Arch,
        norm: NormValues | Recorder | None = None,
        *,
        dropout: float = 0.0,
        drop_path: float = 0.0,
    ) -> Output:
        """Run the subnet of an arch and return its features.

        Args:
            x: (B, in_chans, H, W).
            norm: calibrated statistics of this arch, or a recorder; None takes the batch's.
            dropout: share of pooled features to drop before the classifier.
            drop_path: stochastic depth rate of the deepest stage; it falls linearly towards the first stage.

        Raises:
            SettingError: the arch belongs to another space, or the images have the wrong number of channels.
            RuntimeError: evaluation mode without ``norm``.
        """
        if arch.space != self.space.hash:
            self.space.validate(arch)  # raises with the reason
        self.check_images(x)
        if norm is None and not self.training:
            raise RuntimeError("a supernet holds no running statistics: pass norm=nas_kd.calibrate(...)[0]")
        x = self.stem(x, arch.stem, norm)
        stages = []
        pre = []
        for index, (stage, candidate) in enumerate(zip(self.stages, arch.stages, strict=True)):
            x, before = stage(x, candidate, norm, drop_path * (index + 1) / len(self.stages))
            stages.append(x)
            pre.append(before)
        logits, pooled = self.head(x, arch.head, norm, dropout)
        return Output(logits, stages, pre, pooled)

    @torch.no_grad()
    def extract(self, arch: Arch, norm: NormValues | None = None) -> StaticNet:
        """Extract one architecture as a plain network with a copy of the shared weights.

        Args:
            norm: calibrated statistics of this arch; None leaves fresh ones, with which evaluation is refused until
                `nas_kd.calibrate` or a training step has measured others.

        Returns:
            A network whose outputs are bitwise those of the subnet on a CPU, in this supernet's mode.
        """
        like = next(self.parameters())
        with torch.device("meta"):  # draws no weights, which would only be overwritten
            student: StaticNet = self.space.build(arch, self.num_classes, self.in_chans)
        student.to(like.dtype).to_empty(device=like.device)
        shared = dict(self.named_parameters())
        for name, parameter in student.named_parameters():
            weight: Tensor = shared[name]
            layer = self.get_submodule(name.rpartition(".")[0])
            if isinstance(layer, ElasticDepthwise):
                weight = layer.kernel(parameter.shape[0], parameter.shape[-1])
            elif weight.ndim == 4:
                weight = centre(weight, parameter.shape[-1])
            parameter.copy_(prefix(weight, *parameter.shape[:2]))
        for name, module in student.named_modules():
            if isinstance(module, nn.BatchNorm2d):
                module.reset_running_stats()
                if norm is not None and module.running_mean is not None and module.running_var is not None:
                    module.running_mean.copy_(norm[name][0])
                    module.running_var.copy_(norm[name][1])
        if norm is None:
            refuse_unmeasured(student)
        if any(p.ndim == 4 and not p.is_contiguous() for p in self.parameters()):
            student.to(memory_format=torch.channels_last)  # other kernels would differ in the last bits
        return student.train(self.training)
