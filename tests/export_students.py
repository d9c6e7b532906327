"""Small students of several kinds, with what their folders say; the same in every test of exports."""

from __future__ import annotations

from functools import cache

import timm
import torch
from torch import nn

import nas_kd
from nas_kd.derive.cut import sizes
from nas_kd.derive.importance import importance_order
from nas_kd.derive.network import CutNet
from nas_kd.derive.units import find_parts
from nas_kd.teacher import cifar_resnet8

IMAGE = {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.25, 0.3], "in_chans": 3, "metrics": {"test_accuracy": 0.5}}


def moved(network: nn.Module) -> nn.Module:
    """Give norms statistics that are not the first ones, and biases that are not zero."""
    rng = torch.Generator().manual_seed(1)
    for module in network.modules():
        if getattr(module, "running_var", None) is not None:
            module.running_var.uniform_(0.5, 2.0, generator=rng)  # type: ignore[operator, union-attr]
            module.running_mean.normal_(0.0, 0.3, generator=rng)  # type: ignore[operator, union-attr]
    return network.eval()


def named(space: str, size: int, classes: int = 4) -> nn.Module:
    """Return the smallest network of a named space."""
    chosen = nas_kd.load_space(space)
    torch.manual_seed(0)
    network = moved(chosen.build(chosen.smallest(), num_classes=classes, in_chans=3))
    names = [f"class {index}" for index in range(classes)]
    network.info = IMAGE | {"resolution": size, "num_classes": classes, "classes": names}  # type: ignore[assignment]
    return network


def cut(name: str, labels: str | None = None) -> nn.Module:
    """Return a narrower copy of a teacher, as a search in its space gives it: every unit at about half its width."""
    torch.manual_seed(0)
    size = 32
    if name == "cifar_resnet8":
        teacher: nn.Module = moved(cifar_resnet8(num_classes=4))
        factory, kwargs = teacher.factory  # type: ignore[misc]
    else:
        kwargs = {"num_classes": 4} | ({"img_size": size} if name.startswith("vit") else {})
        teacher, factory = moved(timm.create_model(name, **kwargs)), f"timm:{name}"
    x = torch.randn(2, 3, size, size)
    units, _ = find_parts(teacher, x, residual=False)
    order = importance_order(teacher, units, [(x, torch.zeros(2, dtype=torch.long))])
    net = CutNet(teacher, units, order)
    halves = [next(zip(*(sizes(group, (0.5, 1.0)) for group in unit.groups), strict=False)) for unit in units]
    network = net.extract(halves)
    info = IMAGE | {"resolution": size, "num_classes": 4, "classes": list("abcd")}
    info |= {"factory": factory, "factory_kwargs": kwargs, "cut": network.cut_plan.to_dict()}  # type: ignore[union-attr]
    network.info = info | ({"labels": labels} if labels else {})  # type: ignore[assignment]
    return moved(network)


@cache
def student(kind: str) -> nn.Module:
    """Return a student by its name in tests."""
    if kind in ("resnet_cifar", "digits"):
        return named(kind, 32)
    if kind == "multilabel":
        return cut("resnet18", "multilabel")
    return cut(kind)
