"""The measures of tasks against scikit-learn, and what each sample counts in them against leaving it out."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import (
    average_precision_score,
    balanced_accuracy_score,
    f1_score,
    mean_absolute_error,
    r2_score,
    recall_score,
)
from torch import Tensor

from nas_kd.distill import METHODS, TERMS, Classification, Distiller, MultiLabel, Regression, Task
from nas_kd.distill.task import influence
from nas_kd.errors import SettingError

N = 60


def draw(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


LOGITS = draw(0, N, 4)
CLASSES = (draw(1, N) * 2).long().clamp(0, 3)
TIED = LOGITS.mul(2).round()
TRUE = (draw(2, N, 4) > 0.6).float()
NUMBERS = LOGITS + draw(3, N, 4)


def gaps(y: Tensor) -> Tensor:
    return torch.where(draw(4, *y.shape) > 1.0, math.nan, y)


def test_classes_are_measured_as_scikit_learn_does() -> None:
    answers = LOGITS.argmax(1).numpy()
    found = Classification().measures(LOGITS, CLASSES)
    assert found["accuracy"] == pytest.approx((answers == CLASSES.numpy()).mean())
    assert found["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(CLASSES, answers))
    assert found["macro_f1"] == pytest.approx(f1_score(CLASSES, answers, average="macro"))
    columns = Classification().by_output(LOGITS, CLASSES)
    assert columns["recall"] == pytest.approx(recall_score(CLASSES, answers, average=None))
    assert columns["images"] == [float((CLASSES == c).sum()) for c in range(4)]


def test_a_class_that_does_not_occur_is_left_out_of_means() -> None:
    y = torch.where(CLASSES == 3, 0, CLASSES)
    answers = LOGITS.argmax(1).numpy()
    present = f1_score(y, answers, labels=[0, 1, 2], average="macro")
    found = Classification().measures(LOGITS, y)
    assert found["macro_f1"] == pytest.approx(present)
    assert found["balanced_accuracy"] == pytest.approx(recall_score(y, answers, labels=[0, 1, 2], average="macro"))
    assert math.isnan(Classification().by_output(LOGITS, y)["recall"][3])


def test_labels_are_measured_as_scikit_learn_does() -> None:
    for logits in (LOGITS, TIED):
        found = MultiLabel().measures(logits, TRUE)
        assert found["map"] == pytest.approx(average_precision_score(TRUE, logits, average="macro"))
        assert found["macro_f1"] == pytest.approx(f1_score(TRUE, logits > 0, average="macro"))
    agreed = MultiLabel().agreement(LOGITS, NUMBERS)
    assert agreed == pytest.approx(((LOGITS.sigmoid() > 0.5) == (NUMBERS.sigmoid() > 0.5)).float().mean())


def test_numbers_are_measured_as_scikit_learn_does() -> None:
    found = Regression().measures(LOGITS, NUMBERS)
    assert found["r2"] == pytest.approx(r2_score(NUMBERS, LOGITS))
    assert found["mae"] == pytest.approx(mean_absolute_error(NUMBERS, LOGITS), rel=1e-6)


def test_an_unknown_label_is_left_out_of_measures() -> None:
    y = gaps(NUMBERS)
    each = [r2_score(y[k, j], LOGITS[k, j]) for j in range(4) if len(k := torch.isfinite(y[:, j]))]
    assert Regression().metric(LOGITS, y) == pytest.approx(np.mean(each))
    y = gaps(TRUE)
    each = [average_precision_score(y[k, j], LOGITS[k, j]) for j in range(4) if len(k := torch.isfinite(y[:, j]))]
    assert MultiLabel().metric(LOGITS, y) == pytest.approx(np.mean(each))
    known = torch.arange(N) < 40
    y = torch.where(known, CLASSES, -1)
    assert Classification().metric(LOGITS, y) == pytest.approx(Classification().metric(LOGITS[:40], CLASSES[:40]))


@pytest.mark.parametrize(
    ("task", "logits", "y"),
    [
        (Classification(), LOGITS, CLASSES),
        (Classification(measure="macro_f1"), LOGITS, CLASSES),
        (MultiLabel(), LOGITS, TRUE),
        (MultiLabel(), TIED, TRUE),
        (MultiLabel(), TIED, gaps(TRUE)),
        (MultiLabel(measure="macro_f1"), LOGITS, gaps(TRUE)),
        (Regression(), LOGITS, NUMBERS),
        (Regression(), LOGITS, gaps(NUMBERS)),
    ],
)
def test_a_sample_counts_what_leaving_it_out_costs(task: Task, logits: Tensor, y: Tensor) -> None:
    """Against the measure of all others, sample by sample."""
    others = [torch.arange(N) != i for i in range(N)]
    without = torch.tensor([task.metric(logits[keep], y[keep]) for keep in others], dtype=torch.float64)
    torch.testing.assert_close(task.scores(logits, y), influence(task.metric(logits, y), without), atol=1e-9, rtol=0)


def test_the_only_one_of_a_label_can_be_left_out() -> None:
    y = torch.zeros(N, 2)
    y[:, 0] = TRUE[:, 0]
    y[7, 1] = 1.0
    for measure in ("map", "macro_f1"):
        task = MultiLabel(measure=measure)
        without = torch.arange(N) != 7
        task_without = task.metric(LOGITS[without, :2], y[without])
        assert task_without == pytest.approx(task.metric(LOGITS[without, :1], y[without, :1]))
        assert torch.isfinite(task.scores(LOGITS[:, :2], y)).all()


def test_errors_of_differences_are_those_of_resampling() -> None:
    """The standard error of mean differences is near that of 200 bootstrap samples of the images."""
    task = MultiLabel()
    better = LOGITS + 1.5 * TRUE
    apart = task.scores(better, TRUE) - task.scores(LOGITS, TRUE)
    rng = np.random.default_rng(0)
    drawn = [torch.from_numpy(rng.integers(N, size=N)) for _ in range(200)]
    gap = [task.metric(better[i], TRUE[i]) - task.metric(LOGITS[i], TRUE[i]) for i in drawn]
    # the error of a standard deviation of 200 draws is 5 %; the jackknife's own bias at 60 samples is below 20 %
    assert float(apart.std() / N**0.5) == pytest.approx(np.std(gap), rel=0.3)


def test_balanced_scores_are_shares_of_their_class() -> None:
    task = Classification(measure="balanced_accuracy")
    scores = task.scores(LOGITS, CLASSES)
    for c in range(4):
        mine = CLASSES == c
        recall = float((LOGITS[mine].argmax(1) == c).double().mean())
        assert float(scores[mine].sum() / N) == pytest.approx(recall / 4)


@pytest.mark.parametrize(("rare", "collapsed"), [(0.0, True), (1.0, False)])
def test_one_answer_for_all_is_a_collapse_whatever_the_accuracy(rare: float, collapsed: bool) -> None:
    y = (torch.arange(100) % 50 == 0).long()
    logits = torch.zeros(100, 2)
    logits[:, 0] = 1.0
    logits[:, 1] = 2 * rare * y
    assert Classification().metric(logits, y) >= 0.98
    assert Classification().collapsed(logits, y) is collapsed


def test_answers_at_chance_are_a_collapse() -> None:
    y = torch.arange(400) % 4
    assert Classification().collapsed(draw(5, 400, 4), y)
    assert not Classification().collapsed(draw(5, 400, 4) + torch.nn.functional.one_hot(y, 4), y)
    assert MultiLabel().collapsed(torch.ones(N, 4), TRUE) and not MultiLabel().collapsed(LOGITS + TRUE, TRUE)
    assert Regression().collapsed(NUMBERS.mean(0).expand(N, -1), NUMBERS)
    assert not Regression().collapsed(LOGITS, NUMBERS)


def test_weights_of_classes_are_those_of_torch() -> None:
    weights = (0.5, 1.0, 2.0, 4.0)
    loss = Classification(0.1, weights=weights).loss(LOGITS, CLASSES)
    expected = torch.nn.functional.cross_entropy(LOGITS, CLASSES, torch.tensor(weights), label_smoothing=0.1)
    torch.testing.assert_close(loss, expected)
    with pytest.raises(SettingError, match="weights"):
        Classification(weights=(1.0, 0.0))


@pytest.mark.parametrize("task", [MultiLabel(), Regression()], ids=["multilabel", "regression"])
def test_methods_without_sense_for_the_labels_are_refused_by_name(task: Task) -> None:
    fitting = [name for name, entry in METHODS.items() if task.kind in entry.kinds]
    assert {"ce", "kd", "fitnet", "at", "sp", "takd", "born_again"} <= set(fitting) < set(METHODS)
    for name in METHODS:
        if name in fitting:
            assert {term.name for term in Distiller(name, task).recipe.terms}
        else:
            with pytest.raises(SettingError, match=rf"'{name}'.*{task.kind} labels: ce, kd"):
                Distiller(name, task)
    for name, term in TERMS.items():
        if task.kind not in term.kinds:
            with pytest.raises(SettingError, match=f"'{name}'.*losses for {task.kind} labels: ce, kd"):
                Distiller([("ce", 0.1), (name, 0.9)], task)
    with pytest.raises(SettingError, match="js_divergence_ls|js_divergence"):
        Distiller("js_divergence", task, standardise=True)


def test_kd_means_what_the_labels_are() -> None:
    student = LOGITS.double()
    teacher = NUMBERS.double()
    for task, y in ((MultiLabel(), TRUE), (Regression(), NUMBERS)):
        _, parts = Distiller("kd", task, temperature=4.0)(student, teacher, y)
        expected = 16 * task.divergence(student, teacher, 4.0)
        torch.testing.assert_close(parts["kd"], expected)
        torch.testing.assert_close(parts["ce"], task.loss(student, y))


@pytest.mark.parametrize("task", [Classification, MultiLabel, Regression])
def test_an_unknown_measure_is_refused(task: type) -> None:
    with pytest.raises(SettingError, match="metric"):
        task(measure="accurracy")
