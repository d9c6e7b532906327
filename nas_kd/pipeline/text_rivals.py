"""Rivals of text students: small classifiers of other kinds, a shallow encoder with new weights, pretrained ones."""

from __future__ import annotations

import re
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from nas_kd.config.paths import existing, transformers_about
from nas_kd.derive.cost import whole_cost
from nas_kd.distill.distiller import Distiller
from nas_kd.distill.pairing import pair_of
from nas_kd.distill.term import Recipe
from nas_kd.errors import SettingError
from nas_kd.export.text import MLP
from nas_kd.nn.text import TextNet
from nas_kd.nn.text_rivals import BagOfEmbeddings, BiLSTM
from nas_kd.pipeline.candidates import ModuleStudent
from nas_kd.pipeline.given import Given
from nas_kd.runtime.seeds import seeded
from nas_kd.space import Cost
from nas_kd.teacher.build import build
from nas_kd.teacher.text import check_tokens

OTHERS = ("bag", "bilstm")  # without layers
OF_TEXTS = (*OTHERS, "shallow", "pretrained")
SHALLOW = "2x128"  # layers and hidden width, those of BERT-tiny
HEAD = 64  # width of an attention head, as of all BERTs


def text_rival(given: Given, text: str, key: str) -> ModuleStudent:
    """Return a rival of text students.

    Args:
        given: what the settings name.
        text: ``bag`` or ``bilstm=HIDDEN``, which begin with the teacher's embeddings of tokens; or
            ``shallow=LAYERSxWIDTH``, an encoder of the teacher's class with new weights; or ``pretrained=FOLDER``, one
            that transformers saved.
        key: of its folder.

    Raises:
        SettingError: it is beyond the budget, its sizes are no numbers, or its folder does not fit the texts.
    """
    name, _, value = text.partition("=")
    if name == "bag" and value:
        raise SettingError("retrain.rivals", text, "bag alone", "leave the rest out")
    size = given.images.resolution
    if name in OTHERS:
        if name == "bilstm" and value and (not value.isdecimal() or int(value) < 1):
            raise SettingError("retrain.rivals", text, "bilstm, or bilstm=HIDDEN with a width of at least 1")
        teacher: Any = given.outlined.network
        table = teacher.body.get_input_embeddings().weight.detach().clone()
        make = partial(_other, name, int(value or 150), given.images.num_classes, table)
        other: Any = make(0)
        cost = Cost(other.macs(size), sum(parameter.numel() for parameter in other.parameters()))
    else:
        make = _shallow(given, text, value or SHALLOW) if name == "shallow" else _pretrained(given, text, value)
        cost = whole_cost(make(0).eval(), 1, size)
    given.check_cost("retrain.rivals", text, cost)
    return ModuleStudent(name, key, text, cost, make, name == "pretrained")


def check_layers(given: Given, rival: ModuleStudent, recipe: Recipe) -> None:
    """Check that a method which compares layers can teach a rival.

    Args:
        given: what the settings name.
        rival: of `text_rival`.
        recipe: of the method.

    Raises:
        SettingError: it has no layers, or of sizes that the method does not compare.
    """
    if rival.role in OTHERS:
        expected = f"none of {' and '.join(OTHERS)}, which lack the layers that retrain.method compares"
        raise SettingError("retrain.rivals", rival.label, expected, "leave it out, or use retrain.method=kd")
    data = given.images
    shape = (data.in_chans, data.resolution, data.resolution)
    try:
        pair = pair_of(
            rival.make(0), recipe, given.outlined, shape, data.num_classes, len(data.train), tokens=data.tokens
        )
        Distiller(recipe).bind(pair)
    except SettingError as error:
        expected = f"a rival that retrain.method can teach: {error.expected}"
        raise SettingError("retrain.rivals", rival.label, expected, error.hint) from error


def _other(name: str, hidden: int, classes: int, table: Tensor, seed: int) -> nn.Module:
    seeded(seed, "rival", name)
    vocabulary, width = table.shape
    made: BagOfEmbeddings | BiLSTM
    if name == "bag":
        made = BagOfEmbeddings(vocabulary, width, classes)
    else:
        made = BiLSTM(vocabulary, width, classes, hidden)
    made.embeddings.weight.data.copy_(table)
    return made


def _shallow(given: Given, text: str, sizes: str) -> partial[nn.Module]:
    found = re.fullmatch(r"([1-9]\d{0,2})x([1-9]\d{0,4})", sizes)
    if found is None:
        expected = f"shallow, or shallow=LAYERSxWIDTH such as shallow={SHALLOW}"
        raise SettingError("retrain.rivals", text, expected)
    layers, width = int(found[1]), int(found[2])
    teacher: Any = given.outlined.network
    config = deepcopy(teacher.body.config)
    config.num_hidden_layers = layers
    config.hidden_size = width
    config.num_attention_heads = max(1, width // HEAD) if width % max(1, width // HEAD) == 0 else 1
    setattr(config, next(name for name in MLP if hasattr(config, name)), 4 * width)
    return partial(_new, TextNet.described(config, teacher.config["attention"]))


def _new(config: dict[str, Any], seed: int) -> nn.Module:
    seeded(seed, "rival", "shallow")
    return TextNet(config).train()


def _pretrained(given: Given, text: str, folder: str) -> partial[nn.Module]:
    expected = "pretrained=FOLDER, one that transformers saved, with config.json and weights"
    if not folder or transformers_about(existing("retrain.rivals", folder, expected)) is None:
        raise SettingError("retrain.rivals", text, expected, "call model.save_pretrained(FOLDER)")
    make = partial(_of_folder, folder, given.images.num_classes)
    tokens: Any = given.images.tokens
    try:
        check_tokens(make(0), folder, tokens)
    except SettingError as error:
        expected = f"a rival for the texts as the teacher's tokenizer has them: {error.expected}"
        raise SettingError("retrain.rivals", text, expected, "give another folder") from error
    return make


def _of_folder(folder: str, classes: int, seed: int) -> Any:
    seeded(seed, "rival", "pretrained")
    return build(Path(folder), num_classes=classes, new_head=True).module.requires_grad_(True)
