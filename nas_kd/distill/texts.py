"""Which methods teach students of texts."""

from __future__ import annotations

from nas_kd.distill.term import Recipe
from nas_kd.errors import SettingError

HINT = "use kd, or another method on logits alone"


def check_for_texts(recipe: Recipe, mixes: bool = False) -> None:
    """Refuse methods that compare feature maps of images, or make, mix or change images.

    Args:
        recipe: of the method.
        mixes: whether inputs are mixed in pairs.

    Raises:
        SettingError: it is one of them.
    """
    maps = sorted({term.name for term in recipe.terms if term.features - {"logits"} and not term.texts})
    if maps:
        raise SettingError("retrain.method", ", ".join(maps), "losses on logits: texts have no feature maps", HINT)
    if recipe.inputs is not None or recipe.sampler is not None or recipe.live:
        expected = "a method that takes texts as they are: this one makes, pairs or changes its images"
        raise SettingError("retrain.method", [term.name for term in recipe.terms], expected, HINT)
    if mixes:
        raise SettingError("retrain.mixup", "mixed pairs", "0 for mixup and cutmix: texts are not mixed", "omit both")
