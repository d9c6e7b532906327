"""Encoders as rivals of text students: shallow ones with new weights, and pretrained folders."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_texts import bert

from nas_kd.data.config import DataConfig
from nas_kd.derive.cost import whole_cost
from nas_kd.errors import SettingError
from nas_kd.pipeline.config import Config
from nas_kd.pipeline.given import Given
from nas_kd.pipeline.ready_made import of_texts
from nas_kd.searcher.config import SearchConfig
from nas_kd.train.teacher_config import TeacherConfig

pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def given(bert_folder: Path, review_table: Path) -> Given:
    return Given(
        Config(
            data=DataConfig(train=str(review_table), rate=0.2, select=0.2),
            teacher=TeacherConfig(model=f"{bert_folder}/"),
            search=SearchConfig(max_macs="70%"),
        )
    )


@pytest.mark.parametrize(("text", "layers", "width"), [("shallow=1x16", 1, 16), ("shallow=2x20", 2, 20)])
def test_shallow_encoders_have_the_sizes_that_were_asked(text: str, layers: int, width: int, given: Given) -> None:
    rival = of_texts(given, text)
    made: Any = rival.make(0)
    length = given.images.resolution
    per_token = layers * (4 * width * width + 2 * width * 4 * width)
    assert rival.cost.macs == length * per_token + width * width + width * 2
    assert rival.cost.params == sum(parameter.numel() for parameter in made.parameters())
    assert len(made.encoder_layers) == layers and not rival.inherited
    x = next(iter(given.images.test.clean(8))).x
    same, other = rival.make(0), rival.make(1)
    assert torch.equal(made.eval()(x), same.eval()(x)) and not torch.equal(made(x), other.eval()(x))
    assert made(x).shape == (8, 2)


def test_a_pretrained_folder_keeps_its_weights(given: Given, tmp_path: Path) -> None:
    body = bert(tmp_path / "small", layers=1, labels=5, seed=7)
    rival = of_texts(given, f"pretrained={tmp_path / 'small'}")
    made: Any = rival.make(0)
    assert rival.inherited and rival.cost == whole_cost(made.eval(), 1, given.images.resolution)
    own = made.body.bert.state_dict()
    assert all(torch.equal(tensor, own[name]) for name, tensor in body.bert.state_dict().items())
    assert made.num_classes == 2 and all(parameter.requires_grad for parameter in made.parameters())


def test_folders_that_do_not_fit_are_refused(given: Given, tmp_path: Path) -> None:
    bert(tmp_path / "words", layers=1, vocab_size=900)
    bert(tmp_path / "short", layers=1, max_position_embeddings=8)
    for name, said in (("words", "900 tokens"), ("short", "at most 8, the positions")):
        with pytest.raises(SettingError, match=rf"retrain\.rivals.*{said}"):
            of_texts(given, f"pretrained={tmp_path / name}")
    large = replace(given.config, search=SearchConfig(max_macs="1%"))
    with pytest.raises(SettingError, match="within the budget"):
        of_texts(Given(large), "shallow=2x32")
