"""The description of a network in its student folder, and how to rebuild it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from torch import nn

from nas_kd.data import Data
from nas_kd.errors import SettingError
from nas_kd.nn import StaticNet
from nas_kd.nn.cutting import CutPlan
from nas_kd.space import Arch, count_layers


def student_info(
    model: nn.Module,
    data: Data,
    *,
    arch: Arch | None,
    metrics: Mapping[str, float],
    factory: str | None,
    factory_kwargs: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Return the description of a network for its student folder."""
    resolution = data.resolution if arch is None or arch.resolution is None else arch.resolution
    info: dict[str, Any] = {
        "mean": list(data.mean),
        "std": list(data.std),
        "classes": list(data.classes),
        "resolution": resolution,
        "in_chans": data.in_chans,
        "num_classes": data.num_classes,
        "metrics": dict(metrics),
        "params": sum(p.numel() for p in model.parameters()),
        "arch": None if arch is None else arch.to_dict(),
    }
    if data.tokens is not None:
        info |= {"mean": None, "std": None, "tokens": asdict(data.tokens)}
    if data.kind != "classes":  # outputs are sigmoids' logits, or numbers
        info["labels"] = data.kind
    if isinstance(model, StaticNet):
        info["macs"] = count_layers(model.layers_spec, resolution, model.kinds).macs
    else:
        info |= {"factory": factory, "factory_kwargs": dict(factory_kwargs or {})}
        if isinstance(plan := getattr(model, "cut_plan", None), CutPlan):
            info["cut"] = plan.to_dict()
    return info


def factory_of(
    network: nn.Module, data: Data, factory: str | None, kwargs: Mapping[str, Any] | None, *, needed: bool
) -> tuple[str | None, Mapping[str, Any] | None]:
    """Return the factory that rebuilds a module from its student folder; timm models name their own."""
    if factory is not None or isinstance(network, StaticNet):
        return factory, kwargs
    architecture = (getattr(network, "pretrained_cfg", None) or {}).get("architecture")
    if architecture:
        return f"timm:{architecture}", {"num_classes": data.num_classes, "in_chans": data.in_chans} | dict(kwargs or {})
    if isinstance(own := getattr(network, "factory", None), tuple):
        return own
    if needed:
        expected = "package.module:callable that builds this network, so that its student folder loads anywhere"
        hint = "pass factory=('package.module:callable', {...}), set that pair as network.factory, or omit run="
        raise SettingError("factory", None, expected, hint)
    return None, None
