"""Text teachers: the logits of the library, what does not fit, and what is never opened."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_texts import bert, tokenizer
from torch.utils.flop_counter import FlopCounterMode

import nas_kd
from nas_kd.data import Data
from nas_kd.errors import SettingError
from nas_kd.nn import inputs
from nas_kd.nn.text import TextNet
from nas_kd.nn.text_rivals import BagOfEmbeddings
from nas_kd.teacher import Teacher
from nas_kd.teacher.text import TextTeacher

pytest.importorskip("transformers")


def test_logits_are_those_of_the_library(text_teacher: Teacher, review_data: Data, bert_folder: Path) -> None:
    from transformers import AutoModelForSequenceClassification

    own = AutoModelForSequenceClassification.from_pretrained(bert_folder).eval()
    batch = next(iter(review_data.test.clean(32)))
    with torch.no_grad():
        want = own(**batch.x).logits
    torch.testing.assert_close(text_teacher(batch.x), want, atol=1e-5, rtol=1e-5)


def test_padding_changes_nothing(text_teacher: Teacher, review_data: Data) -> None:
    batch = review_data.train.shown(torch.arange(8), torch.zeros(8, dtype=torch.int64))
    alone = torch.cat(
        [text_teacher(review_data.train._batch(review_data.train._fetch(i), i).x) for i in torch.arange(8).split(1)]
    )
    torch.testing.assert_close(text_teacher(batch.x), alone, atol=1e-5, rtol=1e-5)


def test_macs_are_those_of_linear_layers(text_teacher: Teacher, review_data: Data) -> None:
    length, hidden, mlp = review_data.resolution, 32, 48
    layer = length * (4 * hidden * hidden + 2 * hidden * mlp)
    assert text_teacher.cost is not None
    assert text_teacher.cost.macs == 4 * layer + hidden * hidden + hidden * 2


def test_products_of_attention_are_counted_apart(bert_folder: Path) -> None:
    from transformers import AutoModelForSequenceClassification

    body = AutoModelForSequenceClassification.from_pretrained(bert_folder, attn_implementation="eager")
    net = TextNet.of(body.eval())
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net(inputs.example(net, 1, 20))
    products = sum(count for op, count in counter.get_flop_counts()["Global"].items() if "bmm" in str(op))
    assert net.attention_macs(20) == products // 2 == 4 * 2 * 20 * 20 * 32  # layers, products, L, L, width


def test_a_moved_folder_is_the_same_teacher(bert_folder: Path, tmp_path: Path, text_teacher: Teacher) -> None:
    shutil.copytree(bert_folder, tmp_path / "moved")
    assert nas_kd.load_teacher(str(tmp_path / "moved")).fingerprint == text_teacher.fingerprint


def test_the_way_that_attention_runs_is_part_of_a_teacher(bert_folder: Path, text_teacher: Teacher) -> None:
    from transformers import AutoModelForSequenceClassification

    eager = AutoModelForSequenceClassification.from_pretrained(bert_folder, attn_implementation="eager")
    other = nas_kd.load_teacher(TextNet.of(eager))
    assert isinstance(other, TextTeacher) and other.fingerprint != text_teacher.fingerprint


def test_answers_are_stored_once(text_teacher: Teacher, review_data: Data, tmp_path: Path) -> None:
    cached = text_teacher.cached(review_data, nas_kd.Run(tmp_path / "run"), epochs=1)
    batch = next(iter(review_data.train.batches(16, epoch=5, seed=3)))  # any epoch: a text has one view
    torch.testing.assert_close(cached.logits(batch), text_teacher(batch.x), atol=2e-3, rtol=2e-3)
    loaded = type(cached).load(cached.folder)  # type: ignore[attr-defined]  # without the teacher
    assert torch.equal(loaded.logits(batch), cached.logits(batch))


def test_fine_tuning_learns(bert_folder: Path, review_data: Data) -> None:
    teacher = nas_kd.train_teacher(str(bert_folder), review_data, epochs=10, lr=2e-3, batch_size=16)
    right = [teacher(batch.x).argmax(1) == batch.y for batch in review_data.test.clean(64)]
    assert torch.cat(right).double().mean() > 0.85


def test_a_new_classifier_begins_on_the_features(bert_folder: Path, tmp_path: Path, review_data: Data) -> None:
    bert(tmp_path, labels=5)
    with pytest.raises(SettingError, match=r"2 classes; its classifier has 5 classes.*teacher\.epochs"):
        nas_kd.load_teacher(str(tmp_path), num_classes=2)
    teacher = nas_kd.train_teacher(str(tmp_path), review_data, epochs=1, batch_size=16)
    assert teacher.num_classes == 2


def changed(folder: Path, place: Path, **settings: Any) -> Path:
    shutil.copytree(folder, place)
    about = json.loads((place / "config.json").read_text())
    (place / "config.json").write_text(json.dumps({**about, **settings}))
    return place


@pytest.mark.parametrize(
    ("names", "fits"),
    [
        (["NEG", "pos"], True),
        (["pos", "neg"], False),
        (["LABEL_0", "LABEL_1"], True),
        (["1", "0"], True),  # numbers are no names
        (["bad", "good"], True),  # nothing tells which is which
    ],
)
def test_class_names_are_compared(
    names: list[str], fits: bool, tmp_path: Path, bert_folder: Path, review_data: Data
) -> None:
    from transformers import AutoModelForSequenceClassification

    named = {str(number): name for number, name in enumerate(names)}
    place = changed(bert_folder, tmp_path / "named", id2label=named, label2id={v: int(k) for k, v in named.items()})
    teacher = nas_kd.load_teacher(str(place))
    if fits:
        teacher.bind(review_data)
    else:
        with pytest.raises(SettingError, match=r"the classes neg, pos.*in their order: pos, neg"):
            teacher.bind(review_data)
        assert nas_kd.train_teacher(str(place), review_data, epochs=1, batch_size=16).num_classes == 2
        other = TextNet.of(AutoModelForSequenceClassification.from_pretrained(place))
        assert nas_kd.train_teacher(other, review_data, epochs=1, batch_size=16).num_classes == 2


def test_a_tokenizer_of_another_model_is_refused(tmp_path: Path, review_table: Path, bert_folder: Path) -> None:
    tokenizer(tmp_path, ["zebra xylophone quartz " * 3, "abcdefghijklmnopqrstuvwxyz 0123456789"] * 9, size=40)
    other = nas_kd.load_data(str(review_table), tokenizer=str(tmp_path), rate=0.2, select=0.2)
    assert other.tokens is not None
    big = tmp_path / "big"
    bert(big, vocab_size=other.tokens.vocabulary + 500)
    with pytest.raises(
        SettingError, match=f"{other.tokens.vocabulary + 500:,} tokens; it has {other.tokens.vocabulary}"
    ):
        nas_kd.load_teacher(str(big)).bind(other)
    small = tmp_path / "small"
    bert(small, vocab_size=other.tokens.vocabulary - 5)
    with pytest.raises(SettingError, match=r"data\.tokenizer"):
        nas_kd.load_teacher(str(small)).bind(other)


def test_texts_longer_than_the_positions_are_refused(tmp_path: Path, review_table: Path) -> None:
    bert(tmp_path, max_position_embeddings=16)
    data = nas_kd.load_data(str(review_table), tokenizer=str(tmp_path), length=20, rate=0.2, select=0.2)
    with pytest.raises(SettingError, match=r"data\.length=20: expected at most 16"):
        nas_kd.load_teacher(str(tmp_path)).bind(data)


def test_positions_of_roberta_begin_behind_padding(tmp_path: Path) -> None:
    from transformers import RobertaConfig, RobertaForSequenceClassification

    sizes = {"vocab_size": 90, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4}
    body = RobertaForSequenceClassification(
        RobertaConfig(**sizes, intermediate_size=32, max_position_embeddings=18, pad_token_id=1)
    )
    net = TextNet.of(body.eval())
    assert net.positions == 16
    assert "token_type_ids" in net.takes


def test_decoders_are_refused(tmp_path: Path) -> None:
    from transformers import GPT2Config, GPT2ForSequenceClassification

    config = GPT2Config(vocab_size=90, n_positions=32, n_embd=32, n_layer=2, n_head=4, pad_token_id=0)
    GPT2ForSequenceClassification(config).save_pretrained(tmp_path)
    with pytest.raises(SettingError, match="an encoder; gpt2 is a decoder"):
        nas_kd.load_teacher(str(tmp_path))


def test_other_ways_of_masking_are_refused(tmp_path: Path) -> None:
    from transformers import DebertaV2Config, DebertaV2ForSequenceClassification

    sizes = {"vocab_size": 90, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4}
    config = DebertaV2Config(**sizes, intermediate_size=32, max_position_embeddings=40)
    torch.manual_seed(0)
    body = DebertaV2ForSequenceClassification(config)
    for parameter in body.parameters():
        parameter.data.add_(torch.randn_like(parameter))
    body.save_pretrained(tmp_path)
    with pytest.raises(SettingError, match="deberta-v2 does otherwise"):
        nas_kd.load_teacher(str(tmp_path))


def test_a_folder_without_weights_is_refused(tmp_path: Path, bert_folder: Path) -> None:
    shutil.copytree(bert_folder, tmp_path / "bare")
    (tmp_path / "bare" / "model.safetensors").unlink()
    with pytest.raises(SettingError, match="a folder with weights"):
        nas_kd.load_teacher(str(tmp_path / "bare"))


def test_code_of_a_folder_never_runs(tmp_path: Path, bert_folder: Path) -> None:
    marks = tmp_path / "ran"
    names = {"AutoConfig": "own.OwnConfig", "AutoModelForSequenceClassification": "own.Own"}
    place = changed(bert_folder, tmp_path / "own", model_type="own_kind", auto_map=names)
    (place / "own.py").write_text(f"open({str(marks)!r}, 'w').close()\n")
    with pytest.raises(SettingError, match="without code of its own"):
        nas_kd.load_teacher(str(place))
    assert not marks.exists()


@pytest.mark.parametrize("key", ["attn_implementation", "_attn_implementation"])
def test_attention_from_a_hub_is_refused(key: str, tmp_path: Path, bert_folder: Path) -> None:
    place = changed(bert_folder, tmp_path / "own", **{key: "kernels-community/flash-attn2"})
    with pytest.raises(SettingError, match="attention by sdpa or eager"):
        nas_kd.load_teacher(str(place))
    config = {"model_type": "bert", "attention": "kernels-community/flash-attn2"}
    with pytest.raises(SettingError, match="attention by sdpa or eager"):
        TextNet(config)


def test_pickles_are_never_run(tmp_path: Path, bert_folder: Path) -> None:
    place = changed(bert_folder, tmp_path / "own")
    (place / "model.safetensors").unlink()
    torch.save({"weight": Opened(str(tmp_path / "ran"))}, place / "pytorch_model.bin")
    with pytest.raises(SettingError, match=r"teacher\.model"):
        nas_kd.load_teacher(str(place))
    assert not (tmp_path / "ran").exists()


class Opened:
    """Makes a file where it is unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return open, (self.path, "w")


def test_unknown_kinds_are_refused(tmp_path: Path, bert_folder: Path) -> None:
    place = changed(bert_folder, tmp_path / "odd", model_type="no_such_kind")
    with pytest.raises(SettingError, match=r"teacher\.model"):
        nas_kd.load_teacher(str(place))


def test_weights_are_those_of_the_folder(bert_folder: Path) -> None:
    with pytest.raises(SettingError, match=r"teacher\.checkpoint"):
        nas_kd.load_teacher(str(bert_folder), checkpoint="other.safetensors")


def test_images_and_texts_are_not_mixed_up(text_teacher: Teacher, review_data: Data, bert_folder: Path) -> None:
    with pytest.raises(SettingError, match="texts, for the teacher"):
        nas_kd.load_teacher(str(bert_folder)).bind(nas_kd.load_data("digits"))
    with pytest.raises(SettingError, match="a text classifier"):
        nas_kd.load_teacher("cifar_resnet8").bind(review_data)


def test_networks_of_the_other_kind_are_not_trained(bert_folder: Path, review_data: Data) -> None:
    with pytest.raises(SettingError, match="a network of texts"):
        nas_kd.train_teacher("cifar_resnet8", review_data, epochs=1)
    with pytest.raises(SettingError, match="a network of images"):
        nas_kd.train_teacher(str(bert_folder), nas_kd.load_data("digits", subset=200, rate=0.2, select=0.2), epochs=1)


def test_methods_on_layers_need_layers(text_teacher: Any, review_data: Data) -> None:
    rival = BagOfEmbeddings(text_teacher.network.vocabulary, 8, 2)
    with pytest.raises(SettingError, match="a network whose layers are known"):
        nas_kd.retrain(rival, text_teacher, review_data, method="minilm", epochs=1)
