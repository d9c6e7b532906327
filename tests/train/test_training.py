"""The training of a supernet: resume to the bit, what it teaches, and what it refuses."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from tiny_spaces import BASIC, MOBILE
from torch import Tensor

import nas_kd
from nas_kd.data import Batch, Data, load_data
from nas_kd.distill import Classification
from nas_kd.errors import SettingError
from nas_kd.nn import at_resolution
from nas_kd.runtime.device import Runtime
from nas_kd.space import Arch, ElasticSpace
from nas_kd.supernet import Supernet
from nas_kd.train import supernet as training
from nas_kd.train.attentive import Attentive, MacsTable
from nas_kd.train.evaluate import evaluate_archs
from nas_kd.train.loop import StepInfo
from nas_kd.train.rules import Sandwich, Score
from nas_kd.train.shrinking import FullNet
from nas_kd.train.single_path import Uniform
from nas_kd.train.supernet import train_supernet

TASK = Classification(smoothing=0.1)


KINDS: dict[str, dict[str, Any]] = {
    "sandwich": {"ema": 0.5, "dropout": 0.1, "order": "smallest_last"},
    "bestup": {"rule": "bestup", "drop_path": 0.1},
    "bestup by predictor": {"rule": "bestup", "chooser": "predictor", "candidates": 20},
    "worstup": {"rule": "worstup", "random_subnets": 1},
    "shrinking": {"rule": "shrinking", "dropout": 0.1},
    "shrinking in place": {"rule": "shrinking", "full_teacher": "inplace", "divergence": "js", "random_subnets": 1},
    "uniform": {"rule": "uniform", "ema": 0.5},
    "fair": {"rule": "fair", "reduction": "mean"},
    "cream": {"rule": "cream", "board": 3, "random_subnets": 2, "reduction": "mean"},
}
# epochs and rate: the sandwich's four losses are added up, and the later phases of shrinking have a twelfth of the rate
PACE = {"uniform": (8, 0.1), "fair": (8, 0.1), "cream": (8, 0.1), "shrinking": (16, 0.2)}
small = pytest.mark.parametrize("space", [BASIC, MOBILE], ids=lambda s: s.name)
# every kind of training on one of the two spaces, in turn; the slow suite has the other half
kinds = pytest.mark.parametrize(
    ("kind", "space"),
    [
        pytest.param(
            kind, space, id=f"{kind}-{space.name}", marks=[pytest.mark.slow] if (number + place) % 2 == 0 else []
        )
        for number, kind in enumerate(KINDS)
        for place, space in enumerate((BASIC, MOBILE))
    ],
)


@pytest.fixture(scope="module")
def data() -> Data:
    return load_data("digits", subset=400, rate=80)


@pytest.fixture(scope="module")
def few() -> Data:
    return load_data("digits", subset=140, rate=20)


@pytest.fixture(scope="module")
def patterns() -> Data:
    """Classes that pooled features tell apart in a few steps: stripes along, across, both, none."""
    generator = torch.Generator().manual_seed(1)
    y = torch.arange(120) % 4
    x = torch.randint(0, 60, (120, 1, 8, 8), dtype=torch.uint8, generator=generator)
    bright = torch.arange(8) % 4 < 2
    along, across = bright[:, None].expand(8, 8), bright.expand(8, 8)
    shown = torch.stack([along, across, along ^ across, torch.zeros(8, 8, dtype=torch.bool)])
    x += 190 * shown[y].unsqueeze(1)
    return load_data((x, y), rate=8, select=8, views=0, pad=0, flip=False)


@pytest.fixture(autouse=True)
def quick_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MacsTable.__init__, "__defaults__", (None, 0, 200, 16))


def digits_net(data: Data, space: ElasticSpace | None = None, **settings: Any) -> Supernet:
    return Supernet(space or nas_kd.load_space("digits"), data.num_classes, data.in_chans, seed=3, **settings)


def short(net: Supernet, data: Data, **changed: Any) -> Supernet:
    settings = {"epochs": 2, "batch_size": 64, "seed": 1, "runtime": Runtime("cpu"), "ema": 0.5, "dropout": 0.1}
    return train_supernet(net, data, **settings | changed)


class Killed(Exception):
    """Stands for kill -9."""


@kinds
def test_killed_and_resumed_ends_with_the_same_bits(
    few: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, space: ElasticSpace
) -> None:
    """A training that was killed in each of its epochs, one a phase of shrinking, ends as one that was not."""
    epochs = 6 if "shrinking" in kind else 2
    settings = {"epochs": epochs, "batch_size": 40, "seed": 1, "runtime": Runtime("cpu"), "lr": 0.05} | KINDS[kind]
    start: dict[str, Any] = {"space": space, "kernel_transform": True}
    whole = train_supernet(digits_net(few, **start), few, run=tmp_path / "whole", **settings)
    real, steps = training.teach, few.train.steps(40)
    for epoch in range(epochs):
        calls = [0]

        def killing(*arguments: Any, calls: list[int] = calls, last: int = epoch and steps, **more: Any) -> Any:
            calls[0] += 1
            if calls[0] == last + 2:  # in the second step of the next epoch
                raise Killed
            return real(*arguments, **more)

        monkeypatch.setattr(training, "teach", killing)
        with pytest.raises(Killed):
            train_supernet(digits_net(few, **start), few, run=tmp_path / "killed", **settings)
    monkeypatch.setattr(training, "teach", real)
    again = train_supernet(digits_net(few, **start), few, run=tmp_path / "killed", **settings)
    for key, value in whole.state_dict().items():
        assert torch.equal(value, again.state_dict()[key]), key
    for file in ("metrics.csv", "weights.safetensors", "stage.json"):
        assert (tmp_path / "whole/supernet" / file).read_bytes() == (tmp_path / "killed/supernet" / file).read_bytes()


def test_a_finished_training_is_read_and_refuses_other_settings(
    few: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = short(digits_net(few), few, run=tmp_path, epochs=1)
    monkeypatch.setattr(training, "fit", None)
    read = short(Supernet(whole.space, few.num_classes, few.in_chans, seed=3), few, run=tmp_path, epochs=1)
    assert all(torch.equal(value, read.state_dict()[key]) for key, value in whole.state_dict().items())
    for changed in ({"lr": 0.2}, {"rule": "fair"}, {"order": "smallest_last"}, {"alpha": 0.5}, {"candidates": 2}):
        (name,) = changed
        with pytest.raises(SettingError, match=rf"supernet\.{name}"):
            short(digits_net(few), few, run=tmp_path, epochs=1, **changed)


def label_loss(net: Supernet, data: Data, archs: list[Arch]) -> float:
    (batch,) = data.train.clean(1024)
    with torch.no_grad():
        losses = [TASK.loss(net.train()(at_resolution(batch.x, a.resolution), a), batch.y) for a in archs]
    return float(torch.stack(losses).mean())


@kinds
def test_the_loss_of_largest_smallest_and_random_subnets_falls(patterns: Data, space: ElasticSpace, kind: str) -> None:
    net = digits_net(patterns, space)
    archs = [space.largest(), space.smallest(), space.sample(1), space.sample(2)]
    before = label_loss(net, patterns, archs)
    epochs, lr = PACE.get(kind.split()[0], (12, 0.03))
    settings = {"epochs": epochs, "batch_size": 10, "seed": 1, "runtime": Runtime("cpu"), "lr": lr} | KINDS[kind]
    train_supernet(net, patterns, **settings | {"ema": 0.0, "dropout": 0.0, "drop_path": 0.0})
    after = label_loss(net, patterns, archs)
    # over five seeds the means are 0.26 to 0.50 and the deviations at most 0.075: nearly five of them to the bound
    assert after < 0.85 * before


@pytest.mark.parametrize(
    ("divergence", "alpha"),
    [("kl", None), ("reverse_kl", None), ("js", None), ("alpha", None), ("alpha", 0.5), ("alpha", 3.0)],
)
def test_every_divergence_trains(patterns: Data, divergence: str, alpha: float | None) -> None:
    net = digits_net(patterns, BASIC)
    archs = [BASIC.smallest(), BASIC.sample(1)]
    before = label_loss(net, patterns, archs)
    short(net, patterns, epochs=4, batch_size=10, divergence=divergence, alpha=alpha, ema=0.0, dropout=0.0)
    after = label_loss(net, patterns, archs)
    assert after < 0.85 * before  # over five seeds 0.28 to 0.41, with deviations of at most 0.055


def test_rules_differ_in_nothing_but_what_they_train(few: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    """A uniform rule that is given the sandwich's subnet_targets trains the sandwich's weights."""
    sandwich = short(digits_net(few, BASIC), few)
    monkeypatch.setattr(
        Uniform, "subnet_targets", lambda rule, *rest: Sandwich(rule.space, rule.seed).subnet_targets(*rest)
    )
    uniform = short(digits_net(few, BASIC), few, rule="uniform")
    assert all(torch.equal(value, uniform.state_dict()[key]) for key, value in sandwich.state_dict().items())


def test_candidates_are_scored_by_labels_without_a_trace(few: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Tensor] = []
    real = Attentive.draw

    def watching(rule: Attentive, info: StepInfo, k: int, score: Score | None) -> Arch:
        seen: list[Arch] = []

        def recording(archs: Sequence[Arch]) -> Tensor:
            assert score is not None
            seen.extend(archs)
            asked.append(score(archs))
            assert len(asked[-1]) == len(archs) and not asked[-1].requires_grad
            return asked[-1]

        chosen = real(rule, info, k, recording)
        assert seen.index(chosen) == int(asked[-1].argmin())
        return chosen

    monkeypatch.setattr(Attentive, "draw", watching)
    short(digits_net(few, MOBILE), few, rule="bestup", epochs=1)
    assert len(asked) == 2 * few.train.steps(64)


def test_shrinking_sorts_and_freezes_where_it_says(few: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[Any] = []
    sort, take = training.sort_channels, FullNet.take

    def sorting(net: Supernet, used: ElasticSpace) -> None:
        x = next(iter(few.train.clean(64))).x
        largest = used.largest()
        before = net(x, MOBILE.largest())
        sort(net, used)
        torch.testing.assert_close(net(x, MOBILE.largest()), before, rtol=1e-3, atol=1e-4)
        done.append(("sort", largest.stages[0].depth, len(used.stages[0].expands)))

    def taking(full: FullNet, *arguments: Any) -> None:
        done.append("freeze")
        take(full, *arguments)

    monkeypatch.setattr(training, "sort_channels", sorting)
    monkeypatch.setattr(FullNet, "take", taking)
    short(digits_net(few, MOBILE), few, rule="shrinking", epochs=6, ema=0.0)
    assert done == ["freeze", ("sort", 3, 1), ("sort", 3, 2)]
    done.clear()
    short(digits_net(few, MOBILE), few, rule="shrinking", full_teacher="inplace", epochs=6, ema=0.0)
    assert done == [("sort", 3, 1), ("sort", 3, 2)]


def test_evaluation_is_at_the_archs_own_size(few: Data) -> None:
    net = digits_net(few, MOBILE)
    archs = [replace(MOBILE.sample(seed), resolution=size) for seed, size in enumerate((6, 10, 6, 8))]
    together = evaluate_archs(net, archs, few, TASK)
    assert together == [evaluate_archs(net, [arch], few, TASK)[0] for arch in archs]
    (norm,) = nas_kd.calibrate(net, [at_resolution(b.x, 10) for b in few.train.clean(512)], archs[1:2])
    (batch,) = few.rate.clean(512)
    logits = net.eval()(at_resolution(batch.x, 10), archs[1], norm)
    assert together[1] == pytest.approx(TASK.metric(logits, batch.y))


def test_a_bad_step_names_its_archs(few: Data, tmp_path: Path) -> None:
    net = digits_net(few, MOBILE)
    with torch.no_grad():
        net.head.fc.weight[0, 0] = float("nan")
    with pytest.raises(FloatingPointError, match=rf"step 1 .*archs {MOBILE.largest().key} 10px"):
        short(net, few, rule="bestup", run=tmp_path)


@small
def test_bf16_trains_as_fp32_does_and_all_stays_channels_last(few: Data, space: ElasticSpace) -> None:
    moved = {}
    for precision in ("32-true", "bf16-mixed"):
        net, runtime = digits_net(few, space), Runtime("cpu", precision)
        start = {name: value.clone() for name, value in net.named_parameters()}
        seen: list[Tensor] = []
        net.stages[0].register_forward_hook(lambda module, args, out, seen=seen: seen.append(out[0].detach()))
        short(net, few, runtime=runtime, ema=0.0, dropout=0.0, lr=0.05, batch_size=20, warmup_epochs=0.0)
        assert {out.dtype for out in seen[:1]} == {torch.bfloat16 if "bf16" in precision else torch.float32}
        assert all(out.is_contiguous(memory_format=torch.channels_last) for out in seen)
        assert all(p.dtype == torch.float32 and p.isfinite().all() for p in net.parameters())
        weights = [p for p in net.parameters() if p.ndim == 4]
        assert all(p.is_contiguous(memory_format=torch.channels_last) for p in weights)
        moved[precision] = torch.cat([(p.detach() - start[name]).flatten() for name, p in net.named_parameters()])
    exact, rough = moved.values()
    assert exact.norm() > 0.01 and not torch.equal(exact, rough)
    assert F.cosine_similarity(exact, rough, dim=0) > 0.96  # over five seeds 0.991 with a deviation of 0.004


@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_one_arch_whose_loss_is_bad_is_named(
    few: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, accumulate: int
) -> None:
    given, calls = training.teach, [0]

    def poisoned(*args: Any, **kwargs: Any) -> list[Tensor]:
        losses = given(*args, **kwargs)
        calls[0] += 1
        if calls[0] == 2 * steps * accumulate - 1:  # the second epoch's last call but one
            losses[3] = losses[3] * float("nan")
        return losses

    steps = few.train.steps(16)
    monkeypatch.setattr(training, "teach", poisoned)
    at = StepInfo(1, steps - 1, 0.0) if accumulate == 2 else StepInfo(1, steps - 2, 0.0)
    arch = Sandwich(MOBILE, 0).archs(at)[3]
    message = f"epoch 2, step {at.step + 1} of {steps} (archs {arch.key} {arch.label}); the checkpoint of epoch 1 is"
    with pytest.raises(FloatingPointError, match=re.escape(message)):
        short(digits_net(few, MOBILE), few, run=tmp_path, batch_size=16, accumulate=accumulate, seed=0)


def test_training_teaches(data: Data, tmp_path: Path) -> None:
    net = short(digits_net(data), data, run=tmp_path, epochs=6, batch_size=16, random_subnets=1, ema=0.0, dropout=0.0)
    frame = pd.read_csv(tmp_path / "supernet" / "metrics.csv")
    assert {"loss", "loss_largest", "loss_others", "accuracy_largest", "accuracy_smallest"} <= set(frame.columns)
    assert frame["loss_largest"].iloc[-1] < 0.8 * frame["loss_largest"].iloc[0]  # 0.68 with a deviation of 0.03
    space = net.space
    largest, middle, smallest = evaluate_archs(net, [space.largest(), space.sample(0), space.smallest()], data, TASK)
    # over five seeds 0.58, 0.48 and 0.49 with deviations of 0.06; chance is 0.1, on 80 images with one of 0.034
    assert min(largest, middle, smallest) > 0.25 and largest > smallest - 0.1


def test_evaluation_is_of_the_calibrated_subnet(data: Data) -> None:
    net = digits_net(data).eval()
    arch = net.space.sample(2)
    (found,) = evaluate_archs(net, [arch], data, TASK, images=10, calibration=64, batch_size=16)
    assert not net.training
    (norm,) = nas_kd.calibrate(net, data.train.clean(16, limit=64), [arch])
    hits = [(net(b.x, arch, norm).argmax(1) == b.y) for b in data.rate.clean(16, limit=10)]
    assert found == pytest.approx(float(torch.cat(hits).float().mean()))


def test_a_teachers_targets_are_used(data: Data) -> None:
    asked = []

    def source(batch: Batch) -> Tensor:
        asked.append(len(batch.y))
        return F.one_hot(batch.y, 10).float() * 4

    net = short(digits_net(data), data, teacher=source, teacher_weight=0.5, epochs=1)
    assert asked == [64] * data.train.steps(64)
    alone = short(digits_net(data), data, teacher=source, teacher_weight=0.0, epochs=1)
    assert len(asked) == data.train.steps(64)  # not asked when it does not count
    assert not torch.equal(net.head.fc.weight, alone.head.fc.weight)


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"epochs": 0}, r"supernet\.epochs"),
        ({"batch_size": 0}, r"supernet\.batch_size"),
        ({"batch_size": 10_000}, r"supernet\.batch_size"),
        ({"random_subnets": -1}, r"supernet\.random_subnets"),
        ({"reduction": "max"}, r"supernet\.reduction"),
        ({"teacher_weight": 0.5}, r"supernet\.teacher_weight"),
        ({"teacher_weight": 1.5}, r"supernet\.teacher_weight"),
        ({"divergence": "jss"}, r"supernet\.divergence"),
        ({"choose": "both"}, r"supernet\.choose"),
        ({"lr": 0.0}, r"supernet\.lr"),
        ({"schedule": "exponential"}, r"supernet\.final_lr"),
        ({"dropout": 1.0}, r"supernet\.dropout"),
        ({"drop_path": 1.0}, r"supernet\.drop_path"),
        ({"ema": -0.1}, r"supernet\.ema"),
        ({"momentum": 1.0}, r"supernet\.momentum"),
        ({"weight_decay": -1e-4}, r"supernet\.weight_decay"),
        ({"clip_grad": -1.0}, r"supernet\.clip_grad"),
        ({"rule": "sandwhich"}, r"supernet\.rule"),
        ({"order": "first"}, r"supernet\.order"),
        ({"candidates": 0}, r"supernet\.candidates"),
        ({"kd_ratio": -1.0}, r"supernet\.kd_ratio"),
        ({"full_teacher": "own"}, r"supernet\.full_teacher"),
        ({"alpha": float("nan")}, r"supernet\.alpha"),
        ({"alpha": 0.5, "divergence": "kl"}, r"supernet\.alpha"),
        ({"rule": "shrinking", "ema": 0.0}, r"supernet\.epochs"),  # two epochs are too few
        ({"rule": "shrinking"}, r"supernet\.ema"),
        ({"rule": "fair", "random_subnets": 0}, r"supernet\.random_subnets"),
        ({"accumulate": 0}, r"supernet\.accumulate"),
        ({"accumulate": 3, "batch_size": 65}, r"supernet\.batch_size"),
    ],
)
def test_impossible_settings_are_refused_before_anything_is_written(
    data: Data, tmp_path: Path, settings: dict[str, Any], field: str
) -> None:
    run = tmp_path / "run"
    with pytest.raises(SettingError, match=f"^{field}="):
        short(digits_net(data), data, run=run, **settings)
    assert not (run / "supernet").exists()


@pytest.mark.parametrize(("shape", "field"), [((10, 3), "in_chans"), ((5, 1), "num_classes"), ((12, 1), "num_classes")])
def test_a_supernet_for_other_data_is_refused(data: Data, tmp_path: Path, shape: tuple[int, int], field: str) -> None:
    with pytest.raises(SettingError, match=rf"^net\.{field}="):
        short(Supernet(nas_kd.load_space("digits"), *shape), data, run=tmp_path)
    assert not (tmp_path / "supernet").exists()
