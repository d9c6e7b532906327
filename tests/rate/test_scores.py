"""What each score must give on cases that are known; tests/contracts holds what all of them promise."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy import stats
from tiny_ratings import SPACE

from nas_kd.blocks import LinearHead
from nas_kd.data import Data
from nas_kd.nn import Recorder, resized
from nas_kd.rate.features import gather
from nas_kd.rate.scores import SCORES, Bench, Score, measure_scores
from nas_kd.rate.scores.combine import mean_rank, residual
from nas_kd.rate.scores.donna import nested_predictions
from nas_kd.rate.scores.replace import logits_with
from nas_kd.rate.scores.short import tuned_subnet
from nas_kd.runtime.device import Runtime
from nas_kd.runtime.seeds import seed_for, seeded
from nas_kd.space import Arch, ElasticSpace
from nas_kd.supernet import Supernet
from nas_kd.teacher import Teacher, load_teacher
from nas_kd.train.stages import Blockwise


def test_sizes_are_those_of_the_space(bench: Bench, archs: list[Arch]) -> None:
    def values(name: str) -> list[float]:
        return SCORES[name].measure(bench, archs)

    costs = [bench.space.cost(arch, resolution=8, in_chans=1, num_classes=3) for arch in archs]
    assert values("macs") == [cost.macs for cost in costs] and values("params") == [cost.params for cost in costs]
    assert values("depth") == [sum(len(s.layers) for s in arch.stages) for arch in archs]
    assert SCORES["minus_depth"].signed(values("minus_depth")) == [-v for v in values("depth")]
    for arch, found in zip(archs, values("log_widths"), strict=True):
        module = bench.space.build(arch, 3, 1)
        convs = [m for n, m in module.named_modules() if isinstance(m, torch.nn.Conv2d) and n.startswith("stages")]
        main = [m.out_channels for m in convs if m.kernel_size == (3, 3)]
        assert found == pytest.approx(sum(map(math.log, main)))


def test_the_gradient_norm_is_autograds(bench: Bench, archs: list[Arch]) -> None:
    (found,) = SCORES["gradient_norm"].measure(bench, archs[:1])
    seeded(0, "gradient norm", archs[0].key)
    network = bench.space.build(archs[0], 3, 1).train()
    batch = next(iter(bench.data.train.clean(128, limit=128)))
    loss = torch.nn.functional.cross_entropy(network(batch.x), batch.y)
    grads = torch.autograd.grad(loss, list(network.parameters()))
    assert found == pytest.approx(math.sqrt(sum(float(g.double().square().sum()) for g in grads)), rel=1e-4)


def test_the_gradient_norm_is_that_at_the_archs_own_input_size(data: Data, runtime: Runtime) -> None:
    space = ElasticSpace(
        name="sizes", stem=SPACE.stem, stages=SPACE.stages, head=LinearHead(), resolution=8, resolutions=(8, 16)
    )
    small, large = (replace(space.sample(0), resolution=size) for size in (8, 16))
    found = SCORES["gradient_norm"].measure(Bench(space, data, runtime), [small, large])
    seeded(0, "gradient norm", large.key)
    network = resized(space.build(large, 3, 1), 16).train()
    batch = next(iter(data.train.clean(128, limit=128)))
    torch.nn.functional.cross_entropy(network(batch.x), batch.y).backward()
    wanted = math.sqrt(sum(float(p.grad.double().square().sum()) for p in network.parameters() if p.grad is not None))
    assert found[1] == pytest.approx(wanted, rel=1e-4)


@pytest.mark.parametrize("name", ["relative_l1", "nmse", "nsr", "ridge", "replace_one", "assembled_kl"])
def test_the_planted_arch_has_no_error(name: str, data: Data, runtime: Runtime) -> None:
    """The teacher is a subnet, the adapters are the identity: its own arch scores 0, the others do not."""
    space, arch, teacher, model = planted(data)
    bench = Bench(space, data, runtime, teacher, None, model, images=24, calibration_images=48)
    others = [space.sample(seed) for seed in range(6)]
    own, *rest = SCORES[name].measure(bench, [arch, *(other for other in others if other != arch)])
    # least squares keeps a little ridge, and the assembled stages are joined by it
    assert own == pytest.approx(0.0, abs={"ridge": 0.02, "assembled_kl": 0.02}.get(name, 1e-6))
    assert min(rest) > max(10 * own, 1e-4)


@torch.no_grad()
def test_the_perfect_answer_changes_nothing_and_another_what_a_replaced_block_would(data: Data) -> None:
    named = ["layer1.1", "layer3.0"]
    teacher = load_teacher("cifar_resnet14", num_classes=3, in_chans=1, stages=named).bind(data)
    x = next(data.rate.clean(24)).x
    # the first tap's map is twice the stage's: only averages are compared and replaced
    taps = teacher.match(SimpleNamespace(stage_sizes=lambda resolution: [4, 2]), 8)
    assert [(tap.size, tap.student_size) for tap in taps] == [(8, 4), (2, 2)]
    out = teacher.forward_stages(x)
    for index, tap in enumerate(taps):
        known = out.pre[index]
        perfect = torch.nn.functional.adaptive_avg_pool2d(known, tap.student_size)
        same = logits_with(teacher, index, x, known, perfect)
        assert torch.allclose(same, out.logits, atol=1e-5)
        wrong = perfect + torch.randn(perfect.shape, generator=torch.Generator().manual_seed(0))
        spread = torch.nn.functional.interpolate(wrong - perfect, size=known.shape[2:])
        block = teacher.network.get_submodule(tap.path)
        handle = block.register_forward_hook(lambda m, a, o, new=known + spread: torch.relu(new))
        by_hand = teacher.network(teacher.normalised(x))
        handle.remove()
        assert torch.allclose(logits_with(teacher, index, x, known, wrong), by_hand, atol=1e-5)
        assert not torch.allclose(by_hand, out.logits, atol=1e-2)


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "pixels", "named", "sizes"),
    [
        ("test_vit", 64, ["blocks.0", "blocks.1"], [4, 4]),
        ("swin_tiny_patch4_window7_224", 32, ["layers.0", "layers.1"], [8, 4]),
    ],
)
def test_tokens_and_channels_last_can_be_replaced(name: str, pixels: int, named: list[str], sizes: list[int]) -> None:
    x = torch.rand(4, 3, pixels, pixels, generator=torch.Generator().manual_seed(0))
    teacher = load_teacher(name, num_classes=3, resolution=pixels, stages=named)
    taps = teacher.match(SimpleNamespace(stage_sizes=lambda resolution: sizes), pixels)
    out = teacher.forward_stages(x)
    for index, tap in enumerate(taps):
        known = out.pre[index]
        perfect = torch.nn.functional.adaptive_avg_pool2d(known, tap.compared)
        assert torch.allclose(logits_with(teacher, index, x, known, perfect), out.logits, atol=1e-5)
        noise = torch.randn(perfect.shape, generator=torch.Generator().manual_seed(1))
        other = logits_with(teacher, index, x, known, perfect + noise)
        assert other.shape == out.logits.shape and not torch.allclose(other, out.logits, atol=1e-4)


def test_donna_fits_what_is_linear_and_its_error_is_that_of_leaving_out() -> None:
    from sklearn.linear_model import Ridge

    from nas_kd.rate.scores.donna import fit_ridge

    rng = np.random.default_rng(0)
    x = rng.normal(size=(20, 3)) * [1.0, 5.0, 0.1]
    y = x @ [0.5, -0.2, 3.0] + 70.0 + rng.normal(scale=0.3, size=20)
    fit = fit_ridge(x, y, ridges=[0.05])
    scaled = (x - x.mean(0)) / x.std(0)
    theirs = Ridge(alpha=0.05 * 20).fit(scaled, y)
    assert fit(x) == pytest.approx(theirs.predict(scaled))
    errors = []
    for out in range(20):
        kept = [i for i in range(20) if i != out]
        # the standardisation is that of all: it knows no target
        one = Ridge(alpha=0.05 * 20).fit(scaled[kept], y[kept])
        errors.append(y[out] - one.predict(scaled[[out]])[0])
    assert fit.loo == pytest.approx(math.sqrt(np.mean(np.square(errors))), rel=1e-6)
    exact = fit_ridge(x, x @ [0.5, -0.2, 3.0] + 70.0)
    assert exact.ridge == 1e-4 and exact.loo < 0.01


@pytest.mark.parametrize("name", ["donna", "with_size", "kl_with_size", "size_alone"])
def test_donna_predicts_no_arch_from_its_own_accuracy(name: str, bench: Bench, archs: list[Arch]) -> None:
    before = SCORES[name].measure(bench, archs)
    for index in (0, 5):
        moved = Bench(**{**vars_of(bench), "accuracies": {**bench.accuracies, archs[index].key: 1e6}})
        after = SCORES[name].measure(moved, archs)
        assert after[index] == pytest.approx(before[index])
        assert max(map(abs, after)) > 100 * max(map(abs, before))  # the others do learn from it


def test_an_arch_without_a_feature_or_a_truth_has_no_part_in_a_regression(bench: Bench, archs: list[Arch]) -> None:
    features = np.random.default_rng(1).normal(size=(12, 2))
    spoilt = features.copy()
    one, two, three = np.random.default_rng(seed_for(bench.seed, "donna")).permutation(12)[::5]  # a fold
    spoilt[one, 1] = math.nan
    lost = Bench(**{**vars_of(bench), "accuracies": {**bench.accuracies, archs[5].key: math.nan}})
    found = nested_predictions(spoilt, lost, archs)[0]
    assert math.isnan(found[one]) and np.isfinite(np.delete(found, one)).all()
    whole = nested_predictions(features, lost, archs)[0]
    # it was not among theirs: but for the mean arch, which is another, nothing changes
    assert found[two] - found[three] == pytest.approx(whole[two] - whole[three])
    assert found[5] == pytest.approx(nested_predictions(spoilt, bench, archs)[0][5])


def test_a_tuned_subnet_begins_with_the_supernets_weights(bench: Bench, archs: list[Arch]) -> None:
    (tuned,) = tuned_subnet(bench, archs[:1])
    with torch.no_grad():
        for parameter in bench.need_net().parameters():
            parameter.mul_(0.5)
    (other,) = tuned_subnet(bench, archs[:1])
    assert tuned != other
    before = bench.used.student
    tuned_subnet(bench, archs[:2])
    images, rate = len(bench.data.train), len(bench.data.rate)
    assert bench.used.student - before == 2 * (3 * images + rate + rate)  # watched once, and measured


def test_features_that_tell_nothing_predict_nothing_and_one_that_tells_all_everything() -> None:
    """The mean of the folds that an arch is not in is lower where the arch is better: it is no prediction."""
    taus = []
    for seed in range(120):
        rng = np.random.default_rng(seed)
        archs, accuracy = some_trained(48, rng)
        predicted, _ = nested_predictions(rng.normal(size=(48, 3)), learning_bench(archs, accuracy, seed), archs)
        taus.append(stats.kendalltau(predicted, accuracy).statistic)
    assert np.mean(taus) == pytest.approx(0.0, abs=0.04)  # 0.008 is its standard error
    known = np.stack([accuracy, rng.normal(size=48)], axis=1)
    predicted, error = nested_predictions(known, learning_bench(archs, accuracy, 0), archs)
    assert stats.kendalltau(predicted, accuracy).statistic > 0.95 and error < 0.05


def some_trained(count: int, rng: np.random.Generator) -> tuple[list[Arch], np.ndarray]:
    archs = list(dict.fromkeys(SPACE.sample(seed) for seed in range(4 * count)))[:count]
    return archs, rng.normal(size=count)


def learning_bench(archs: list[Arch], accuracy: np.ndarray, seed: int) -> Bench:
    truth = {arch.key: float(value) for arch, value in zip(archs, accuracy, strict=True)}
    return Bench(SPACE, None, Runtime("cpu"), accuracies=truth, seed=seed)  # type: ignore[arg-type]


def test_what_size_explains_is_gone_and_ranks_are_means(bench: Bench, archs: list[Arch]) -> None:
    def fake(values: list[float], higher: bool = True) -> Score:
        return Score("fake", lambda bench, archs: values, higher)

    logs = np.log(SCORES["macs"].measure(bench, archs))
    assert residual(fake((2 * logs + 1).tolist()), bench, archs) == [0.0] * len(archs)
    noise = np.random.default_rng(0).normal(size=len(archs))
    left = residual(fake((noise + 3 * logs).tolist()), bench, archs)
    for name in ("macs", "params"):
        assert np.corrcoef(left, np.log(SCORES[name].measure(bench, archs)))[0, 1] == pytest.approx(0.0, abs=1e-6)
    assert np.allclose(left, residual(fake(noise.tolist()), bench, archs))  # size had no part in it
    some = archs[:4]
    ranks = mean_rank([fake([1.0, 2.0, 2.0, 4.0]), fake([1.0, 2.0, 3.0, math.nan], higher=False)], bench, some)
    assert ranks[:3] == [(3 + 0) / 2, (1.5 + 1) / 2, (1.5 + 2) / 2] and math.isnan(ranks[3])


def planted(data: Data) -> tuple[ElasticSpace, Arch, Teacher, Blockwise]:
    """Cut a teacher out of a supernet, whose stages get adapters that do nothing."""
    net = Supernet(SPACE, num_classes=3, in_chans=1, seed=5)
    for name, parameter in net.named_parameters():
        if parameter.ndim == 1 and "fc" not in name:
            torch.nn.init.uniform_(parameter, 0.2, 1.0)
    arch = SPACE.arch([SPACE.stages[0].candidates()[5], SPACE.stages[1].candidates()[12]])
    norm: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
    x = next(data.train.clean(256, limit=48)).x
    with torch.no_grad():  # norms measured as a rating does: behind stages that are calibrated already
        for index, (stage, candidate) in enumerate(zip(net.stages, arch.stages, strict=True)):
            recorder = Recorder()
            stage(net.stem(x, (), recorder) if index == 0 else x, candidate, recorder)
            norm |= recorder.values()
            x, _ = stage(net.stem(x, (), norm) if index == 0 else x, candidate, norm)
    teacher = load_teacher(net.extract(arch, norm).eval(), num_classes=3, in_chans=1).bind(data)
    model = Blockwise(net, teacher.match(SPACE, 8))
    model.rescale(gather(model, teacher, data.train.clean(256, limit=48), Runtime("cpu")))
    for index, candidate in enumerate(arch.stages):
        if index:
            before = model.inputs[index][str(arch.stages[index - 1].width)]
            set_identity(before, float(model.input_scale[index]))
        set_identity(model.outputs[index][str(candidate.width)], 1 / float(model.target_scale[index]))
    return SPACE, arch, teacher, model


def set_identity(adapter: torch.nn.Module, scale: float) -> None:
    assert isinstance(adapter, torch.nn.Conv2d) and adapter.bias is not None
    torch.nn.init.dirac_(adapter.weight)
    with torch.no_grad():
        adapter.weight.mul_(scale)
        adapter.bias.zero_()


def vars_of(bench: Bench) -> dict[str, object]:
    names = ("space", "data", "runtime", "teacher", "net", "model", "images", "calibration_images", "training_images")
    return {name: getattr(bench, name) for name in names}


def test_a_score_that_is_not_a_number_is_nan_in_the_table(bench: Bench, archs: list[Arch]) -> None:
    bad = Score("bad", lambda bench, archs: [math.inf, math.nan, *range(len(archs) - 2)], True)
    table = measure_scores([bad], archs, bench)
    assert table["value"].isna().tolist() == [True, True, *[False] * (len(archs) - 2)]
