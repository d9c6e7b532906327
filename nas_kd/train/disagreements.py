"""Test images that student and teacher answer differently, with small copies of them for the report."""

from __future__ import annotations

import base64
import io

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor

from nas_kd.data import Data
from nas_kd.data.texts import read_tokenizer
from nas_kd.nn import inputs

DISAGREEMENTS = "test_disagreements.csv"  # beside the student; the report reads it
MOST = 12  # images of a student
SIDE = 96  # pixels that an image is shrunk to
CHARACTERS = 300  # of a text


def disagreements(data: Data, logits: Tensor, theirs: Tensor) -> pd.DataFrame:
    """Return test images that student and teacher answer differently, those of which both are surest first.

    Args:
        data: of classes.
        logits: (N, C) of the student on the test images.
        theirs: (N, C) of the teacher.

    Returns:
        At most `MOST` rows: ``image`` (its number in the split), the names ``label`` (empty where it is not known),
        ``student`` and ``teacher`` of the classes, ``student_sure`` and ``teacher_sure`` (probability, 0 to 1) of the
        answers, ``right`` (who is: student, teacher, neither, or unknown), and ``shown``: a PNG in base64, or the
        beginning of a text.
    """
    own = logits.float().softmax(1).max(1)
    other = theirs.float().softmax(1).max(1)
    apart = (own.indices != other.indices).nonzero()[:, 0]
    surest = torch.minimum(own.values, other.values)[apart].argsort(descending=True, stable=True)
    index = apart[surest][:MOST]
    labels = data.test.labels[index].tolist()
    named = {"label": labels, "student": own.indices[index].tolist(), "teacher": other.indices[index].tolist()}
    frame = pd.DataFrame({"image": index.tolist()})
    for column, numbers in named.items():
        frame[column] = [data.classes[number] if number >= 0 else "" for number in numbers]
    frame["right"] = [
        "unknown" if label < 0 else "student" if label == student else "teacher" if label == teacher else "neither"
        for label, student, teacher in zip(*named.values(), strict=True)
    ]
    frame["student_sure"] = own.values[index].numpy().round(4)
    frame["teacher_sure"] = other.values[index].numpy().round(4)
    frame["shown"] = _shown(data, index)
    return frame


def _shown(data: Data, index: Tensor) -> list[str]:
    """Return small copies of test images, or the beginnings of texts."""
    if not len(index):
        return []
    raw = data.test.raw(index)
    if data.tokens is None:
        return [_png(image) for image in raw.cpu().numpy()]
    tokenizer = read_tokenizer(data.tokens.tokenizer)
    real = inputs.real_tokens(raw)
    assert real is not None  # a batch of texts has a mask
    kept = [ids[mask].tolist() for ids, mask in zip(raw[inputs.IDS], real, strict=True)]
    return [tokenizer.decode(ids, skip_special_tokens=True)[:CHARACTERS] for ids in kept]


def _png(image: np.ndarray) -> str:
    """Return an image (H, W, C) of bytes as a PNG in base64, shrunk to `SIDE`."""
    picture = Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image)
    picture.thumbnail((SIDE, SIDE))
    file = io.BytesIO()
    picture.save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()
