"""Distillers against sums written by hand; what users may get wrong."""

from __future__ import annotations

import inspect
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from nas_kd import losses
from nas_kd.distill import (
    METHODS,
    TERMS,
    Classification,
    Decay,
    Distiller,
    Phase,
    Recipe,
    Term,
    Warmup,
    describe_methods,
)
from nas_kd.errors import SettingError
from nas_kd.nn.output import Output

GENERATOR = torch.Generator().manual_seed(0)


def output(width: int) -> Output:
    stages = [torch.randn(8, width * k, 8 // k, 8 // k, generator=GENERATOR) for k in (1, 2, 4)]
    pooled = torch.randn(8, width * 4, generator=GENERATOR)
    return Output(torch.randn(8, 6, generator=GENERATOR), stages, [s - 0.5 for s in stages], pooled)


S, T = output(3), output(5)
Y = torch.tensor([0, 3, 1, 2, 4, 5, 0, 1])
TASK = Classification(smoothing=0.1)


def test_classification():
    torch.testing.assert_close(TASK.loss(S.logits, Y), F.cross_entropy(S.logits, Y, label_smoothing=0.1))
    assert TASK.loss(S.logits.bfloat16(), Y).dtype == torch.float32
    hit = torch.eye(6)[Y]
    assert TASK.metric(hit, Y) == 1.0 and TASK.agreement(hit, -hit) == 0.0
    assert TASK.metric(torch.cat([hit[:6], -hit[6:]]), Y) == 0.75
    for smoothing in (-0.1, 1.0):
        with pytest.raises(SettingError, match="smoothing"):
            Classification(smoothing)


# methods whose terms are losses of the two outputs alone; the others are held to the same in test_fit.py
RECIPES = {name: Distiller(name).recipe for name in METHODS}
PURE = [name for name, r in RECIPES.items() if not (r.source or r.inputs) and not any(t.module for t in r.terms)]


@pytest.mark.parametrize("name", sorted(set(PURE) - {"fsp"}))
def test_every_method_is_the_weighted_sum_of_its_parts(name):
    distiller = Distiller(name, TASK)
    student = Output(*(x if isinstance(x, list) else x.clone().requires_grad_() for x in S))
    loss, parts = distiller(student, T, Y, 0.7)
    expected = sum(term.weight_at(0.7) * parts[term.name] for term in distiller.recipe.at(0.7).terms)
    torch.testing.assert_close(loss.detach(), expected)
    assert loss.shape == () and loss.requires_grad
    assert not any(part.requires_grad for part in parts.values())
    assert distiller.needs <= {"labels", "logits", "stages", "pooled"} and "labels" in distiller.needs


WRITTEN = {
    "ce": (lambda ce: ce, {"labels"}),
    "kd": (lambda ce: 0.1 * ce + 0.9 * losses.kd(S.logits, T.logits, temperature=4), {"labels", "logits"}),
    "kd_ls": (
        lambda ce: 0.1 * ce + 9 * losses.kd_ls(S.logits, T.logits, temperature=2),
        {"labels", "logits"},
    ),
    "dkd": (
        lambda ce: ce + losses.dkd(S.logits, T.logits, Y, alpha=1, beta=2, temperature=4),
        {"labels", "logits"},
    ),
    "dist": (lambda ce: ce + 2 * losses.dist(S.logits, T.logits, temperature=4), {"labels", "logits"}),
    "at": (
        lambda ce: ce + 1000 * sum(losses.at(a, b) for a, b in zip(S.stages, T.stages, strict=True)),
        {"labels", "stages"},
    ),
    "sp": (lambda ce: ce + 3000 * losses.sp(S.pooled, T.pooled), {"labels", "pooled"}),
    "pkt": (lambda ce: ce + 30000 * losses.pkt(S.pooled, T.pooled), {"labels", "pooled"}),
    "rkd": (lambda ce: ce + losses.rkd(S.pooled, T.pooled, distance=25, angle=50), {"labels", "pooled"}),
}


@pytest.mark.parametrize("name", sorted(WRITTEN))
def test_published_weights(name):
    formula, needs = WRITTEN[name]
    distiller = Distiller(name, TASK)
    torch.testing.assert_close(distiller(S, T, Y, 1.0)[0], formula(TASK.loss(S.logits, Y)))
    assert distiller.needs == needs


def test_labels_alone_need_no_teacher_and_plain_logits_are_enough():
    torch.testing.assert_close(Distiller("ce", TASK)(S.logits, None, Y, 0.0)[0], TASK.loss(S.logits, Y))
    kd = Distiller("kd", TASK)
    assert torch.equal(kd(S.logits, T.logits, Y, 0.0)[0], kd(S, T, Y, 0.0)[0])


def test_settings_of_a_method():
    loss = Distiller("kd", TASK, temperature=2.0, weight=3, ce=0)(S, T, Y, 0.5)
    torch.testing.assert_close(loss[0], 3 * losses.kd(S.logits, T.logits, temperature=2))
    assert set(loss[1]) == {"kd"}
    assert Distiller("kd", TASK, ce=0).needs == {"logits"}


def test_list_of_names_and_terms():
    own = Term("far", lambda s, t: (s - t).abs().mean(), 0.5, frozenset({"pooled"}))
    narrow = T._replace(pooled=T.pooled[:, :12])
    loss, parts = Distiller([("ce", 0.1), ("kd_ls", 9), own], TASK)(S, narrow, Y, 0.0)
    expected = 0.1 * TASK.loss(S.logits, Y) + 9 * losses.kd_ls(S.logits, T.logits)
    torch.testing.assert_close(loss, expected + 0.5 * (S.pooled - narrow.pooled).abs().mean())
    assert list(parts) == ["ce", "kd_ls", "far"]
    for name in (name for name, entry in TERMS.items() if entry.module is None and name != "fsp"):
        assert torch.isfinite(Distiller([(name, 1)], TASK)(S, T, Y, 0.0)[0])


def test_warm_up():
    grow = Warmup(4.0, share=0.25)
    assert [grow(p) for p in (0.0, 0.125, 0.25, 1.0)] == [0.0, 2.0, 4.0, 4.0]
    start, parts = Distiller("dkd", TASK)(S, T, Y, 0.0)
    torch.testing.assert_close(start, TASK.loss(S.logits, Y))
    assert parts["dkd"] > 0  # its value is logged before it counts
    with pytest.raises(SettingError, match="share"):
        Warmup(1.0, share=0.0)


def test_decay():
    falls = Decay(4.0, final=1.0, share=0.5)
    assert [falls(p) for p in (0.0, 0.25, 0.5, 1.0)] == [4.0, 2.5, 1.0, 1.0]
    start, end = (Distiller([Term("kd", losses.kd, Decay(2.0)), ("ce", 1.0)], TASK)(S, T, Y, p) for p in (0.0, 1.0))
    torch.testing.assert_close(start[0], TASK.loss(S.logits, Y) + 2 * losses.kd(S.logits, T.logits))
    torch.testing.assert_close(end[0], TASK.loss(S.logits, Y))
    with pytest.raises(SettingError, match="share"):
        Decay(1.0, share=1.5)


def test_methods_are_described_a_line_each():
    lines = describe_methods()
    assert len(lines) == 1 + len(METHODS) and lines[0].startswith("method")
    (line,) = [line for line in lines if line.startswith("dkd ")]
    assert "Decoupled" in line and "teacher or its cache" in line and "2203.08679" in line


def test_orders_of_a_divergence_may_be_negative_and_weights_may_not():
    assert torch.isfinite(Distiller("alpha_divergence", TASK, alpha=-2.5)(S, T, Y)[0])
    for settings in ({"alpha": "low"}, {"alpha": float("inf")}, {"weight": -1.0}):
        with pytest.raises(SettingError, match=f"alpha_divergence.{next(iter(settings))}"):
            Distiller("alpha_divergence", TASK, **settings)


LOGIT_METHODS = [name for name in METHODS if "standardise" in inspect.signature(METHODS[name].recipe).parameters]


@pytest.mark.parametrize("name", LOGIT_METHODS)
def test_logits_are_standardised_for_any_loss_on_them(name):
    assert len(LOGIT_METHODS) == 7
    distiller = Distiller(name, TASK, standardise=True, ce=0)
    value = distiller(S.logits, T.logits, Y)[0]
    torch.testing.assert_close(distiller(3 * S.logits + 1, T.logits / 5 - 2, Y)[0], value, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(Distiller(name, TASK, ce=0)(S.logits, T.logits, Y)[0], value, rtol=1e-3)


def test_images_without_a_label_count_for_nothing():
    some = torch.where(torch.arange(8) < 5, Y, -1)
    torch.testing.assert_close(TASK.loss(S.logits, some), TASK.loss(S.logits[:5], Y[:5]))
    assert TASK.loss(S.logits, torch.full_like(Y, -1)) == 0
    soft = F.one_hot(Y, 6).float()
    torch.testing.assert_close(TASK.loss(S.logits, soft), TASK.loss(S.logits, Y))


def test_recipe_of_two_training_stages():
    hint = Term("hint", losses.sp, 1.0, frozenset({"pooled"}))
    kd = Term("kd", partial(losses.kd, temperature=2.0))
    distiller = Distiller(Recipe((Phase((hint,), share=1), Phase((kd,), share=3))), TASK)
    assert distiller.needs == {"pooled", "logits"}
    seen = [set(distiller(S, T, Y, progress)[1]) for progress in (0.0, 0.249, 0.25, 1.0)]
    assert seen == [{"hint"}, {"hint"}, {"kd"}, {"kd"}]


def test_repr_is_the_same_in_every_process():
    listed = repr(Distiller([("ce", 0.1), Term("kd", partial(losses.kd, temperature=2.0), Warmup(1.0, 0.5))], TASK))
    assert "0x" not in listed and "kd(temperature=2.0)" in listed and "Warmup(weight=1.0, share=0.5)" in listed
    assert repr(Distiller("kd", temperature=3.0)) != repr(Distiller("kd"))
    for name in METHODS:
        assert "0x" not in repr(Distiller(name, TASK))


@pytest.mark.parametrize(
    ("method", "settings", "message"),
    [
        ("kd_sl", {}, "method='kd_sl'.*did you mean 'kd_ls'"),
        ("nonsense", {}, "one of ab, adaptive_alpha, alpha_divergence, at, "),
        ("kd", {"temprature": 2}, "kd.temprature=2.*did you mean 'temperature'"),
        ("ce", {"weight": 2}, "ce.weight=2.*no settings"),
        ("kd", {"temperature": 0}, "kd.temperature=0"),
        ("kd", {"temperature": "hot"}, "kd.temperature='hot'"),
        ("kd", {"weight": -1}, "kd.weight=-1"),
        ("dist", {"weight": float("nan")}, "dist.weight=nan"),
        ([("kdd", 1.0)], {}, "method='kdd'.*did you mean 'dkd'|did you mean 'kd'"),
        ([("kd", -1.0)], {}, "kd=-1.0"),
        (["kd"], {}, "method='kd'.*add the weight"),
        ([("kd", 1.0), ("kd", 2.0)], {}, "different names"),
        ([("kd", 0.0)], {}, "at least one"),
        ([], {}, "list of terms"),
        (None, {}, "name of a method"),
        (3, {}, "name of a method"),
        ("crd", {"negatives": 0}, r"crd\.negatives=0.*whole number of at least 1"),
        ("review", {"width": 2.5}, "whole number"),
        ("cc", {"classes": -1}, "at least 0"),
        ("kd", {"temperature": float("inf")}, "kd.temperature=inf"),
        ("dkd", {"warmup": 3}, r"dkd\.warmup=3"),
        ("kd", {"ce": 0, "weight": 0}, "at least one term"),
        ([("kd", 1.0)], {"temperature": 2.0}, "set them in the terms"),
    ],
)
def test_mistakes_are_named_before_training(method, settings, message):
    with pytest.raises(SettingError, match=message):
        Distiller(method, TASK, **settings)


@pytest.mark.parametrize("needs", [{"logit"}, set()])
def test_terms_that_cannot_be_served(needs):
    with pytest.raises(SettingError, match="needs"):
        Term("own", losses.kd, needs=frozenset(needs))


def test_missing_features_are_named():
    with pytest.raises(ValueError, match="kd_ls needs the teacher's logits, but got nothing"):
        Distiller("kd_ls", TASK)(S, None, Y, 0.0)
    with pytest.raises(ValueError, match="at needs the student's stages, but got only logits"):
        Distiller("at", TASK)(S.logits, T, Y, 0.0)
    with pytest.raises(ValueError, match="3 stages, the teacher 2"):
        Distiller("at", TASK)(S, T._replace(stages=T.stages[:2]), Y, 0.0)


def bad(s: Tensor, t: Tensor) -> Tensor:
    return (s - t).sum() * float("nan")


def test_a_term_that_is_nan_is_named():
    distiller = Distiller([("ce", 1.0), Term("broken", bad)], TASK)
    with pytest.raises(FloatingPointError, match=r"progress 0\.500: broken = nan$"):
        distiller(S, T, Y, 0.5)
    with pytest.raises(FloatingPointError, match="kd = nan"):
        Distiller("kd", TASK)(S.logits, T.logits * float("inf"), Y, 0.0)
