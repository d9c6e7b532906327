"""Load a teacher and seal it."""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from pathlib import Path

from torch import nn

from nas_kd.config.kinds import checked
from nas_kd.nn.text import TextNet
from nas_kd.teacher.build import build
from nas_kd.teacher.teacher import Teacher
from nas_kd.teacher.text import seal

_log = logging.getLogger(__name__)


@checked
def load_teacher(
    model: str | Path | nn.Module,
    *,
    checkpoint: str | Path | None = None,
    num_classes: int | None = None,
    in_chans: int | None = None,
    stages: Sequence[str] | None = None,
    pretrained: bool = False,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    resolution: int | None = None,
    name: str | None = None,
) -> Teacher:
    """Load a teacher and seal it.

    Args:
        model: ``cifar_resnet20`` (or another depth), a timm name, ``package.module:factory``, a student folder, a
            folder that transformers saved, or a network (which is copied).
        checkpoint: weights, .safetensors or a torch.save of weights only. The names may have any prefix and be nested
            under any name; what fits the network best is loaded, what is left over is logged.
        num_classes: None takes that of the checkpoint or of the model.
        in_chans: channels of the input image; None takes those of the checkpoint or of the network, else 3. With 1,
            the first convolution of an RGB checkpoint is summed; an RGB teacher of grey images sees them three times.
            Ignored for a student folder.
        stages: names of the modules whose features the student's stages learn; None chooses them.
        pretrained: let timm download its weights.
        mean: mean of each input channel, in 0..1 units, that the teacher was trained with. None takes that of the
            checkpoint, else of the student folder or the pretrained weights, else of the data.
        std: standard deviation of each input channel; see `mean`.
        resolution: image size in pixels that the teacher sees: other images are resized to it, and timm models that
            have a fixed one, such as ViT and Swin, are built for it; None takes that of the data.
        name: for messages; None takes `model`, or the class of a network.

    Raises:
        SettingError: the model is unknown, the checkpoint is missing, unsafe or of another architecture, or the numbers
            of classes differ.
    """
    # a copy: sealing must not freeze the caller's network, and training that must not change the teacher
    model = copy.deepcopy(model) if isinstance(model, nn.Module) else model
    built = build(
        model,
        checkpoint=checkpoint,
        num_classes=num_classes,
        in_chans=in_chans,
        pretrained=pretrained,
        resolution=resolution,
    )
    noted = False
    for note in built.notes:
        _log.warning(note)
    if mean is None and std is None and built.normalisation:
        mean, std = (fitting(values, built.in_chans) for values in built.normalisation)
        noted = built.noted and mean is not None
    teacher = seal(
        built.module,
        name or built.name,
        num_classes=built.num_classes,
        in_chans=built.in_chans,
        mean=mean,
        std=std,
        stages=stages,
        resolution=resolution,
    )
    teacher.noted = noted or isinstance(built.module, TextNet)  # texts have no normalisation
    return teacher


def fitting(values: Sequence[float], in_chans: int) -> Sequence[float] | None:
    """Return the values of a network's own channels for its input channels: of three colours the mean for grey."""
    if len(values) == in_chans:
        return values
    return (sum(values) / len(values),) if in_chans == 1 else None
