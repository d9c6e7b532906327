"""The networks that a user can name, each as a plan: of timm, our CIFAR ResNets, a function, a student folder."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from nas_kd.config.names import HUBS
from nas_kd.errors import SettingError, nearest
from nas_kd.runtime.user_module import import_of_user
from nas_kd.teacher.cifar_resnet import DEPTHS, CifarResNet

OWN = {f"cifar_resnet{depth}": depth for depth in DEPTHS}
# the published weights of the CIFAR ResNets were trained with ImageNet's mean and std
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@dataclass(frozen=True)
class Plan:
    """How to build a network once its classes and channels are known, and what is known before.

    Args:
        build: makes it from the number of classes, None for its own, and of input channels.
        classifier: name of the last layer; None if only the network can tell.
        normalisation: mean and std that its trained weights expect.
        trained: whether the built network already has trained weights.
        in_chans: input channels if the user cannot choose them.
        foreign: whether it is the user's own network, which may have other channels than it was asked for.
    """

    name: str
    build: Callable[[int | None, int], nn.Module]
    classifier: str | None = None
    normalisation: tuple[Sequence[float], Sequence[float]] | None = None
    trained: bool = False
    in_chans: int | None = None
    foreign: bool = False


def plan_of(model: str | Path | nn.Module, pretrained: bool, resolution: int | None) -> Plan:
    """Return how the network that a user names is built; arguments are those of `load_teacher`.

    Raises:
        SettingError: there is no such network, or it has no weights to download.
    """
    if isinstance(model, nn.Module):
        return Plan(type(model).__name__, lambda classes, chans: model, trained=True, foreign=True)
    name = str(model)
    path = Path(name)
    if path.is_dir():
        return _student(path)
    hub = name.startswith(HUBS)
    if isinstance(model, Path) or (not hub and ("/" in name or name.startswith("."))):
        expected = "a student folder (with arch.json), a folder of transformers, a timm name or package.module:factory"
        raise SettingError("teacher.model", name, expected, "check the path")
    if pretrained and (name in OWN or (":" in name and not hub)):
        hint = "use teacher.checkpoint"
        raise SettingError("teacher.pretrained", True, "true for timm models only", hint)
    if name in OWN:
        return Plan(name, lambda classes, chans: CifarResNet(OWN[name], classes or 10, chans), "linear", IMAGENET)
    if ":" in name and not hub:
        return Plan(name, lambda classes, chans: _call_factory(name, classes, chans), foreign=True)
    return _timm(name, pretrained, resolution, hub)


def _timm(name: str, pretrained: bool, resolution: int | None, hub: bool) -> Plan:
    import timm

    if not hub and not timm.is_model(name):
        expected = "a timm model, cifar_resnet8 to cifar_resnet110, package.module:factory, or a student folder"
        raise SettingError("teacher.model", name, expected, nearest(name, [*OWN, *timm.list_models()]))
    config = None if hub else timm.get_pretrained_cfg(name)
    options: dict[str, Any] = {}
    if resolution is not None and config is not None and config.fixed_input_size:
        options["img_size"] = resolution

    def build(num_classes: int | None, in_chans: int) -> nn.Module:
        classes: dict[str, Any] = {} if num_classes is None else {"num_classes": num_classes}
        classes["in_chans"] = in_chans
        if not (pretrained or hub):
            return timm.create_model(name, pretrained=False, **classes, **options)
        try:  # hub and network errors are OSErrors, ValueErrors or, from timm, RuntimeErrors
            return timm.create_model(name, pretrained=pretrained, **classes, **options)
        except (OSError, ValueError, RuntimeError) as error:
            hint = "download the weights elsewhere and set teacher.checkpoint"
            expected = f"true only if the weights of {name} can be downloaded ({str(error).splitlines()[0]})"
            raise SettingError("teacher.pretrained", pretrained, expected, hint) from error

    normalisation = None if config is None else (config.mean, config.std)
    classifier = config.classifier if config is not None and isinstance(config.classifier, str) else None
    return Plan(name, build, classifier, normalisation, trained=pretrained)


def _call_factory(name: str, num_classes: int | None, in_chans: int) -> nn.Module:
    package, _, attribute = name.partition(":")
    try:
        module = import_of_user(package)
    except ImportError as error:
        hint = "install it, or run nas-kd in the folder that contains it"
        raise SettingError("teacher.model", name, f"a package that can be imported ({error})", hint) from error
    factory = getattr(module, attribute, None)
    if not callable(factory):
        names = [key for key, value in vars(module).items() if callable(value)]
        raise SettingError("teacher.model", name, f"a function of {package}", nearest(attribute, names))
    accepts = inspect.signature(factory).parameters
    any_keyword = any(p.kind is p.VAR_KEYWORD for p in accepts.values())
    settings = {"num_classes": num_classes, "in_chans": in_chans}
    given = {k: v for k, v in settings.items() if v is not None and (k in accepts or any_keyword)}
    built = factory(**given)
    if not isinstance(built, nn.Module):
        raise SettingError("teacher.model", name, "a function that returns an nn.Module", "check the function")
    if not hasattr(built, "factory"):  # students that are cut from it are rebuilt by it
        built.factory = (name, given)  # type: ignore[assignment]
    return built


def _student(folder: Path) -> Plan:
    if not (folder / "arch.json").is_file() and not (folder / "student.json").is_file():
        expected = "a student folder, which holds arch.json"
        raise SettingError("teacher.model", str(folder), expected, "pass the folder that `nas-kd retrain` wrote")
    from nas_kd.export import load_student  # late: export comes after teacher in the order of imports

    student = load_student(folder)
    info: Any = student.info
    normalisation = (info["mean"], info["std"]) if info.get("mean") else None
    chans = info.get("in_chans")
    return Plan(str(folder), lambda classes, _: student, None, normalisation, trained=True, in_chans=chans)
