"""Methods on the layers of text encoders: what they compare, which layers, and that they teach."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import nas_kd
from nas_kd import losses
from nas_kd.data import Batch, Data
from nas_kd.distill import METHODS, Distiller
from nas_kd.distill.layers import FirstStates, LastRelations, mapped, regrouped
from nas_kd.distill.pair import Pair, Shapes
from nas_kd.distill.pairing import pair_of
from nas_kd.errors import SettingError
from nas_kd.losses.texts import products
from nas_kd.nn.output import Output
from nas_kd.space.arch import Candidate
from nas_kd.teacher import Teacher

pytest.importorskip("transformers")

NAMES = [name for name, entry in METHODS.items() if entry.texts]
CUT: list[Any] = [(2, 24), None, (4, 48), (1, 8)]


@pytest.fixture(scope="module")
def cut(text_teacher: Teacher, review_data: Data) -> nn.Module:
    space = nas_kd.teacher_space(text_teacher, review_data)
    width = space.stages[0].widths[0]
    arch = space.arch([Candidate(width, () if layer is None else (layer,)) for layer in CUT])
    return nas_kd.Supernet(space).extract(arch, {})


def bound(method: Any, student: nn.Module, teacher: Teacher, data: Data) -> tuple[Distiller, Pair]:
    distiller = Distiller(method)
    image = (data.in_chans, data.resolution, data.resolution)
    pair = pair_of(student, distiller.recipe, teacher, image, 2, len(data.train), 0, data.train.labels)
    return distiller.bind(pair), pair


def batch_of(data: Data) -> Batch:
    return next(iter(data.train.batches(16, epoch=0, seed=0)))


def test_features_are_those_of_the_library(text_teacher: Any, review_data: Data) -> None:
    x = batch_of(review_data).x
    body = text_teacher.network.body
    with torch.no_grad():
        want = body(**x, output_hidden_states=True)
    found = text_teacher.forward_stages(x)
    assert len(found.stages) == 5 and len(found.pre) == 4
    real = x["attention_mask"].bool()
    for own, other in zip(found.stages, want.hidden_states, strict=True):
        torch.testing.assert_close(own[real], other[real], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found.logits, text_teacher(x))
    torch.testing.assert_close(F.linear(found.pooled, body.classifier.weight, body.classifier.bias), found.logits)


def test_attention_is_that_of_the_library(bert_folder: Any, review_data: Data) -> None:
    from transformers import AutoModelForSequenceClassification

    from nas_kd.nn.text import TextNet

    body = AutoModelForSequenceClassification.from_pretrained(bert_folder, attn_implementation="eager").eval()
    x = batch_of(review_data).x
    with torch.no_grad():
        want = body(**x, output_attentions=True).attentions
        found = TextNet.of(body).forward_stages(x).pre
    real = x["attention_mask"].bool()
    for parts, other in zip(found, want, strict=True):
        own = products(parts[:, 0], parts[:, 1]).masked_fill(~real[:, None, None], -torch.inf).softmax(-1)
        torch.testing.assert_close(own.transpose(1, 2)[real], other.transpose(1, 2)[real], atol=1e-5, rtol=1e-5)


def test_layers_that_are_left_out_give_nothing(cut: Any, review_data: Data) -> None:
    found: Output = cut.forward_stages(batch_of(review_data).x)
    assert len(found.stages) == 4 and [part.shape[2] for part in found.pre] == [2, 4, 1]


@pytest.mark.parametrize(
    ("name", "students", "teachers", "places"),
    [
        ("uniform", 3, 12, [4, 8, 12]),  # TinyBERT: g(m) = 4 m
        ("uniform", 6, 12, [2, 4, 6, 8, 10, 12]),
        ("uniform", 4, 4, [1, 2, 3, 4]),
        ("last", 3, 12, [10, 11, 12]),
        ("last", 4, 2, [1, 1, 1, 2]),
    ],
)
def test_maps_are_the_published_ones(name: str, students: int, teachers: int, places: list[int]) -> None:
    assert mapped(name, students, teachers) == places


def real_of(batch: Batch) -> Tensor:
    return batch.x["attention_mask"].bool()


def test_terms_compare_the_mapped_layers(cut: Any, text_teacher: Any, review_data: Data) -> None:
    batch = batch_of(review_data)
    distiller, pair = bound("tinybert", cut, text_teacher, review_data)
    own, other = pair.forward(batch.x), text_teacher.features(batch)
    _, parts = distiller(own, other, batch.y, 0.0, batch)
    real = real_of(batch)
    places = [0, 1, 3, 4]  # embeddings, then m T / S of 3 layers against 4
    want = [losses.hidden_mse(own.stages[m], other.stages[place], real) for m, place in enumerate(places)]
    assert float(parts["tinybert"]) == pytest.approx(float(torch.stack(want).mean()), rel=1e-5)
    scores = [
        losses.attention_mse(
            products(own.pre[m][:, 0], own.pre[m][:, 1]), products(other.pre[p - 1][:, 0], other.pre[p - 1][:, 1]), real
        )
        for m, p in enumerate(places[1:])
    ]
    assert float(parts["tinybert_attention"]) == pytest.approx(float(torch.stack(scores).mean()), rel=1e-5)


def test_the_nearest_layer_teaches(cut: Any, text_teacher: Any, review_data: Data) -> None:
    batch = batch_of(review_data)
    distiller, pair = bound("cofi", cut, text_teacher, review_data)
    own, other = pair.forward(batch.x), text_teacher.features(batch)
    _, parts = distiller(own, other, batch.y, 0.0, batch)
    each = [
        min(float(losses.hidden_mse(state, layer, real_of(batch))) for layer in other.stages[1:])
        for state in own.stages[1:]
    ]
    assert float(parts["cofi"]) == pytest.approx(sum(each) / len(each), rel=1e-5)


def test_patient_states_leave_the_last_layer_out(cut: Any, text_teacher: Any, review_data: Data) -> None:
    batch = batch_of(review_data)
    distiller, pair = bound("pkd", cut, text_teacher, review_data)
    own, other = pair.forward(batch.x), text_teacher.features(batch)
    _, parts = distiller(own, other, batch.y, 0.0, batch)
    want = [losses.normalised_states(own.stages[m][:, 0], other.stages[p][:, 0]) for m, p in ((1, 1), (2, 3))]
    assert float(parts["pkd"]) == pytest.approx(float(torch.stack(want).mean()), rel=1e-5)


@pytest.mark.parametrize(
    ("name", "published"), [("uniform", [2, 4, 6, 8, 10]), ("last", [7, 8, 9, 10, 11])]
)  # section 3.2 of PKD, from 12 layers to 6
def test_patient_layers_are_the_published_ones(name: str, published: list[int]) -> None:
    shapes = [Shapes(2, ((3, 13),) * (layers + 1), (), 13) for layers in (6, 12)]
    module = FirstStates(Pair(*shapes, nn.Identity(), lambda x: Output(x, [], [], x)), name, project=False)
    each = [row.expand(2, 3, 13) for row in torch.eye(13)]  # states of a layer, unlike those of any other
    own = [each[0], *(each[place] for place in published), each[0]]  # the last is like none that teaches
    assert float(module(own, each, None)) == pytest.approx(0.0, abs=1e-6)
    own[5] = each[12]
    assert float(module(own, each, None)) == pytest.approx(2 / 5)


def test_relations_are_of_as_many_heads_as_both_have(cut: Any, text_teacher: Any, review_data: Data) -> None:
    batch = batch_of(review_data)
    own, other = cut.forward_stages(batch.x), text_teacher.features(batch)
    s, t = own.pre[-1], other.pre[-1]  # one head of width 8 and four
    assert s.shape[2] == 1 and t.shape[2] == 4
    whole = torch.cat([t[:, :, head] for head in range(4)], -1)[:, :, None]
    assert torch.equal(regrouped(t, 1), whole) and torch.equal(regrouped(t, 4), t)
    found = LastRelations(None)(own.pre, other.pre, batch)  # type: ignore[arg-type]
    want = sum(
        losses.attention_kl(products(s[:, a], s[:, b]), products(whole[:, a], whole[:, b]), real_of(batch))
        for a, b in ((0, 1), (2, 2))
    )
    assert float(found) == pytest.approx(float(want), rel=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_own_loss_falls(name: str, cut: nn.Module, text_teacher: Any, review_data: Data) -> None:
    from copy import deepcopy

    student = deepcopy(cut).train()
    for module in student.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    distiller, _ = bound(name, student, text_teacher, review_data)
    before = [tensor.clone() for tensor in text_teacher.network.state_dict().values()]
    optimizer = torch.optim.Adam([*student.parameters(), *distiller.trained.parameters()], lr=3e-3)
    batch = batch_of(review_data)
    rows = []
    for _ in range(60):
        optimizer.zero_grad()
        rows.append(float(distiller.step(batch, 0.0)[name]))
        optimizer.step()
    assert min(rows) < 0.6 * rows[0]
    assert all(torch.equal(a, b) for a, b in zip(before, text_teacher.network.state_dict().values(), strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_methods_train_students(name: str, text_teacher: Teacher, review_data: Data, cut: nn.Module) -> None:
    from copy import deepcopy

    student: Any = nas_kd.retrain(
        deepcopy(cut), text_teacher, review_data, method=name, epochs=2, batch_size=16, lr=1e-3, warmup_epochs=0.1
    )
    assert 0 <= student.info["metrics"]["test_accuracy"] <= 1


@pytest.mark.parametrize("name", NAMES)
def test_networks_of_images_are_refused(name: str) -> None:
    data = nas_kd.load_data("digits", subset=200, rate=0.2, select=0.2)
    teacher = nas_kd.load_teacher("cifar_resnet8", num_classes=10, in_chans=1)
    with pytest.raises(SettingError, match="a method for images"):
        nas_kd.retrain(
            nas_kd.load_space("digits").sample(0),
            teacher,
            data,
            space=nas_kd.load_space("digits"),
            method=name,
            epochs=1,
        )


def test_an_unknown_map_is_refused(cut: nn.Module, text_teacher: Teacher, review_data: Data) -> None:
    with pytest.raises(SettingError, match="uniform or last"):
        nas_kd.retrain(cut, text_teacher, review_data, method="pkd", method_settings={"map": "first"}, epochs=1)
