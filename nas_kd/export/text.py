"""What goes with a text student: its tokenizer, and a folder for transformers where that can describe it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

from torch import nn

from nas_kd.config.paths import TOKENIZER
from nas_kd.nn.cutting import COUNTS, CutPlan, LeftOut
from nas_kd.nn.text import TextNet, quiet, transformers_library
from nas_kd.runs.files import atomic_json
from nas_kd.runs.links import part_of, remove

STOCK = "transformers"  # folder beside that of the student
MARK = "nas_kd.json"  # in it: nas_kd wrote it, and may replace it
MLP = ("intermediate_size", "hidden_dim")  # what configurations call the width of an MLP


def save_text_student(
    network: nn.Module, folder: Path, tokenizer: str, classes: Sequence[str], stock: Path | None = None
) -> str | None:
    """Put the tokenizer into a student folder, and save the student for transformers where that can describe it.

    Args:
        network: the student, saved in the folder already.
        folder: its folder.
        tokenizer: folder of the tokenizer.
        classes: names of its outputs.
        stock: the folder for transformers; None is one beside the student's.

    Returns:
        Why there is no new folder for transformers, which cannot describe it or is another of that name; None where
        it was written.
    """
    library = transformers_library("tokenizer", tokenizer)
    known = library.AutoTokenizer.from_pretrained(tokenizer, trust_remote_code=False)
    known.save_pretrained(folder / TOKENIZER)
    place = folder.parent / STOCK if stock is None else stock
    if os.path.lexists(place) and (place.is_symlink() or not (place / MARK).is_file()):
        return f"{place} is there already, and nas_kd did not write it"
    found = stock_model(network) if isinstance(network, TextNet) else "it is no model of that library"
    if isinstance(found, str):
        remove(place)
        return found
    found.config.id2label = dict(enumerate(classes))
    found.config.label2id = {name: number for number, name in enumerate(classes)}
    part = part_of(place)
    remove(part)
    with quiet(library):
        found.save_pretrained(part)
    known.save_pretrained(part)
    atomic_json(part / MARK, {"student": folder.name})
    remove(place)
    part.rename(place)
    return None


def stock_model(network: TextNet) -> Any:
    """Write a cut network as a model of transformers: its configuration has one number of layers and one MLP width.

    Args:
        network: cut from a whole one, whose ``cut_plan`` says how; or a whole one.

    Returns:
        The model with a copy of the weights, or why there is none.
    """
    plan = getattr(network, "cut_plan", None)
    if not isinstance(plan, CutPlan):
        return deepcopy(network.body)
    if any(name in COUNTS for numbers in plan.numbers.values() for name in numbers):
        return "layers have fewer attention heads of the same width, which its configuration has no word for"
    config = deepcopy(network.body.config)
    layers = network.encoder_layers
    path = next(path for path, module in network.body.named_modules() if module is layers)
    stays = [number for number, layer in enumerate(layers) if not isinstance(layer, LeftOut)]
    size = next((name for name in MLP if hasattr(config, name)), None)
    whole = getattr(config, size) if size is not None else None
    widths = {_width(layers[number], whole, config.hidden_size) for number in stays} if whole else set()
    if len(widths) > 1:
        return f"MLP widths differ between layers: {', '.join(map(str, sorted(widths)))}"
    config.num_hidden_layers = len(stays)
    if widths:
        setattr(config, str(size), widths.pop())
    new = {f"{path}.{old}.": f"{path}.{number}." for number, old in enumerate(stays)}
    state = {}
    for name, tensor in network.body.state_dict().items():
        start = next((start for start in new if name.startswith(start)), None)
        state[name if start is None else new[start] + name.removeprefix(start)] = tensor.detach().clone()
    library = transformers_library("student", config.model_type)
    found = library.AutoModelForSequenceClassification.from_config(config)
    if {name: t.shape for name, t in found.state_dict().items()} != {name: t.shape for name, t in state.items()}:
        return "its layers have sizes that its configuration has no word for"
    found.load_state_dict(state)
    return found.eval()


def _width(layer: nn.Module, whole: int, hidden: int) -> int:
    """Return the width of a layer's MLP: what the last linear layer reads that gives the hidden width."""
    last = [part for part in layer.modules() if isinstance(part, nn.Linear) and part.out_features == hidden]
    return int(last[-1].in_features) if last else whole
