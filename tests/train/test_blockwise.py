"""Training of the stages: fair paths, independent stages, exact scales."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from nas_kd.blocks import BasicStage, ConvStem, LinearHead, MBStage
from nas_kd.nn import Output
from nas_kd.space import ElasticSpace
from nas_kd.space.paths import Path, entries, fair_paths, path_count, uniform_paths
from nas_kd.supernet import Supernet
from nas_kd.teacher import Tap
from nas_kd.train.stages import Blockwise

BASIC = BasicStage(widths=(4, 6, 8), depths=(1, 2, 3), mids=(2, 4, 6, 8), stride=2)
MB = MBStage(widths=(8, 16), depths=(1, 2), kernels=(3, 5), expands=(2, 3), ses=(False, True))
SPACE = ElasticSpace(
    "tiny",
    ConvStem(width=8),
    (BasicStage(widths=(4, 8), depths=(1, 2), mids=(2, 4)), BASIC),
    LinearHead(),
    resolution=8,
)
TAPS = [Tap("a", 5, 16, 8, True), Tap("b", 6, 4, 4, True)]


@pytest.fixture
def net() -> Supernet:
    torch.manual_seed(0)
    return Supernet(SPACE, 3, 1)


def teacher_output(images: int = 6) -> tuple[torch.Tensor, Output]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(images, 1, 8, 8, generator=generator)
    shapes = [(images, 5, 16, 16), (images, 6, 4, 4)]
    pre = [torch.randn(shape, generator=generator) for shape in shapes]
    return x, Output(torch.zeros(images, 3), [p.relu() for p in pre], pre, torch.zeros(images, 6))


def draws(stage: BasicStage | MBStage, count: int, steps: int) -> list[list[Path]]:
    return [fair_paths(stage, (4, 8), count, step, 0, "test") for step in range(steps)]


@pytest.mark.parametrize("seed", [0, 1])
def test_a_step_uses_each_choice_of_the_first_layer_once(seed: int) -> None:
    for step in range(7):
        paths = fair_paths(BASIC, (4, 8), 4, step, seed)
        assert sorted(path.candidate.layers[0] for path in paths) == list(BASIC.groups()[0])
        for path in paths:
            assert BASIC.contains(path.candidate)


@pytest.mark.parametrize("stage", [BASIC, MB], ids=["basic", "mbconv"])
@pytest.mark.parametrize("count", [1, 3, 4])
def test_all_choices_are_used_equally_often(stage: BasicStage | MBStage, count: int) -> None:
    paths = [path for step in draws(stage, count, 101) for path in step]

    def spread(values: Counter[object], kinds: int) -> int:
        assert len(values) == kinds
        return max(values.values()) - min(values.values())

    assert spread(Counter(path.entry for path in paths), 2) <= 1
    assert spread(Counter(path.candidate.width for path in paths), len(stage.widths)) <= 1
    groups = stage.groups()
    for layer in range(stage.depths[-1]):
        for group in groups:
            used = Counter(
                path.candidate.layers[layer]
                for path in paths
                if path.candidate.depth > layer and path.candidate.layers[0] in group
            )
            assert spread(used, len(group)) <= 1
    depths = Counter(path.candidate.depth for path in paths)
    assert spread(depths, len(stage.depths)) <= len(groups)


def test_paths_depend_on_the_step_and_nothing_else() -> None:
    forward = draws(BASIC, 4, 9)
    backward = [fair_paths(BASIC, (4, 8), 4, step, 0, "test") for step in reversed(range(9))]
    assert forward == backward[::-1]
    assert fair_paths(BASIC, (4, 8), 4, 0, 1, "test") != forward[0]
    assert uniform_paths(BASIC, (4, 8), 5, 3, 0) == uniform_paths(BASIC, (4, 8), 5, 3, 0)
    assert all(BASIC.contains(path.candidate) for path in uniform_paths(BASIC, (4, 8), 50, 0, 0))


def test_default_number_of_paths() -> None:
    assert path_count(BASIC, None) == 4 and path_count(SPACE.stages[0], None) == 2
    assert path_count(MBStage(widths=(8,), depths=(1,)), None) == 4  # nine choices, capped
    assert path_count(BASIC, 7) == 7


@pytest.mark.parametrize("index", [0, 1])
def test_the_loss_of_a_stage_reaches_no_other_stage(net: Supernet, index: int) -> None:
    model = Blockwise(net, TAPS)
    x, out = teacher_output()
    stage, ways = SPACE.stages[index], entries(SPACE, index)
    paths = [path for step in range(6) for path in fair_paths(stage, ways, 4, step)]
    model.loss(index, model.features(x, out)[index], paths).backward()
    reached = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    own = (f"stages.{index}.", f"inputs.{index}.", f"outputs.{index}.", *(("stem.",) if index == 0 else ()))
    assert reached == {name for name, _ in model.named_parameters() if name.startswith(own)}
    assert all(parameter.grad is None for parameter in net.parameters())


def test_teacher_maps_are_averaged_to_the_student_size(net: Supernet) -> None:
    model = Blockwise(net, TAPS)
    x, out = teacher_output()
    first, second = model.features(x, out)
    assert first.inputs is x
    assert torch.allclose(first.targets, torch.nn.functional.avg_pool2d(out.pre[0], 2))
    assert torch.allclose(second.inputs, torch.nn.functional.avg_pool2d(out.stages[0], 2))
    assert torch.equal(second.targets, out.pre[1])


def test_smaller_teacher_maps_are_compared_at_their_size_and_resized_up_as_inputs(net: Supernet) -> None:
    taps = [Tap("a", 5, 2, 8, True), Tap("b", 6, 1, 4, True)]
    model = Blockwise(net, taps)
    x = torch.randn(6, 1, 8, 8)
    pre = [torch.randn(6, 5, 2, 2), torch.randn(6, 6, 1, 1)]
    first, second = model.features(x, Output(torch.zeros(6, 3), pre, pre, torch.zeros(6, 6)))
    assert torch.equal(first.targets, pre[0]) and torch.equal(second.targets, pre[1])
    for index, (pair, width) in enumerate(((first, 8), (second, 8))):
        entry = entries(SPACE, index)[-1]
        entered = model.enter(index, pair.inputs, entry)
        assert entered.shape == (6, 8, 8, 8)
        _, out = model.stages[index](entered, SPACE.stages[index].largest())
        left = model.leave(index, out)
        assert left.shape == pair.targets.shape and out.shape[2] == SPACE.stage_sizes(8)[index]
        # the adapter of all pixels and the mean of its outputs give the same
        whole = model.outputs[index][str(width)](out)
        torch.testing.assert_close(left, torch.nn.functional.adaptive_avg_pool2d(whole, left.shape[2:]))
    resized = torch.nn.functional.interpolate(pre[0], (8, 8), mode="bilinear", align_corners=False)
    torch.testing.assert_close(model.enter(1, second.inputs, 8), model.inputs[1]["8"](resized))
    loss = model.loss(1, second, fair_paths(SPACE.stages[1], entries(SPACE, 1), 4, 0))
    loss.backward()
    assert loss.isfinite() and all(p.grad is not None for p in model.outputs[1].parameters())


def test_scales_are_powers_of_two_and_undo_the_teachers(net: Supernet) -> None:
    x, out = teacher_output()
    scaled = Output(out.logits, [64 * f for f in out.stages], [64 * f for f in out.pre], out.pooled)
    found = []
    for output in (out, scaled):
        model = Blockwise(net, TAPS)
        pairs = model.rescale(model.features(x, output))
        again = model.features(x, output)
        for pair, same in zip(pairs, again, strict=True):
            assert torch.equal(pair.inputs, same.inputs) and torch.equal(pair.targets, same.targets)
            assert 0.7 < pair.targets.square().mean().sqrt() < 1.42
        found.append(pairs)
        assert model.input_scale[0] == 1.0
        assert (model.target_scale.log2() % 1 == 0).all() and (model.input_scale.log2() % 1 == 0).all()
    for plain, other in zip(*found, strict=True):
        assert torch.equal(plain.inputs, other.inputs) and torch.equal(plain.targets, other.targets)


def test_widths_share_no_adapter_and_init_is_a_choice(net: Supernet) -> None:
    model = Blockwise(net, TAPS, seed=1)
    assert set(model.inputs[1]) == {"4", "8"} and len(model.inputs[0]) == 0
    assert set(model.outputs[1]) == {"4", "6", "8"}
    assert torch.equal(model.stages[1].layers[0].conv1.weight, net.stages[1].layers[0].conv1.weight)
    scratch = Blockwise(net, TAPS, init="scratch", seed=1)
    assert not torch.equal(scratch.stages[1].layers[0].conv1.weight, net.stages[1].layers[0].conv1.weight)
    same = Blockwise(net, TAPS, init="scratch", seed=1)
    for one, other in zip(scratch.parameters(), same.parameters(), strict=True):
        assert torch.equal(one, other)
