"""Fine-tuning of a student for 8 bits: it learns the teacher's answers while it is rounded (quantised distillation)."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from torch import nn

from nas_kd.config.kinds import checked
from nas_kd.data import Data
from nas_kd.distill import Distiller, Task, task_of
from nas_kd.errors import SettingError
from nas_kd.nn import resized
from nas_kd.nn.fake_quant import LAYERS, faked
from nas_kd.nn.inputs import takes_images
from nas_kd.runtime.device import Runtime
from nas_kd.runtime.seeds import alone
from nas_kd.teacher.load import load_teacher
from nas_kd.teacher.sources import TeacherLike, as_targets
from nas_kd.train.config import RetrainConfig
from nas_kd.train.network import train_network
from nas_kd.train.plan import check_epochs

LR = 0.002  # peak learning rate: a fifth of that of inherited weights, which go farther


@checked
@alone
def tune_int8(
    student: nn.Module,
    teacher: TeacherLike,
    data: Data,
    *,
    epochs: int = 2,
    lr: float = LR,
    batch_size: int = 128,
    task: Task | None = None,
    seed: int = 0,
    runtime: Runtime | None = None,
) -> nn.Module:
    """Train a copy of a student through rounding to 8 bits, with the teacher's answers.

    Weights are rounded by output channel and inputs of layers by tensor, as `nas_kd.export(..., int8=data)` does;
    gradients pass through the rounding. What comes back are the trained weights, not rounded: an export rounds them.

    Args:
        student: a student with ``.info``.
        teacher: what teaches; None is the student itself, unrounded.
        data: its ``train`` images, as the student takes them.
        epochs: passes over them; more than 0.
        lr: peak learning rate of SGD; it falls to 0 along a cosine.
        batch_size: images a step; fewer where there are fewer images.
        task: label loss and metric; None is that of the data.
        seed: seed of order and augmentation.
        runtime: device and precision.

    Returns:
        A network like the student, in evaluation mode, with its ``.info``.

    Raises:
        SettingError: there is nothing to round, or a setting is out of range.

    Source: quantised distillation (Polino et al., arXiv 1802.05668), section 3; rounding in training (Jacob et al.,
        arXiv 1712.05877), section 3.
    """
    if not takes_images(student):
        raise SettingError("student", type(student).__name__, "a student of images", "give one of these")
    if not any(isinstance(module, LAYERS) for module in student.modules()):
        raise SettingError("student", type(student).__name__, "a network with convolutions or linear layers to round")
    task = task or task_of(data)
    info: Any = getattr(student, "info", {})
    if info.get("mean") and info.get("std"):
        data = data.normalised(info["mean"], info["std"])
    seen: dict[str, Any] = {"num_classes": data.num_classes, "in_chans": data.in_chans}
    seen |= {"mean": data.mean, "std": data.std}
    source = as_targets(teacher) if teacher is not None else load_teacher(student, **seen)
    assert source is not None
    settings: dict[str, Any] = {"method": "kd", "epochs": epochs, "lr": lr, "batch_size": batch_size, "test": False}
    config = RetrainConfig(**settings, warmup_epochs=0.0)
    config = config.settled(taught=True, inherited=True).fitted(len(data.train))
    check_epochs("int8", config.epochs, config.batch_size, data.train)
    network = deepcopy(student)
    with faked(network):
        train_network(
            resized(network, info.get("resolution")),
            data,
            config,
            distiller=Distiller("kd", task),
            source=source.bind(data),
            stage=None,
            name="int8",
            seed=seed,
            runtime=runtime or Runtime(),
        )
    return network.cpu().eval()
