"""The report shows images on which the student that is handed over and its teacher disagree."""

from __future__ import annotations

import base64
import io
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from nas_kd.analyse.disagreements import FILE, disagreements_of
from nas_kd.analyse.report import report
from nas_kd.analyse.table import final_table
from nas_kd.config.nouns import TOKENS
from nas_kd.errors import SettingError
from nas_kd.train.disagreements import DISAGREEMENTS


def picture(seed: int) -> str:
    file = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(256, size=(8, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


ROWS = pd.DataFrame(
    {
        "image": [4, 7, 9],
        "label": ["cat", "<b>dog", ""],
        "student": ["<b>dog", "<b>dog", "owl"],
        "teacher": ["cat", "owl", "cat"],
        "right": ["teacher", "student", "unknown"],
        "student_sure": [0.91, 0.8, 0.5],
        "teacher_sure": [0.99, 0.7, 0.6],
        "shown": [picture(0), picture(1), picture(2)],
    }
)


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A finished run whose students have such a table each."""
    copied = Path(shutil.copytree(finished, tmp_path / "run"))
    for folder in pd.read_csv(copied / "retrain" / "results.csv")["folder"]:
        home = (copied / folder).parent
        home.mkdir(parents=True, exist_ok=True)
        ROWS.to_csv(home / FILE, index=False)
    return copied


def given(run: Path) -> str:
    results = final_table(run)
    return str(results.loc[results["handed_over"], "folder"].iloc[0])


def test_images_are_shown_by_who_is_right(run: Path) -> None:
    page = report(run).read_text()
    assert "Where student and teacher differ" in page and "3 test images" in page
    for title, picture in zip(("The teacher", "The student", "Without"), ROWS["shown"], strict=True):
        after = page[page.index(f"<h3>{title}") :]
        assert after.index(picture) < after.index("</div>")
    assert "Neither is right" not in page
    plain = page.replace("<bdi>", "").replace("</bdi>", "")
    assert "cat; student &lt;b&gt;dog 91 %, teacher cat 99 %" in plain and "<b>dog" not in page
    kept = pd.read_csv(run / "report" / "disagreements.csv")
    assert kept["image"].tolist() == [4, 7, 9] and "shown" not in kept
    assert FILE == DISAGREEMENTS  # what a training writes


@pytest.mark.parametrize("name", ["None", "NA", "001", "1", "true", "images", "accuracy"])
def test_names_stay_as_they_are(run: Path, name: str) -> None:
    path = (run / given(run)).parent / FILE
    ROWS.assign(label=name, student=name, right="student").to_csv(path, index=False)
    config = run / "config.yaml"
    config.write_text(config.read_text() + "metric: macro_f1\n")
    results = pd.read_csv(run / "retrain" / "results.csv", dtype={"key": str})
    for split in ("select", "test"):
        results[f"{split}_macro_f1"] = results[f"{split}_accuracy"]
    results.to_csv(run / "retrain" / "results.csv", index=False)
    assert disagreements_of(run, given(run))["student"].tolist() == [name] * 3
    page = report(run).read_text()
    assert page.count(f"<bdi>{name}</bdi>; student <bdi>{name}</bdi>") == 3


def test_texts_of_the_user_stay_as_they_are(run: Path) -> None:
    said = "An image of images, and the accuracy of an image file."
    (run / TOKENS).write_text("{}")
    ROWS.assign(shown=said).to_csv((run / given(run)).parent / FILE, index=False)
    page = report(run).read_text()
    assert page.count(f"<p><bdi>{said}</bdi></p>") == 3 and "3 test texts" in page


def test_nothing_is_shown_where_nothing_is_known(run: Path) -> None:
    (run / given(run)).parent.joinpath(FILE).unlink()
    assert disagreements_of(run, given(run)).empty
    assert "Where student and teacher differ" not in report(run).read_text()


@pytest.mark.parametrize("spoilt", ['"><script>alert(1)</script>', base64.b64encode(b"GIF89a").decode()])
def test_a_picture_that_is_none_is_refused(run: Path, spoilt: str) -> None:
    path = (run / given(run)).parent / FILE
    ROWS.assign(shown=[spoilt, *ROWS["shown"][1:]]).to_csv(path, index=False)
    with pytest.raises(SettingError, match=FILE):
        report(run)
