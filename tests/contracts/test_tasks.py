"""What a task promises: a label loss, what each sample counts, a metric and an agreement; nothing else is asked of it.

A task that is written in one file, here, trains a supernet and students by being passed in.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import nas_kd
from nas_kd.config.measures import measure_named
from nas_kd.data import Data
from nas_kd.distill import Classification, MultiLabel, Regression, Task
from nas_kd.teacher import Teacher

LABELS = torch.tensor([0, 3, 1, 2, 4, 5, 0, 1])


@dataclass(frozen=True)
class NearMiss(Task):
    """Ordered classes: the label loss is focal, and a class beside the right one counts half."""

    focus: float = 2.0

    @property
    def facts(self) -> dict[str, object]:
        return {"focus": self.focus}

    def loss(self, logits: Tensor, y: Tensor) -> Tensor:
        logits = logits if logits.dtype == torch.float64 else logits.float()
        known = y >= 0
        each = F.cross_entropy(logits, y.clamp_min(0), reduction="none")
        return ((1 - (-each).exp()) ** self.focus * each * known).sum() / known.sum().clamp_min(1)

    def scores(self, logits: Tensor, y: Tensor) -> Tensor:
        off = (logits.argmax(1) - y).abs()
        return torch.where(off == 0, 1.0, torch.where(off == 1, 0.5, 0.0)).double()

    def metric(self, logits: Tensor, y: Tensor) -> float:
        return float(self.scores(logits, y).mean())

    def agreement(self, logits: Tensor, teacher_logits: Tensor) -> float:
        return self.metric(logits, teacher_logits.argmax(1))


TASKS: list[Task] = [
    Classification(),
    Classification(0.0),
    Classification(0.0, "balanced_accuracy"),
    Classification(0.0, "macro_f1", (1.0, 2.0, 0.5, 1.0, 1.0, 4.0)),
    MultiLabel(),
    MultiLabel(0.1, "macro_f1", (1.0, 2.0, 0.5, 1.0, 1.0, 4.0)),
    Regression(),
    Regression("mae"),
    NearMiss(),
]
held = pytest.mark.parametrize("task", TASKS, ids=repr)


def labels(task: Task, seed: int = 3) -> Tensor:
    """Return labels (8,), or (8, 6), each column with both values where they are 0 or 1."""
    drawn = torch.randn(len(LABELS), 6, generator=torch.Generator().manual_seed(seed))
    if task.kind == "multilabel":
        return (drawn > drawn.median(0).values).float()
    return drawn if task.kind == "regression" else LABELS


def unknown(y: Tensor) -> Tensor:
    """Return labels of which none is known."""
    return torch.full_like(y, torch.nan if y.is_floating_point() else -1)


def draw(seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(len(LABELS), 6, generator=torch.Generator().manual_seed(seed)).to(dtype)


def sure(task: Task, y: Tensor) -> Tensor:
    """Return outputs that answer the labels."""
    if task.kind == "regression":
        return y
    return 20.0 * y - 10.0 if task.kind == "multilabel" else 10.0 * F.one_hot(y, 6).float()


def wrong(task: Task, y: Tensor) -> Tensor:
    """Return outputs that answer others."""
    return sure(task, (y + 3) % 6) if task.kind == "classes" else -sure(task, y)


@held
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_the_loss_is_a_scalar_in_a_wide_dtype(task: Task, dtype: torch.dtype) -> None:
    logits = draw(dtype=dtype).requires_grad_()
    y = labels(task)
    loss = task.loss(logits, y)
    loss.backward()
    assert loss.shape == () and torch.isfinite(loss) and loss > 0
    assert loss.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert logits.grad is not None and torch.isfinite(logits.grad).all() and logits.grad.abs().sum() > 0
    exact = task.loss(logits.detach().double(), y)
    torch.testing.assert_close(loss.detach().double(), exact, rtol=1e-5, atol=1e-7)


@held
def test_its_gradient_is_that_of_differences(task: Task) -> None:
    logits = draw(dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: task.loss(x, labels(task)), logits)
    assert torch.autograd.gradcheck(lambda x: task.divergence(x, draw(1, torch.float64), 2.0), logits)


@held
def test_the_order_of_the_batch_is_nothing_to_it(task: Task) -> None:
    turned = torch.randperm(len(LABELS), generator=torch.Generator().manual_seed(2))
    logits = draw()
    y = labels(task)
    torch.testing.assert_close(task.loss(logits[turned], y[turned]), task.loss(logits, y))
    apart = task.divergence(logits[turned], draw(1)[turned])
    torch.testing.assert_close(apart, task.divergence(logits, draw(1)))
    torch.testing.assert_close(task.scores(logits[turned], y[turned]), task.scores(logits, y)[turned])


@held
def test_an_image_without_a_label_counts_nothing(task: Task) -> None:
    logits = draw()
    y = labels(task)
    some = y.clone()
    some[5:] = unknown(y)[5:]
    torch.testing.assert_close(task.loss(logits, some), task.loss(logits[:5], y[:5]))
    assert float(task.loss(logits, unknown(y))) == 0.0


@held
def test_who_is_right_is_better(task: Task) -> None:
    y = labels(task)
    assert task.loss(sure(task, y), y) < task.loss(draw(), y) < task.loss(wrong(task, y), y)
    measure = measure_named(task.measure)
    assert task.metric(sure(task, y), y) == (0.0 if measure.lower else 1.0)
    assert measure.sign * task.metric(sure(task, y), y) > measure.sign * task.metric(wrong(task, y), y)
    assert not task.collapsed(sure(task, y), y) and task.collapsed(sure(task, y)[:1].expand(len(y), -1), y)


@held
def test_the_metric_is_the_mean_of_what_each_sample_counts(task: Task) -> None:
    logits = draw()
    y = labels(task)
    scores = task.scores(logits, y)
    assert scores.shape == (len(LABELS),) and scores.dtype == torch.float64
    metric = task.metric(logits, y)
    measure = measure_named(task.measure)
    assert measure.sign * metric == pytest.approx(float(scores.mean()), abs=1e-12) and (metric <= 1 or measure.lower)
    assert task.measures(logits, y)[task.measure] == pytest.approx(metric, abs=1e-12)
    if task.measure == "accuracy":
        assert metric == float(scores.mean()) >= 0


@held
def test_teaching_is_nothing_for_equals_and_a_high_temperature_softens(task: Task) -> None:
    student = draw(dtype=torch.float64)
    teacher = draw(1, torch.float64)
    assert abs(float(task.divergence(teacher, teacher, 3.0))) < 1e-12
    sharp, soft = (float(task.divergence(student, teacher, temperature)) for temperature in (1.0, 8.0))
    assert sharp > soft > 0


@held
def test_everyone_agrees_with_themselves(task: Task) -> None:
    assert task.agreement(draw(), draw()) == 1.0 > task.agreement(draw(), draw(1)) >= 0.0


@held
def test_every_output_is_measured(task: Task) -> None:
    columns = task.by_output(draw(), labels(task))
    assert all(len(values) == 6 for values in columns.values())
    answers = task.answers(draw())
    assert answers is None or torch.equal(answers, draw().argmax(1))


@held
def test_its_facts_are_plain(task: Task) -> None:
    assert json.loads(json.dumps(task.facts)) == task.facts
    assert type(task)(**task.facts) == task  # and they are all there is


@pytest.fixture
def net() -> nas_kd.Supernet:
    return nas_kd.Supernet(nas_kd.load_space("digits"), num_classes=3, in_chans=1, seed=0)


def test_a_new_task_trains_a_supernet_and_a_student(
    net: nas_kd.Supernet, data: Data, teacher: Teacher, tmp_path: Path
) -> None:
    run = nas_kd.Run(tmp_path)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    nas_kd.train_supernet(net, data, run=run, task=NearMiss(), epochs=2, batch_size=16)
    assert any(not torch.equal(value, before[name]) for name, value in net.state_dict().items())
    arch = net.space.sample(seed=0)
    student = nas_kd.retrain(
        arch, teacher, data, space=net.space, run=run, task=NearMiss(), method="kd", epochs=2, batch_size=16
    )
    test = data.test
    with torch.no_grad():
        logits = torch.cat([student(batch.x) for batch in test.clean(16)])
    metrics = student.info["metrics"]
    assert metrics["test_accuracy"] == pytest.approx(NearMiss().metric(logits, test.labels))
    kept = pd.read_csv(tmp_path / f"retrain/{arch.key}/seed_0/test.csv")["score"]
    assert kept.tolist() == NearMiss().scores(logits, test.labels).tolist() and 0.5 in set(kept)


def test_another_task_is_another_run(net: nas_kd.Supernet, data: Data, tmp_path: Path) -> None:
    """What the task is made of is part of the record: another is refused by name."""
    run = nas_kd.Run(tmp_path)
    nas_kd.train_supernet(net, data, run=run, task=NearMiss(), epochs=2, batch_size=16)
    with pytest.raises(nas_kd.errors.SettingError, match="focus"):
        nas_kd.train_supernet(net, data, run=run, task=NearMiss(3.0), epochs=2, batch_size=16)


def test_a_new_task_says_what_a_search_and_a_ranking_measure(
    net: nas_kd.Supernet, data: Data, teacher: Teacher, tmp_path: Path
) -> None:
    settings: dict[str, Any] = {"max_macs": "90%", "trials": 4, "top": 1, "calibration_images": 32}
    short = {"batch_size": 16, "warmup_epochs": 0.1}
    result = nas_kd.search(
        net, None, data, engine="random", epochs=1, run=tmp_path, task=NearMiss(), training=short, **settings
    )
    trial = result.trials.iloc[0]
    (arch,) = [arch for arch in net.space if arch.key == trial["key"]]
    norm = nas_kd.calibrate(net, [batch.x for batch in data.train.clean(512, limit=32)], [arch])[0]
    logits = torch.cat([net.eval()(batch.x, arch, norm).detach() for batch in data.rate.clean(16)])
    assert trial["loss"] == pytest.approx(float(NearMiss().loss(logits, data.rate.labels)), rel=1e-3)
    assert trial["accuracy"] == pytest.approx(NearMiss().metric(logits, data.rate.labels))
    facts = json.loads((tmp_path / "search/stage.json").read_text())["inputs"]
    assert facts["search.focus"] == 2.0
    (trained, *_) = sorted((tmp_path / "search/short").glob("*/stage.json"))
    assert json.loads(trained.read_text())["inputs"]["retrain.focus"] == 2.0
    with pytest.raises(nas_kd.errors.SettingError, match="focus"):
        nas_kd.search(net, None, data, engine="random", epochs=0, run=tmp_path, task=NearMiss(3.0), **settings)
    cheap: dict[str, Any] = {"overall": 8, "bands": [], "seeds": 1, "primary": "macs", "control": "params"}
    found = nas_kd.rank(
        net.space,
        teacher,
        data,
        run=tmp_path / "rank",
        task=NearMiss(),
        scores=["macs", "params"],
        epochs=1,
        resamples=100,
        **cheap,
        **short,
    )
    assert found.truth["test_loss"].between(0.3, 0.8).all()  # focal; the cross-entropy of three classes begins at 1.1
    assert json.loads((tmp_path / "rank/rank/plan.json").read_text())["rank.focus"] == 2.0
