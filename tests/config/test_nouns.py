"""Sentences of images, spoken of texts."""

from __future__ import annotations

import pickle

import pytest

from nas_kd.config.nouns import spoken, spoken_errors, spoken_page
from nas_kd.errors import SettingError


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("12 images, an image a row", "12 texts, a text a row"),
        ("Images of test images.", "Texts of test texts."),
        ("compared image by image", "compared text by text"),
        ("data.image=image_path, images/a.png, my-images.csv, images.csv", None),
        ("imagery", None),
        ("fewer images (data.subset); (image)", "fewer texts (data.subset); (text)"),
    ],
)
def test_sentences(given: str, said: str | None) -> None:
    assert spoken(given, True) == (given if said is None else said)
    assert spoken(given, False) == given


def test_tags_and_code_of_a_page_stay() -> None:
    page = '<p class="images" title="an image">an image</p><code>images</code><style>images {}</style>'
    assert spoken_page(page, True) == page.replace(">an image<", ">a text<")
    assert spoken_page(page, False) == page


def test_errors() -> None:
    with pytest.raises(SettingError) as caught, spoken_errors(True):
        raise SettingError("data.train", "an image", "two images or more", "add an image")
    error = caught.value
    assert (error.field, error.value, error.expected, error.hint) == (
        "data.train",
        "an image",
        "two texts or more",
        "add a text",
    )
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
    with pytest.raises(SettingError, match="two images"), spoken_errors(False):
        raise SettingError("data.train", 1, "two images", "")
