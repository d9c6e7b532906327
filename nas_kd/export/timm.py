"""Students as timm models: ``timm.create_model("nas_kd_student", checkpoint_path=FOLDER)`` after this is imported.

FOLDER is a student folder. What ``nas-kd export --to timm`` or ``--to hf`` wrote opens by
``timm.create_model("local-dir:FOLDER", pretrained=True)``, and by ``"hf-hub:NAME"`` once it lies there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from timm.models import _factory, register_model
from timm.models._features import FeatureGetterNet
from torch import Tensor, nn

from nas_kd.errors import SettingError
from nas_kd.export.student import load_student, rebuilt
from nas_kd.export.student_net import timm_model


@register_model
def nas_kd_student(
    pretrained: bool = False,
    pretrained_cfg: Any = None,
    pretrained_cfg_overlay: Any = None,
    cache_dir: Any = None,
    *,
    student: str | Path | None = None,
    about: Mapping[str, Any] | None = None,
    layers: Sequence[Mapping[str, Any]] | None = None,
    features_only: bool = False,
    out_indices: Any = None,
    num_classes: int | None = None,
    in_chans: int | None = None,
    **kwargs: Any,
) -> nn.Module:
    """Build a student as a timm model; timm calls this.

    Args:
        pretrained: load the weights beside the config.json of ``local-dir:`` or ``hf-hub:``.
        student: a student folder; ``checkpoint_path`` is one too.
        about: description in config.json.
        layers: layers of a network of a space, in config.json.
        features_only: return the features of stages instead of logits.
        out_indices: which of them.
        num_classes: another number gives a new classifier.
    """
    kwargs.pop("pretrained_model_args", None)
    if kwargs:
        raise SettingError(next(iter(kwargs)), next(iter(kwargs.values())), "no such argument: the student is as it is")
    shape = {"features_only": features_only, "out_indices": out_indices, "num_classes": num_classes}
    shape["in_chans"] = in_chans
    if student is not None:
        return _shaped(_opened(student), **shape)
    if about is None:
        return StudentOfCheckpoint(shape)
    given = pretrained_cfg if isinstance(pretrained_cfg, Mapping | None) else pretrained_cfg.to_dict()
    place = Path((given or {}).get("file") or "hf-hub/folder")
    model = timm_model(rebuilt(about, layers, place), about)
    if pretrained:
        model.load_state_dict(_weights(given or {}))
    return _shaped(model, **shape)


class StudentOfCheckpoint(nn.Module):
    """The student of a folder that is known only after this is built; all but its forward pass is the student's own.

    timm builds a model, and then reads ``checkpoint_path`` into that same object.

    Args:
        shape: keywords of `_shaped`.
    """

    student: nn.Module | None

    def __init__(self, shape: Mapping[str, Any]) -> None:
        super().__init__()
        self.shape = dict(shape)
        self.student = None

    def fill(self, folder: str | Path) -> None:
        """Read the student of a folder."""
        self.student = _shaped(_opened(folder), **self.shape)
        self.train(self.student.training)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return what the student returns.

        Raises:
            SettingError: no folder was read.
        """
        if self.student is None:
            hint = 'timm.create_model("nas_kd_student", checkpoint_path=FOLDER)'
            raise SettingError("checkpoint_path", None, "the folder of a student", hint)
        return self.student(*args, **kwargs)

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Return the student's patterns of layer-wise learning rates, for the names that parameters have here."""
        own: Any = self.student
        found = own.group_matcher(coarse)
        return {
            name: _inside(spec) if isinstance(spec, str) else [(_inside(pattern), order) for pattern, order in spec]
            for name, spec in found.items()
        }

    def no_weight_decay(self) -> set[str]:
        """Return the parameters that are not decayed, by the names that they have here."""
        names = getattr(self.student, "no_weight_decay", set)
        return {f"student.{name}" for name in names()}

    def __getattr__(self, name: str) -> Any:
        """Look in the student for what a module does not have: timm's methods and sizes."""
        student = self.__dict__.get("_modules", {}).get("student")  # copies begin without any
        if student is not None and name != "student" and hasattr(student, name):
            return getattr(student, name)
        return super().__getattr__(name)


def _inside(pattern: str) -> str:
    """Put the student's name before the names that a pattern matches; timm matches from the beginning on."""
    begun = re.sub(r"(?<!\[)\^", "", pattern)
    return rf"student\.(?:{begun})"


def _fill_or_load(model: nn.Module, checkpoint_path: Any, *args: Any, **kwargs: Any) -> Any:
    """Load a checkpoint as timm does, but a student's folder by what it is."""
    if isinstance(model, StudentOfCheckpoint):
        return model.fill(checkpoint_path)
    return _load(model, checkpoint_path, *args, **kwargs)


# timm hands checkpoint_path to this function alone
_timm: Any = _factory
_load = _timm.load_checkpoint
_timm.load_checkpoint = _fill_or_load


def _opened(folder: str | Path) -> nn.Module:
    network: Any = load_student(folder)
    return timm_model(network, network.info)


def _shaped(model: nn.Module, *, features_only: bool, out_indices: Any, num_classes: Any, in_chans: Any) -> nn.Module:
    """Return a model with another classifier, or its features."""
    own: Any = model
    channels = own.pretrained_cfg["input_size"][0]
    if in_chans not in (None, channels):
        raise SettingError("in_chans", in_chans, f"{channels}, as the student was trained", "leave it out")
    if num_classes not in (None, own.num_classes):
        own.reset_classifier(num_classes)
    if not features_only:
        return model
    if not hasattr(own, "forward_intermediates"):
        expected = f"false: {type(own).__name__} has no forward_intermediates"
        raise SettingError("features_only", True, expected, "use forward_features")
    count = len(own.feature_info.info if hasattr(own.feature_info, "info") else own.feature_info)
    return FeatureGetterNet(own, out_indices=tuple(range(count)) if out_indices is None else out_indices)


def _weights(config: Mapping[str, Any]) -> dict[str, Tensor]:
    """Read model.safetensors of a folder, or of the hub."""
    if config.get("source") == "hf-hub":
        from timm.models._hub import load_state_dict_from_hf

        return load_state_dict_from_hf(config["hf_hub_id"], "model.safetensors")
    return load_file(Path(str(config["file"])) / "model.safetensors")
