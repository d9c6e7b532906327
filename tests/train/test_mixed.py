"""Mixed inputs of blockwise training: which steps, what enters, and that stages still learn apart."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nas_kd.blocks import BasicStage, ConvStem, LinearHead
from nas_kd.nn import Output
from nas_kd.space import Candidate, ElasticSpace, load_space
from nas_kd.space.paths import Path, entries, entry_width, fair_paths, fitting
from nas_kd.supernet import Supernet
from nas_kd.teacher import Tap
from nas_kd.train.loop import StepInfo
from nas_kd.train.mixed import MixedInputs, ending
from nas_kd.train.stages import Blockwise

SPACE = ElasticSpace(
    "three",
    ConvStem(width=8),
    tuple(BasicStage(widths=(4, 8), depths=(1, 2), mids=(2, 4), stride=stride) for stride in (1, 2, 2)),
    LinearHead(),
    resolution=8,
)
TAPS = [Tap("a", 5, 8, 8, True), Tap("b", 6, 4, 4, True), Tap("c", 7, 2, 2, True)]


@pytest.fixture
def model() -> Blockwise:
    torch.manual_seed(0)
    return Blockwise(Supernet(SPACE, 3, 1), TAPS)


def teacher_output() -> tuple[torch.Tensor, Output]:
    generator = torch.Generator().manual_seed(0)
    pre = [torch.randn(5, tap.channels, tap.size, tap.size, generator=generator) for tap in TAPS]
    x = torch.randn(5, 1, 8, 8, generator=generator)
    return x, Output(torch.zeros(5, 3), [p.relu() for p in pre], pre, torch.zeros(5, 7))


def drawn(info: StepInfo, index: int) -> list[Path]:
    return fair_paths(SPACE.stages[index], entries(SPACE, index), 2, info.step, 0, index)


def info(step: int) -> StepInfo:
    return StepInfo(0, step, step / 1000)


def test_a_stage_gets_the_students_features_in_the_share_of_steps_that_was_asked_for(model: Blockwise) -> None:
    mixed = MixedInputs(model, 0.3, drawn, seed=0)
    chosen = np.array([[mixed.chosen(info(step), index) for index in range(3)] for step in range(1000)])
    assert not chosen[:, 0].any()
    assert abs(chosen[:, 1:].mean(0) - 0.3).max() < 0.05  # three standard deviations of 1000 draws
    assert abs(np.corrcoef(chosen[:, 1:].T)[0, 1]) < 0.1
    again = MixedInputs(model, 0.3, drawn, seed=0)
    assert [again.chosen(info(step), 1) for step in range(50)] == list(chosen[:50, 1])
    assert not any(MixedInputs(model, 0.0, drawn, seed=0).chosen(info(step), 2) for step in range(50))


def test_what_enters_is_what_the_stages_before_give(model: Blockwise, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = model.features(*teacher_output())
    mixed = MixedInputs(model, 0.5, drawn, seed=0)
    monkeypatch.setattr(mixed, "chosen", lambda info, index: index == 2)
    now = info(3)
    assert mixed.entered(pairs, now, 1, [4, 8]) == {}
    found = mixed.entered(pairs, now, 2, [8, 4, 8])
    assert set(found) == {4, 8} and not any(x.requires_grad for x in found.values())
    path = drawn(now, 1)[0]
    for width, x in found.items():
        entered = model.enter(1, pairs[1].inputs, path.entry)
        wanted = model.stages[1](entered, Candidate(width, path.candidate.layers))[0]
        assert torch.equal(x, wanted) and x.shape[1] == width
    monkeypatch.setattr(mixed, "chosen", lambda info, index: index > 0)  # now both: a chain from the images
    chain = mixed.entered(pairs, now, 2, [4])[4]
    assert not torch.equal(chain, found[4])
    changed = [pairs[0], *(pair._replace(inputs=torch.full_like(pair.inputs, torch.nan)) for pair in pairs[1:])]
    assert torch.equal(mixed.entered(changed, now, 2, [4])[4], chain)  # the teacher's features have no part in it


def test_a_loss_on_the_students_features_reaches_its_own_stage_only(
    model: Blockwise, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = model.features(*teacher_output())
    mixed = MixedInputs(model, 0.5, drawn, seed=0)
    monkeypatch.setattr(mixed, "chosen", lambda info, index: index > 0)
    paths = drawn(info(0), 2)
    model.loss(2, pairs[2], paths, mixed.entered(pairs, info(0), 2, [path.entry for path in paths])).backward()
    reached = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert reached and all(name.startswith(("stages.2.", "outputs.2.")) for name in reached)


def test_a_path_ends_in_the_width_that_is_wanted() -> None:
    kept = load_space("vit_cifar")
    for space in (SPACE, kept):
        before = len(space.stages) - 2
        for step in range(4):
            stage, ways = space.stages[before], entries(space, before)
            path = fitting(space, before, fair_paths(stage, ways, 1, step, 0)[0])
            for width in space.in_widths(before + 1):
                ended = ending(space, before, path, width)
                assert ended.candidate.width == width and ended.candidate.layers == path.candidate.layers
                assert fitting(space, before, ended) == ended and ended.entry in ways
                if stage.keeps_width:
                    assert entry_width(space, ended.entry) == width
    assert kept.stages[-2].keeps_width and len(kept.in_widths(len(kept.stages) - 1)) > 1
