"""Images that student and teacher answer differently: which are kept, who is right, and that they are the images."""

from __future__ import annotations

import base64
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import nas_kd
from nas_kd.data import Data
from nas_kd.distill import Classification
from nas_kd.train.disagreements import MOST, disagreements

TASK = Classification()


@pytest.fixture(scope="module")
def data() -> Data:
    return nas_kd.load_data("digits", subset=200)


def logits_of(answers: list[int], sure: list[float]) -> torch.Tensor:
    """Write answers as logits whose largest probability is what is asked for, of ten classes."""
    rest = (1 - torch.tensor(sure)) / 9
    probabilities = rest[:, None].repeat(1, 10)
    probabilities[torch.arange(len(answers)), answers] = torch.tensor(sure)
    return probabilities.log()


def test_the_surest_come_first_and_who_is_right_is_told(data: Data) -> None:
    count = len(data.test)
    labels = data.test.labels.tolist()
    wrong = [(label + 1) % 10 for label in labels]
    third = [(label + 2) % 10 for label in labels]
    student, teacher, sure = list(labels), list(labels), [0.9] * count
    student[3], sure[3] = wrong[3], 0.5  # the teacher is right
    teacher[5], sure[5] = wrong[5], 0.8  # the student is right
    student[7], teacher[7], sure[7] = wrong[7], third[7], 0.7  # neither
    found = disagreements(TASK, data, logits_of(student, sure), logits_of(teacher, [0.95] * count))
    assert found["image"].tolist() == [5, 7, 3]
    assert found["right"].tolist() == ["student", "neither", "teacher"]
    assert found["label"].tolist() == [str(labels[at]) for at in (5, 7, 3)]
    assert found["student"].tolist() == [str(student[at]) for at in (5, 7, 3)]
    assert found["student_sure"].tolist() == pytest.approx([0.8, 0.7, 0.5], abs=1e-4)
    assert found["teacher_sure"].tolist() == pytest.approx([0.95] * 3, abs=1e-4)


def test_pictures_are_the_images(data: Data) -> None:
    random = torch.Generator().manual_seed(0)
    one, other = (torch.randn(len(data.test), 10, generator=random) for _ in range(2))
    found = disagreements(TASK, data, one, other)
    assert len(found) == MOST and found["image"].is_unique
    pixels = data.test.raw(torch.tensor(found["image"].tolist()))
    for picture, image in zip(found["shown"], pixels, strict=True):
        read = np.asarray(Image.open(io.BytesIO(base64.b64decode(picture))))
        assert np.array_equal(read, image[:, :, 0].numpy())


def test_large_images_are_shrunk_and_colour_stays(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name in "ab":
        (tmp_path / name).mkdir()
        for number in range(10):
            pixels = rng.integers(256, size=(200, 100, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / name / f"{number}.png")
    data = nas_kd.load_data(str(tmp_path), rate=2, select=2, resolution=200)
    answers = torch.eye(2).repeat(len(data.test) // 2 + 1, 1)[: len(data.test)]
    found = disagreements(TASK, data, answers, answers.flip(1))
    picture = Image.open(io.BytesIO(base64.b64decode(found["shown"][0])))
    assert max(picture.size) == 96 and picture.mode == "RGB"


def test_where_all_agree_there_are_none(data: Data) -> None:
    same = torch.randn(len(data.test), 10, generator=torch.Generator().manual_seed(0))
    found = disagreements(TASK, data, same, 3 * same)
    assert len(found) == 0 and "shown" in found


def test_an_image_without_a_label_is_nobodys(data: Data) -> None:
    test = data.test.normalised(data.test._affine)
    test.labels = torch.full_like(test.labels, -1)
    answers = torch.eye(10).repeat(len(test) // 10 + 1, 1)[: len(test)]
    found = disagreements(TASK, replace(data, test=test), answers, answers.flip(1))
    assert set(found["right"]) == {"unknown"} and set(found["label"]) == {""}


class Last(Classification):
    """Answers with the last class whose logit is above 0."""

    def answers(self, logits: torch.Tensor) -> torch.Tensor:
        return (logits > 0).long().mul(torch.arange(logits.shape[1])).argmax(1)


def test_answers_are_those_of_the_task(data: Data) -> None:
    random = torch.Generator().manual_seed(0)
    one, other = (torch.randn(len(data.test), 10, generator=random) for _ in range(2))
    found = disagreements(Last(), data, one, other)
    given = Last().answers(one)[torch.tensor(found["image"].tolist())]
    assert found["student"].tolist() == [str(number) for number in given.tolist()]
    assert len(disagreements(TASK, data, one, other[:, :9])) == 0  # another teacher's classes
    assert len(disagreements(TASK, data, one, torch.full_like(one, torch.nan))) == 0


def test_labels_that_are_no_classes_have_none() -> None:
    x = torch.randint(0, 256, (60, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    data = nas_kd.load_data((x, torch.rand(60, 2)), rate=5, select=5)
    assert len(disagreements(nas_kd.distill.task_of(data), data, torch.rand(12, 2), torch.rand(12, 2))) == 0
