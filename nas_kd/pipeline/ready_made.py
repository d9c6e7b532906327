"""The rivals that settings name, checked before anything is trained; ready-made models among them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from torch import nn

from nas_kd.config.paths import existing
from nas_kd.derive.cost import whole_cost
from nas_kd.distill.term import Recipe
from nas_kd.errors import SettingError, nearest
from nas_kd.pipeline.candidates import ModuleStudent
from nas_kd.pipeline.given import Given
from nas_kd.pipeline.hub_rival import hub_rival, is_hub
from nas_kd.pipeline.text_rivals import OF_TEXTS, check_layers, text_rival
from nas_kd.pipeline.tree_rival import NAME as TREE
from nas_kd.pipeline.tree_rival import soft_tree
from nas_kd.runtime.seeds import seeded
from nas_kd.teacher.build import build
from nas_kd.teacher.renormalised import Normalisation, Renormalised

USUAL = ("new_weights", "even_width", "even_depth", "even_both", "taylor", "small_images")  # of the teacher's space
OWN = (*USUAL, "even_both_repaired")
OF_IMAGES = ("taylor", "small_images")


def named_rivals(given: Given) -> Sequence[str]:
    """Return the rivals that the settings name, else the usual ones of the teacher's space."""
    named = given.config.retrain.rivals
    if named is not None or not given.config.derived:
        return named or ()
    return [name for name in USUAL if given.images.tokens is None or name not in OF_IMAGES]


def of_texts(given: Given, text: str) -> ModuleStudent:
    """Return the rival of text students that a setting names; see `text_rival`."""
    return text_rival(given, text, f"{text.partition('=')[0]}-{_digest(text)}")


def is_tree(text: str) -> bool:
    """Whether a rival is a soft decision tree."""
    return text.partition("=")[0] == TREE


def check_rivals(given: Given, recipe: Recipe | None = None) -> None:
    """Check the rivals that the settings name.

    Args:
        recipe: of the students' method; None is one that compares no layers.

    Raises:
        SettingError: there is no such rival or model, its weights are not there, it is beyond the budget, or it has no
            layers that the method compares.
    """
    for name in given.config.retrain.rivals or ():
        texts = given.images.tokens is not None
        if texts and name.partition("=")[0] in OF_TEXTS:
            rival = of_texts(given, name)
            if recipe is not None and recipe.needs_features:
                check_layers(given, rival, recipe)
            continue
        if texts and (name in OF_IMAGES or name not in OWN):
            known = [*(name for name in OWN if name not in OF_IMAGES), *OF_TEXTS]
            raise SettingError("retrain.rivals", name, f"{', '.join(known)} where the data are texts", "leave it out")
        if is_tree(name):
            soft_tree(given, name)
        elif is_hub(name):
            hub_rival(given, name)
        elif name not in OWN:
            ready_made(given, name)
        elif not given.config.derived:
            expected = "a timm model, where the space is named: there is no teacher to cut"
            raise SettingError("retrain.rivals", name, expected, "leave space out, or leave this rival out")


def ready_made(given: Given, text: str) -> ModuleStudent:
    """Return a timm model as a rival.

    Args:
        given: what the settings name.
        text: NAME for new weights, NAME=pretrained for timm's own, or NAME=FILE.

    Raises:
        SettingError: see `check_rivals`.
    """
    import timm

    name, _, weights = text.partition("=")
    if not timm.is_model(name):
        expected = f"{', '.join(OWN)}, {TREE}, or a timm model"
        raise SettingError("retrain.rivals", name, expected, nearest(name, [*OWN, TREE, *timm.list_models()]))
    if weights not in ("", "pretrained"):
        existing("retrain.rivals", weights, "an existing file of weights")
    data = given.images
    fed = given.data.mean, given.data.std
    make = partial(_timm, name, weights, data.num_classes, data.in_chans, data.resolution, fed)
    cost = whole_cost(make(0).eval(), data.in_chans, data.resolution)
    given.check_cost("retrain.rivals", name, cost)
    return ModuleStudent(name, f"{name}-{_digest(text)}", name, cost, make, bool(weights))


def _timm(
    name: str, weights: str, classes: int, chans: int, resolution: int, fed: Normalisation, seed: int
) -> nn.Module:
    """Build a timm model; what no weights are given for is drawn from the seed.

    Trained weights expect the normalisation of images that they were trained with, where it is known: ``fed`` is turned
    into it first.
    """
    seeded(seed, "rival", name)
    built = build(
        name,
        checkpoint=None if weights in ("", "pretrained") else Path(weights),
        num_classes=classes,
        in_chans=chans,
        pretrained=weights == "pretrained",
        resolution=resolution,
        new_head=True,
    )
    expected = built.normalisation
    if expected is None or len(expected[0]) != chans or [*map(list, expected)] == [*map(list, fed)]:
        return built.module
    return Renormalised(name, classes, chans, resolution, fed, expected, built.module)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:6]
