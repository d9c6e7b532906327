"""A student as a timm model: the methods of timm's models, its sizes, and the config.json of its folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from nas_kd.errors import SettingError
from nas_kd.nn.static import StaticNet

NAME = "nas_kd_student"  # of the model in timm's registry
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
        return {"stem": r"^network\.(?:stem|conv1|bn1)", "blocks": r"^network\.(?:stages\.|layer)(\d+)"}

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
