"""The prefix tree against one path at a time."""

from __future__ import annotations

import pytest
import torch

from nas_kd.blocks import BasicStage, ConvStem, LinearHead, MBStage
from nas_kd.nn import Recorder
from nas_kd.rate.errors import ERRORS, NMSE, NSR, StageError
from nas_kd.rate.tree import prefix_tree, rate_tree, tree_size
from nas_kd.space import ElasticSpace, Stage
from nas_kd.space.paths import Entry, entries
from nas_kd.supernet import Supernet
from nas_kd.teacher import Tap
from nas_kd.train.stages import Blockwise, StageFeatures

STAGES = [
    BasicStage(widths=(4, 8), depths=(1, 3), mids=(2, 4), stride=2),
    MBStage(widths=(8,), depths=(1, 2), kernels=(3, 5), expands=(1, 2), ses=(False, True), stride=1),
]


def model_of(stage: Stage) -> Blockwise:
    torch.manual_seed(0)
    first = BasicStage(widths=(4, 6), depths=(1,), mids=(4,))
    space = ElasticSpace("two", ConvStem(width=8), (first, stage), LinearHead(), resolution=8)
    size = 8 // stage.stride
    taps = [Tap("a", 5, 8, 8, True), Tap("b", 7, size, size, True)]
    return Blockwise(Supernet(space, 3, 1), taps, seed=3)


def features(index: int, stage: Stage, images: int, seed: int) -> StageFeatures:
    generator = torch.Generator().manual_seed(seed)
    size = 8 // stage.stride if index else 8
    inputs = torch.randn(images, 5 if index else 1, 8, 8, generator=generator)
    targets = torch.randn(images, 7 if index else 5, size, size, generator=generator)
    return StageFeatures(inputs, targets)


@torch.no_grad()
def naive(
    model: Blockwise, index: int, entry: Entry, calibration: StageFeatures, rating: StageFeatures, name: str
) -> dict[int, float]:
    """Calibrate and run every candidate from the stage's input to its end."""
    found = {}
    for number, candidate in enumerate(model.space.stages[index].candidates()):
        recorder = Recorder()
        model.stages[index](model.enter(index, calibration.inputs, entry, recorder), candidate, recorder)
        values = recorder.values()
        _, pre = model.stages[index](model.enter(index, rating.inputs, entry, values), candidate, values)
        found[number] = written_out(name, model.leave(index, pre).double(), rating.targets.double())
    return found


def written_out(name: str, student: torch.Tensor, teacher: torch.Tensor) -> float:
    """The published formulas, channel by channel."""
    if name == "nmse":
        return float((student - teacher).square().sum() / teacher.square().sum())
    if name == "relative_l1":
        return float((student - teacher).abs().mean() / teacher.std())
    if name == "cosine":
        means = student.mean((2, 3)), teacher.mean((2, 3))
        return float((1 - torch.nn.functional.cosine_similarity(*means)).mean())
    pairs = [(student[:, c], teacher[:, c]) for c in range(teacher.shape[1]) if teacher[:, c].std() > 1e-5]
    return sum(float((s - t).square().mean() / t.var(unbiased=False)) for s, t in pairs) / len(pairs)


@pytest.mark.parametrize("stage", STAGES, ids=["basic", "mbconv"])
@pytest.mark.parametrize("index", [0, 1])
@pytest.mark.parametrize("error", ERRORS)
def test_tree_equals_path_by_path(error: str, stage: Stage, index: int) -> None:
    model = model_of(stage)
    calibration, rating = features(index, stage, 40, 1), features(index, stage, 300, 2)  # 300: two chunks
    for entry in entries(model.space, index):
        expected = naive(model, index, entry, calibration, rating, error)
        found = rate_tree(model, index, entry, calibration, rating, error=ERRORS[error])
        assert found == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("error", ERRORS)
def test_errors_are_the_published_ones(error: str) -> None:
    teacher = 3 + torch.randn(5, 4, 3, 2, generator=torch.Generator().manual_seed(1)) * torch.tensor(
        [0.1, 1.0, 10.0, 0.0]
    ).view(1, 4, 1, 1)  # the last channel never changes
    student = teacher + torch.randn(5, 4, 3, 2, generator=torch.Generator().manual_seed(2))
    found, asked = ERRORS[error], written_out(error, student.double(), teacher.double())
    assert float(found(student, teacher)) == pytest.approx(asked, rel=1e-6)
    assert float(found(teacher, teacher)) == 0.0
    assert torch.allclose(found.of(teacher.split(2)), found.of([teacher]), rtol=1e-9)  # in any portions
    assert torch.isnan(found(torch.full_like(student, torch.nan), teacher))


def test_what_a_stage_that_says_nothing_scores() -> None:
    teacher = torch.randn(64, 3, 4, 4, generator=torch.Generator().manual_seed(1)) + 2
    mean = teacher.mean((0, 2, 3), keepdim=True).expand_as(teacher)
    assert float(NMSE(torch.zeros_like(teacher), teacher)) == pytest.approx(1.0, rel=1e-6)
    assert float(NSR(mean, teacher)) == pytest.approx(1.0, rel=1e-5)  # the mean alone carries no signal
    assert float(NMSE(mean, teacher)) < 0.3


def one_channel(channel: int) -> StageError:
    """Count the squared errors of one channel alone."""
    return StageError(
        lambda student, teacher: (student - teacher).square(),
        lambda centre, spread, count: torch.eye(len(centre), dtype=centre.dtype)[channel],
    )


def test_channels_are_kept_apart() -> None:
    teacher, student = torch.zeros(2, 3, 2, 2), torch.zeros(2, 3, 2, 2)
    student[:, 1] = 2.0
    assert [float(one_channel(channel)(student, teacher)) for channel in range(3)] == [0.0, 32.0, 0.0]


@pytest.mark.parametrize("stage", STAGES, ids=["basic", "mbconv"])
def test_chosen_candidates_get_the_same_scores(stage: Stage) -> None:
    model = model_of(stage)
    calibration, rating = features(1, stage, 40, 1), features(1, stage, 30, 2)
    everything = rate_tree(model, 1, 6, calibration, rating)
    only = [index for index in everything if index % 3 == 1]
    found = rate_tree(model, 1, 6, calibration, rating, only=only)
    assert found == {index: everything[index] for index in only}


def test_layers_are_counted() -> None:
    """Four layers of six choices: 6 + 36 + 216 + 1,296 layers instead of 4 x 1,296."""
    stage = BasicStage(widths=(8,), depths=(4,), mids=(1, 2, 3, 4, 5, 6))
    candidates = stage.candidates()
    assert tree_size(candidates) == 1554
    assert sum(candidate.depth for candidate in candidates) == 5184


def test_the_walk_runs_each_node_once() -> None:
    stage = STAGES[0]
    model, calls = model_of(stage), []
    for block in model.stages[1].layers:
        block.register_forward_hook(lambda *_: calls.append(1))
    advanced: list[int] = []
    rate_tree(model, 1, 4, features(1, stage, 20, 1), features(1, stage, 20, 2), advance=lambda: advanced.append(1))
    nodes = 2 * (2 + 4 + 8)  # widths x (mids + mids^2 + mids^3)
    assert len(advanced) == nodes == tree_size(stage.candidates())
    assert len(calls) == 2 * nodes  # once for the statistics, once for the score


def test_layers_of_different_groups_never_meet() -> None:
    stage = STAGES[1]
    root = prefix_tree(stage.candidates())[8]
    assert len(root.children) == 8  # four choices without and four with squeeze-excite
    for layer, child in root.children.items():
        assert {deeper[2] for deeper in child.children} == {layer[2]}
    assert tree_size(stage.candidates()) == 2 * (4 + 16)
