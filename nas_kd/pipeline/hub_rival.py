"""Networks drawn from the spaces of NNI's hub, as rivals of the found student."""

from __future__ import annotations

import hashlib
import warnings
from functools import partial
from typing import Any

import numpy as np
from torch import Tensor, nn

from nas_kd.derive.cost import whole_cost
from nas_kd.errors import SettingError, nearest
from nas_kd.pipeline.candidates import ModuleStudent
from nas_kd.pipeline.given import Given
from nas_kd.runtime.seeds import seed_for, seeded

PREFIX = "nni:"
DRAWS = 32  # archs that are drawn for one within the budget
SMALL = 64  # images below this size get the cells' networks of CIFAR
CELLS: dict[str, Any] = {"width": 8, "num_cells": 5}
# class of nni.nas.hub.pytorch -> whether it is a space of cells, which asks for a width and a number of cells
SPACES = {
    "MobileNetV3Space": False,
    "ProxylessNAS": False,
    "ShuffleNetSpace": False,
    "NasBench201": False,
    "DARTS": True,
    "ENAS": True,
    "NASNet": True,
    "AmoebaNet": True,
    "PNAS": True,
}


class HubNet(nn.Module):
    """One network of a space of NNI's hub, with a classifier for other classes.

    Args:
        space: a key of `SPACES`.
        draw: seed of the arch.
        num_classes: of its logits.
        in_chans: channels of the images; other than 3 are averaged and repeated, for the hub's networks see colours.
        resolution: height of the images in pixels.

    Raises:
        SettingError: NNI or what its hub imports is not installed, or there is no such space.
    """

    def __init__(self, space: str, draw: int, num_classes: int, in_chans: int, resolution: int) -> None:
        super().__init__()
        arguments = {"space": space, "draw": draw, "num_classes": num_classes, "in_chans": in_chans}
        self.factory = f"{__name__}:{type(self).__name__}", arguments | {"resolution": resolution}
        self.in_chans = in_chans
        made = hub_class(space)
        settings = CELLS | {"dataset": "cifar" if resolution < SMALL else "imagenet"} if SPACES[space] else {}
        self.network: nn.Module = made(**settings).random(random_state=np.random.RandomState(draw % 2**32))
        name, last = [(name, m) for name, m in self.network.named_modules() if isinstance(m, nn.Linear)][-1]
        self.network.set_submodule(name, nn.Linear(last.in_features, num_classes))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in_chans, H, W) to logits (B, num_classes)."""
        if self.in_chans != 3:
            x = x.mean(1, keepdim=True).expand(-1, 3, -1, -1)
        out = self.network(x)
        logits: Tensor = out[0] if isinstance(out, tuple) else out  # cells have a further classifier in training
        return logits


def hub_class(name: str) -> Any:
    """Return a space of NNI's hub by its name.

    Raises:
        SettingError: it does not exist, or cannot be imported.
    """
    if name not in SPACES:
        expected = "a space of NNI's hub that runs here: " + ", ".join(SPACES)
        raise SettingError("retrain.rivals", PREFIX + name, expected, nearest(name, SPACES))
    try:
        with warnings.catch_warnings():  # of names that newer versions of torch added
            warnings.simplefilter("ignore")
            from nni.nas.hub import pytorch as hub
    except ImportError as error:
        expected = f"a space of NNI's hub, which does not import here ({error})"
        hint = "pip install 'nas_kd[nni]' pytorch_lightning, on an x86-64 machine"
        raise SettingError("retrain.rivals", PREFIX + name, expected, hint) from error
    return getattr(hub, name)


def is_hub(text: str) -> bool:
    """Whether a rival is of NNI's hub."""
    return text.startswith(PREFIX)


def hub_rival(given: Given, text: str) -> ModuleStudent:
    """Return a network of NNI's hub as a rival: the first one drawn that keeps the budget.

    Args:
        given: what the settings name.
        text: ``nni:NAME``, or ``nni:NAME=NUMBER`` for another one.

    Raises:
        SettingError: there is no such space, it cannot be imported, or none of 32 networks keeps the budget.
    """
    name, _, number = text.removeprefix(PREFIX).partition("=")
    if number and not number.isdecimal():
        raise SettingError("retrain.rivals", text, f"{PREFIX}NAME, or {PREFIX}NAME=NUMBER")
    hub_class(name)
    data = given.images
    shape = {"num_classes": data.num_classes, "in_chans": data.in_chans, "resolution": data.resolution}
    for attempt in range(DRAWS):
        draw = seed_for(int(number or 0), "hub", name, attempt) % 2**32
        make = partial(_drawn, name, draw, shape)
        cost = whole_cost(make(0).eval(), data.in_chans, data.resolution)
        try:
            given.check_cost("retrain.rivals", text, cost)
        except SettingError:
            if attempt == DRAWS - 1:
                raise
            continue
        break
    key = f"nni-{name}-{hashlib.sha256(text.encode()).hexdigest()[:6]}"
    return ModuleStudent(f"nni_{name}", key, f"{text}, draw {attempt + 1}", cost, make)


def _drawn(name: str, draw: int, shape: dict[str, int], seed: int) -> nn.Module:
    seeded(seed, "rival", name)
    return HubNet(name, draw, **shape)
