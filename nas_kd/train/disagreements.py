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
from nas_kd.distill import Task
from nas_kd.nn import inputs

DISAGREEMENTS = "test_disagreements.csv"  # beside the student; the report reads it
COLUMNS = ("image", "label", "student", "teacher", "right", "student_sure", "teacher_sure", "shown")
MOST = 12  # images of a student
SIDE = 96  # pixels that an image is shrunk to
CHARACTERS = 300  # of a text


def disagreements(task: Task, data: Data, logits: Tensor, theirs: Tensor) -> pd.DataFrame:
    """Return test images that student and teacher answer differently, those of which both are surest first.

    Args:
        task: says what the answers are.
        data: the data.
        logits: (N, C) of the student on the test images.
        theirs: (N, C) of the teacher.

    Returns:
        At most `MOST` rows: ``image`` (its number in the split), the names ``label`` (empty where it is not known),
        ``student`` and ``teacher`` of the classes, ``student_sure`` and ``teacher_sure`` (probability, 0 to 1) of the
        answers, ``right`` (who is: student, teacher, neither, or unknown), and ``shown``: a PNG in base64, or the
        beginning of a text. None where answers are no classes, or an answer is no number.
    """
    own, other = task.answers(logits), task.answers(theirs)
    if own is None or other is None or data.kind != "classes" or logits.shape != theirs.shape:
        return pd.DataFrame(columns=COLUMNS)
    sure = [_probability(*pair) for pair in ((logits, own), (theirs, other))]
    least = torch.minimum(*sure)
    apart = ((own != other) & least.isfinite()).nonzero()[:, 0]
    index = apart[least[apart].argsort(descending=True, stable=True)][:MOST]
    numbers = [each[index].tolist() for each in (data.test.labels, own, other)]
    names = {number: name for number, name in enumerate(data.classes)}
    frame = pd.DataFrame({"image": index.tolist()})
    for column, some in zip(COLUMNS[1:4], numbers, strict=True):
        frame[column] = ["" if number < 0 else names.get(number, str(number)) for number in some]
    frame["right"] = [
        "unknown" if label < 0 else "student" if label == student else "teacher" if label == teacher else "neither"
        for label, student, teacher in zip(*numbers, strict=True)
    ]
    for column, values in zip(COLUMNS[5:7], sure, strict=True):
        frame[column] = values[index].numpy().round(4)
    frame["shown"] = _shown(data, index)
    return frame


def _probability(logits: Tensor, answers: Tensor) -> Tensor:
    """Return the probability of answers, (N,)."""
    wide = logits.float()
    return (wide.gather(1, answers[:, None])[:, 0] - wide.logsumexp(1)).exp()


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
