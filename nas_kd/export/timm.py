"""Students as timm models: ``timm.create_model("nas_kd_student", checkpoint_path=FOLDER)`` after this is imported.

FOLDER is a student folder. What ``nas-kd export --to timm`` or ``--to hf`` wrote opens by
``timm.create_model("local-dir:FOLDER", pretrained=True)``, and by ``"hf-hub:NAME"`` once it lies there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from timm.models import _factory, register_model
from timm.models._features import FeatureGetterNet
from torch import Tensor, nn

from nas_kd.errors import SettingError
from nas_kd.export.student import load_student, rebuilt
from nas_kd.nn.static import StaticNet

NAME = "nas_kd_student"
KEPT = ("factory", "factory_kwargs", "cut", "mean", "std", "classes", "resolution", "in_chans", "num_classes", "labels")


class StudentNet(nn.Module):
    """A network of stages with the methods of timm's models.

    Args:
        network: a `StaticNet`, or another one with ``forward_stages`` and ``get_classifier``, whose classifier reads
            the mean of the last stage's map.
        about: ``.info`` of the student.

    Raises:
        SettingError: it is neither.
    """

    def __init__(self, network: nn.Module, about: Mapping[str, Any]) -> None:
        super().__init__()
        self.network = _filled(network)
        self.about = dict(about)
        self.num_classes = int(about["num_classes"])
        self.in_chans = int(about["in_chans"])
        size = int(about["resolution"])
        x = torch.rand(1, self.in_chans, size, size)
        with torch.no_grad():
            stages = self._network.forward_stages(x).stages
            features = self.forward_features(x)
            pooled = self.forward_head(features, pre_logits=True)
            same = torch.allclose(self.forward_head(features), self.network(x), rtol=1e-4, atol=1e-5)
        if not same:
            raise _not_timm(network)
        self.network = network
        self.num_features = features.shape[1] if features.ndim == 4 else features.shape[2]
        self.head_hidden_size = pooled.shape[1]
        self.feature_info = []
        for index, stage in enumerate(stages):
            channels = stage.shape[1] if stage.ndim == 4 else stage.shape[2]
            reduction = size / (stage.shape[2] if stage.ndim == 4 else round(stage.shape[1] ** 0.5))
            self.feature_info.append(
                {
                    "num_chs": channels,
                    "reduction": round(reduction),
                    "module": f"network.stages.{index}",
                    "index": index,
                }
            )

    @property
    def _network(self) -> Any:
        return self.network

    def forward_features(self, x: Tensor) -> Tensor:
        """Map images (B, in_chans, H, W) to the last stage's features (B, C, H', W') or tokens (B, N, C)."""
        if isinstance(self.network, StaticNet):
            x = self.network.stem(x)
            for stage in self.network.stages:
                x, _ = stage(x)
            return x
        return self._network.forward_stages(x).stages[-1]

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Map features to logits (B, num_classes), or to what the classifier reads."""
        if isinstance(self.network, StaticNet):
            logits, pooled = self.network.head(x)
            return pooled if pre_logits else logits
        pooled = x.mean((2, 3))
        return pooled if pre_logits else self.get_classifier()(pooled)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (B, in_chans, H, W) to logits (B, num_classes)."""
        return self.forward_head(self.forward_features(x))

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | Sequence[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> Any:
        """Return the features of stages: of all, of the last n, or of some by their numbers.

        Args:
            x: (B, in_chans, H, W).
            indices: stages; negative ones count from the end.
            output_fmt: NCHW, which gives tokens the shape of a map.
            intermediates_only: leave out the last features, which come first otherwise.
        """
        stages = self._network.forward_stages(x).stages
        if indices is None:
            chosen = stages
        elif isinstance(indices, int):
            chosen = stages[-indices:]
        else:
            chosen = [stages[index] for index in indices]
        if output_fmt == "NCHW":
            chosen = [_as_map(stage) for stage in chosen]
        return chosen if intermediates_only else (stages[-1], chosen)

    def get_classifier(self) -> nn.Module:
        """Return the linear classifier."""
        return self.network.get_submodule(_classifier_path(self.network))

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the classifier by a new one, or by none for 0 classes.

        Args:
            global_pool: is as it was; another one is refused.
        """
        if global_pool not in (None, "avg"):
            raise SettingError("global_pool", global_pool, "None: the student's own pooling", "leave it out")
        path, _, name = _classifier_path(self.network).rpartition(".")
        layer = nn.Linear(self.head_hidden_size, num_classes) if num_classes else nn.Identity()
        setattr(self.network.get_submodule(path), name, layer)
        self.num_classes = num_classes

    def group_matcher(self, coarse: bool = False) -> dict[str, str]:
        """Return the patterns of layer-wise learning rates."""
        return {"stem": r"^network\.(stem|conv1|bn1)", "blocks": r"^network\.(?:stages\.|layer)(\d+)"}

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Refuse checkpointing of activations, which students do not have."""
        if enable:
            raise SettingError("enable", enable, "false: students do not checkpoint activations", "leave it out")


def timm_model(network: nn.Module, about: Mapping[str, Any]) -> nn.Module:
    """Return a student as a timm model: a model of timm itself with the sizes that its cut has, else a `StudentNet`.

    Raises:
        SettingError: it is a network of a class that has neither timm's methods nor stages.
    """
    missing = [name for name in ("in_chans", "num_classes", "resolution") if about.get(name) is None]
    if missing:
        raise SettingError("student", missing[0], "a student whose info says it", "save it again with its info")
    network = network.eval()
    if hasattr(network, "forward_features") and hasattr(network, "forward_head"):
        model = network
        _measure(model, about)
    elif isinstance(network, StaticNet) or (hasattr(network, "forward_stages") and hasattr(network, "get_classifier")):
        model = StudentNet(network, about)
    else:
        raise _not_timm(network)
    size, channels = int(about["resolution"]), int(about["in_chans"])
    own = dict(getattr(model, "pretrained_cfg", None) or {})
    config = own | {
        "architecture": NAME,
        "input_size": (channels, size, size),
        "num_classes": int(about["num_classes"]),
        "mean": tuple(about.get("mean") or ()) or None,
        "std": tuple(about.get("std") or ()) or None,
        "interpolation": "bicubic",
        "crop_pct": 1.0,
        "test_input_size": None,
        "test_crop_pct": None,
        "label_names": list(about["classes"]) if about.get("classes") else None,
        "classifier": _classifier_path(model),
    }
    known = {"url", "file", "hf_hub_id", "hf_hub_filename", "tag", "license", "origin_url", "paper_name", "paper_ids"}
    model.pretrained_cfg = {  # type: ignore[assignment]
        name: value for name, value in config.items() if value is not None and name not in known
    }
    model.default_cfg = model.pretrained_cfg  # as timm names it too
    return model


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
        return Unfilled(shape)
    given = pretrained_cfg if isinstance(pretrained_cfg, Mapping | None) else pretrained_cfg.to_dict()
    place = Path((given or {}).get("file") or "hf-hub/folder")
    model = timm_model(rebuilt(about, layers, place), about)
    if pretrained:
        model.load_state_dict(_weights(given or {}))
    return _shaped(model, **shape)


class Unfilled(nn.Module):
    """What ``create_model("nas_kd_student")`` builds before it reads the folder; without one it refuses images."""

    def __init__(self, shape: Mapping[str, Any]) -> None:
        super().__init__()
        self.shape = dict(shape)

    def fill(self, folder: str | Path) -> None:
        """Become the student of a folder."""
        made = _shaped(_opened(folder), **self.shape)
        self.__class__ = type(made)  # type: ignore[assignment]  # timm returns the object that it has built before
        self.__dict__ = made.__dict__

    def forward(self, x: Tensor) -> Tensor:
        """Refuse images."""
        hint = 'timm.create_model("nas_kd_student", checkpoint_path=FOLDER)'
        raise SettingError("checkpoint_path", None, "the folder of a student", hint)


def _fill_or_load(model: nn.Module, checkpoint_path: Any, *args: Any, **kwargs: Any) -> Any:
    """Load a checkpoint as timm does, but a student's folder by what it is."""
    if isinstance(model, Unfilled):
        return model.fill(checkpoint_path)
    return _load(model, checkpoint_path, *args, **kwargs)


# timm builds a model before it looks at checkpoint_path, and hands the path to this function alone
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


@torch.no_grad()
def _measure(model: nn.Module, about: Mapping[str, Any]) -> None:
    """Set what a model of timm says of its own sizes to those that its cut has."""
    own: Any = model
    size = int(about["resolution"])
    x = torch.rand(1, int(about["in_chans"]), size, size)
    listed = getattr(own, "feature_info", None) or []
    entries = [dict(entry) for entry in (listed.info if hasattr(listed, "info") else listed)]
    modules = dict(model.named_modules())
    found: dict[str, Tensor] = {}

    def keep(name: str) -> Any:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            if isinstance(output, Tensor):
                found[name] = output

        return hook

    names = {entry["module"] for entry in entries} & modules.keys()
    hooks = [modules[name].register_forward_hook(keep(name)) for name in names]
    try:
        features = own.forward_features(x)
    finally:
        for hook in hooks:
            hook.remove()
    last = getattr(own, "output_fmt", "NCHW")
    channels_last = "NHWC" in str(last)
    for entry in entries:
        if (value := found.get(entry["module"])) is not None:
            entry["num_chs"] = value.shape[1] if value.ndim == 4 and not channels_last else value.shape[-1]
    own.feature_info = entries
    own.num_features = features.shape[1] if features.ndim == 4 and not channels_last else features.shape[-1]
    own.head_hidden_size = own.forward_head(features, pre_logits=True).shape[-1]
    own.num_classes = int(about["num_classes"])


def _filled(network: nn.Module) -> nn.Module:
    """Copy a network with small positive weights: those of one that was just cut are whatever was in memory."""
    copy = deepcopy(network)
    rng = torch.Generator().manual_seed(0)
    for tensor in (*copy.parameters(), *copy.buffers()):
        if tensor.is_floating_point():
            tensor.data.uniform_(0.01, 0.1, generator=rng)
    return copy


def _as_map(x: Tensor) -> Tensor:
    """Give tokens (B, N, C) the shape of a map, without those that are no patches."""
    if x.ndim == 4:
        return x
    side = int(x.shape[1] ** 0.5)
    return x[:, x.shape[1] - side * side :].transpose(1, 2).unflatten(2, (side, side))


def _classifier_path(network: nn.Module) -> str:
    """Return the path of the last linear layer, or of what was put in its place."""
    if isinstance(network, StudentNet):
        return f"network.{_classifier_path(network.network)}"
    if isinstance(network, StaticNet):
        return "head.fc"
    own: Any = network
    classifier = own.get_classifier()
    paths = [path for path, module in network.named_modules() if module is classifier]
    return paths[0] if paths else ""


def _not_timm(network: nn.Module) -> SettingError:
    expected = "a network of a space or of timm, or one with timm's forward_features and forward_head"
    return SettingError("student", type(network).__name__, expected, "give its class these methods")


def config_of(model: nn.Module, network: nn.Module, about: Mapping[str, Any]) -> dict[str, Any]:
    """Return config.json of a folder that timm opens."""
    own: Any = model
    layers = network.layers_spec if isinstance(network, StaticNet) else None
    return {
        "architecture": NAME,
        "num_classes": int(about["num_classes"]),
        "num_features": own.num_features,
        "pretrained_cfg": dict(own.pretrained_cfg),
        "model_args": {"about": {name: about[name] for name in KEPT if name in about}, "layers": deepcopy(layers)},
    }
