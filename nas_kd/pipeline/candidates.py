"""Networks of the final comparison, each able to begin a training: archs of a space, and networks of none."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from nas_kd.data import Data
from nas_kd.export.onnx_timed import latency_in
from nas_kd.space import Arch, Cost, ElasticSpace
from nas_kd.supernet import Supernet
from nas_kd.train.config import RetrainConfig
from nas_kd.train.many import ModuleRetraining, Retraining, Training, TrainingSetup


class Student(Protocol):
    """A network that is retrained and compared."""

    @property
    def role(self) -> str:
        """What it is there for, such as ``found`` or ``random_1``."""

    @property
    def key(self) -> str:
        """What tells its trainings from others'."""

    @property
    def label(self) -> str:
        """What it is made of."""

    @property
    def cost(self) -> Cost:
        """Its MACs and parameters."""

    def latency(self, images: Data, device: torch.device, runtime: str) -> float:
        """Measure its median latency for one image, in milliseconds."""

    def training(self, setup: TrainingSetup, seed: int, folder: str, settings: Mapping[str, Any]) -> Training:
        """Return its training from a seed, recorded in a folder of the run."""


@dataclass(frozen=True)
class ArchStudent:
    """An arch of a space.

    Args:
        net: shared weights that it begins with; None begins with new ones.
        weights: a file of weights of its own, which it begins with instead.
        suffix: told apart by it from other trainings of the same arch.
    """

    role: str
    arch: Arch
    space: ElasticSpace
    cost: Cost
    net: Supernet | None = None
    suffix: str = ""
    weights: Path | None = None

    @property
    def key(self) -> str:
        return self.arch.key + self.suffix

    @property
    def label(self) -> str:
        return self.arch.label

    def latency(self, images: Data, device: torch.device, runtime: str) -> float:
        model = self.space.build(self.arch, images.num_classes, images.in_chans)
        size = self.arch.resolution or images.resolution
        return latency_in(runtime, model, size, images.in_chans, device=device).median_ms

    def training(self, setup: TrainingSetup, seed: int, folder: str, settings: Mapping[str, Any]) -> Retraining:
        own = replace(setup, space=self.space, supernet=self.weights or self.net)
        return Retraining(own, self.arch, seed, folder, settings)


@dataclass(frozen=True)
class ModuleStudent:
    """A network of no space.

    Args:
        make: gives it from a seed; a function of a module, perhaps a partial one.
        inherited: whether its weights are trained ones, which take the learning rate of such.
        method: the only one that trains it; empty is the run's.
    """

    role: str
    key: str
    label: str
    cost: Cost
    make: Callable[[int], nn.Module]
    inherited: bool = False
    method: str = ""

    def latency(self, images: Data, device: torch.device, runtime: str) -> float:
        return latency_in(runtime, self.make(0), images.resolution, images.in_chans, device=device).median_ms

    def training(self, setup: TrainingSetup, seed: int, folder: str, settings: Mapping[str, Any]) -> ModuleRetraining:
        given = RetrainConfig(**settings)
        settled = given.settled(
            taught=setup.teacher is not None,
            inherited=self.inherited,
            texts=setup.data.tokens is not None,
        )
        own: dict[str, Any] = {"lr": settled.lr, "warmup_epochs": settled.warmup_epochs}
        own |= {"method": self.method, "method_settings": {}} if self.method else {}
        return ModuleRetraining(replace(setup, supernet=None), self.make, seed, folder, {**settings, **own})
