"""What labels are: told from values, refused where they could be two things."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from nas_kd.data import load_data
from nas_kd.data.labels import labels_of
from nas_kd.errors import SettingError

GENERATOR = torch.Generator().manual_seed(0)
X = torch.randint(0, 256, (60, 3, 8, 8), dtype=torch.uint8, generator=GENERATOR)
HOT = (torch.rand(60, 5, generator=GENERATOR) > 0.5).long()


@pytest.mark.parametrize(
    ("values", "kind", "names", "expected"),
    [
        (["b", "a", "c", "b"], None, ("a", "b", "c"), [1, 0, 2, 1]),
        (np.array(["x", 7, "7"], dtype=object), None, ("7", "x"), [1, 0, 0]),
        ([10, 2, 10, 3], None, ("2", "3", "10"), [2, 0, 2, 1]),  # in the order of numbers, not of their digits
        ([True, False, True], None, ("False", "True"), [1, 0, 1]),
        ([1.0, 2.0, 1.0], "classes", ("1", "2"), [0, 1, 0]),
    ],
)
def test_one_column_of_classes(values: Any, kind: Any, names: tuple[str, ...], expected: list[int]) -> None:
    found = labels_of("data.label", {"label": np.asarray(values)}, kind)
    assert (found.kind, found.names, found.y.tolist()) == ("classes", names, expected) and found.y.dtype == np.int64


@pytest.mark.parametrize(
    ("columns", "kind", "expected"),
    [
        ({"a": [0, 1, 1], "b": [0, 1, 0]}, None, "multilabel"),
        ({"a": [True, True, False], "b": [True, False, False]}, None, "multilabel"),
        ({"a": [0.0, 1.0, 1.0], "b": [0.0, 1.0, 0.0]}, None, "multilabel"),
        ({"a": [0, 1, 1], "b": [0.5, 1.0, 2.0]}, None, "regression"),
        ({"age": [0.5, 7.25, -3.0]}, None, "regression"),
        ({"age": [31, 7, 31]}, "regression", "regression"),
        ({"a": [1, 0, 0], "b": [0, 1, 1]}, "multilabel", "multilabel"),
        ({"ill": [1, 0, 1]}, "multilabel", "multilabel"),
    ],
)
def test_columns_of_numbers(columns: dict[str, list[Any]], kind: Any, expected: str) -> None:
    found = labels_of("data.label", {name: np.asarray(column) for name, column in columns.items()}, kind)
    assert (found.kind, found.names) == (expected, tuple(columns)) and found.y.dtype == np.float32
    assert found.y.T.tolist() == [list(map(float, column)) for column in columns.values()]


def test_one_1_in_every_row_is_a_class_only_on_request() -> None:
    columns = {"cat": np.array([1, 0, 0]), "dog": np.array([0, 1, 0]), "owl": np.array([0, 0, 1])}
    with pytest.raises(SettingError, match=r"one 1 in every row.*classes or multilabel.*set data\.kind"):
        labels_of("data.label", columns, None)
    found = labels_of("data.label", columns, "classes")
    assert (found.y.tolist(), found.names) == ([0, 1, 2], ("cat", "dog", "owl"))
    assert labels_of("data.label", columns, "multilabel").y.tolist() == np.eye(3).tolist()


@pytest.mark.parametrize(
    ("columns", "kind", "parts"),
    [
        ({"a": [0, 2, 1], "b": [0, 1, 1]}, None, r"whole numbers 0 \.\. 2.*data\.kind=regression"),
        ({"a": ["x", "y"], "b": ["u", "v"]}, None, "numbers in every one.*name one label column"),
        ({"a": ["x", "y"]}, "regression", "a: texts.*data.kind=regression"),
        ({"a": [0, 1, 2]}, "multilabel", r"a: 0 \.\. 2.*0 and 1"),
        ({"a": [0.5, 1.0]}, "classes", "whole numbers or texts"),
        ({"a": [0, 1, 1], "b": [1, 1, 0]}, "classes", "one 1 in every row"),
        ({"a": [0.5, float("nan")]}, None, "a: nan in row 1"),
        ({"a": [0.5, float("inf")]}, None, "a: inf in row 1"),
        ({"a": np.array(["x", None, ""], dtype=object)}, None, "no label in 2 rows, the first 1"),
        ({"a": [0.0, 1.0, 0.0, 1.0]}, None, "class numbers as float64.*data.kind"),
        ({"a": ["x", "x"]}, None, "one class, 'x'.*at least two"),
        ({"a": np.array([1 + 2j])}, None, "a: complex128"),
    ],
)
def test_what_is_no_label_or_two_things(columns: dict[str, Any], kind: Any, parts: str) -> None:
    with pytest.raises(SettingError, match=parts):
        labels_of("data.label", {name: np.asarray(column) for name, column in columns.items()}, kind)


def test_numbers_are_looked_at_before_a_list_of_their_size_is_made() -> None:
    for largest in (2**40, 2**62):
        with pytest.raises(SettingError, match=f"no image of class 2, and label {largest}.*an image of every class"):
            load_data((X[:3], torch.tensor([0, 1, largest])))
    with pytest.raises(SettingError, match="label -1"):
        load_data((X[:3], torch.tensor([0, 1, -1])))


def test_tensors_with_texts_as_labels() -> None:
    texts = [("owl", "cat", "emu")[i % 3] for i in range(60)]
    data = load_data((X, texts))
    assert (data.kind, data.classes, data.label_names, data.num_classes) == ("classes", ("cat", "emu", "owl"), (), 3)
    frame = data.frame()
    assert all(data.classes[label] == name.split("/")[0] for name, label in zip(frame.name, frame.label, strict=True))
    rows = [int(name.split("/")[1]) for name in data.test.names]
    assert [texts[row] for row in rows] == [data.classes[c] for c in data.test.labels.tolist()]


@pytest.mark.parametrize(
    ("pair", "parts"),
    [
        ((X,), "1 parts.*a pair"),
        ((None, [1, 2]), r"NoneType.*x \(N, C, H, W\) uint8"),
        ((X, 3), r"int.*labels \(N,\) or \(N, L\)"),
        ((X, [[1], [2, 3]]), r"list.*labels \(N,\) or \(N, L\)"),
        ((X, torch.zeros(60, 2, 2)), r"y of shape \(60, 2, 2\)"),
        ((X.float() / 255, torch.arange(60) % 2), r"float32.*\(255 \* x\)\.round\(\)\.to\(torch\.uint8\)"),
        ((X.permute(0, 2, 3, 1), torch.arange(60) % 2), r"channels first.*x\.permute\(0, 3, 1, 2\)"),
        ((X, torch.arange(60) % 5 + 1), "no image of class 0, and label 5.*subtract 1 from all"),
    ],
)
def test_pairs_that_are_none(pair: Any, parts: str) -> None:
    with pytest.raises(SettingError, match=parts):
        load_data(pair)


def test_labels_in_a_frame_keep_the_names_of_its_columns() -> None:
    frame = pd.DataFrame({"red": HOT[:, 0].numpy(), "old": HOT[:, 1].numpy()})
    data = load_data((X, frame), pad=1)
    assert (data.kind, data.label_names) == ("multilabel", ("red", "old"))


def test_several_labels_an_image() -> None:
    data = load_data((X, HOT), pad=1)
    assert (data.kind, data.label_names, data.num_classes) == ("multilabel", ("0", "1", "2", "3", "4"), 5)
    rows = [int(name) for split in data.splits for name in split.names]
    assert sorted(rows) == list(range(60))
    assert torch.equal(torch.cat([split.labels for split in data.splits]), HOT[rows].float())
    batch = next(data.train.batches(8, epoch=0, seed=0))
    assert batch.y.shape == (8, 5) and batch.y.dtype == torch.float32
    assert torch.equal(batch.y, data.train.labels[batch.index])
    assert len(torch.cat([part.y for part in data.train.clean(8, limit=20)])) == 20
    frame = data.frame()
    assert list(frame.columns) == ["name", *(f"label_{c}" for c in range(5)), "split"]
    assert frame.iloc[:, 1:6].to_numpy().tolist() == HOT[rows].tolist()


def test_numbers_as_labels() -> None:
    y = torch.rand(60, generator=GENERATOR)
    data = load_data((X, y), pad=1)
    assert (data.kind, data.label_names, data.train.labels.shape[1:]) == ("regression", ("0",), (1,))
    rows = [int(name) for name in data.test.names]
    assert torch.equal(data.test.labels[:, 0], y[rows]) and 3 <= len(rows) <= 22  # a fifth of 60, five deviations
    assert load_data((X, y + 1), pad=1).fingerprint != data.fingerprint
    same = load_data((X, HOT.float()), pad=1), load_data((X, HOT), pad=1, kind="regression")
    assert [one.kind for one in same] == ["multilabel", "regression"]
    assert same[0].fingerprint != same[1].fingerprint


def test_a_test_set_has_labels_of_the_same_kind() -> None:
    with pytest.raises(SettingError, match=r"data\.test=.*multilabel.*classes, as the labels of data\.train"):
        load_data((X, torch.arange(60) % 3), test=(X, HOT))


def test_minus_one_says_that_images_without_a_label_are_left_out() -> None:
    x = torch.zeros(12, 1, 8, 8, dtype=torch.uint8)
    y = torch.arange(12) % 3 - 1
    with pytest.raises(SettingError, match=r"label -1 of 4 images.*leave images without a label out: x\[y >= 0\]"):
        load_data((x, y))
