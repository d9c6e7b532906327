"""An extracted network refuses evaluation until its norms were measured, and then no trace of that is left."""

from __future__ import annotations

import copy
import inspect
import io
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

import nas_kd
from nas_kd.cost.latency import measure_latency
from nas_kd.teacher import Teacher

OLD_EXPORT = inspect.signature(torch.export.export).parameters["strict"].default  # by Dynamo
REFUSED = "fresh running statistics: call nas_kd.calibrate"


def named() -> nas_kd.Supernet:
    return nas_kd.Supernet(nas_kd.load_space("digits"), num_classes=10, in_chans=1)


def derived() -> nas_kd.Supernet:
    teacher = nas_kd.load_teacher("cifar_resnet8", num_classes=10, in_chans=1).network
    return nas_kd.Supernet(nas_kd.teacher_space(Teacher(teacher, "own", num_classes=10, in_chans=1), resolution=8))


@pytest.fixture(params=[named, derived])
def net(request: pytest.FixtureRequest) -> nas_kd.Supernet:
    torch.manual_seed(0)
    net: nas_kd.Supernet = request.param()
    return net


@pytest.fixture
def x() -> torch.Tensor:
    return torch.randn(6, 1, 8, 8, generator=torch.Generator().manual_seed(1))


def pickled(student: nn.Module) -> nn.Module:
    copied: nn.Module = pickle.loads(pickle.dumps(student))
    return copied


def saved(student: nn.Module) -> nn.Module:
    file = io.BytesIO()
    torch.save(student, file)
    file.seek(0)
    loaded: nn.Module = torch.load(file, weights_only=False)
    return loaded


def hooks(student: nn.Module) -> int:
    return sum(len(module._forward_pre_hooks) for module in student.modules())


@pytest.mark.parametrize("copied", [lambda student: student, copy.deepcopy, pickled, saved])
def test_it_and_its_copies_refuse_and_name_the_cure(
    net: nas_kd.Supernet, x: torch.Tensor, copied: Callable[[nn.Module], nn.Module]
) -> None:
    student = copied(net.extract(net.space.sample(1))).eval()
    for _ in range(2):
        with pytest.raises(RuntimeError, match=REFUSED):
            student(x)


def test_calibration_training_and_loading_end_it(net: nas_kd.Supernet, x: torch.Tensor) -> None:
    arch = net.space.sample(1)
    calibrated, trained, loaded, averaged = (net.extract(arch).eval() for _ in range(4))
    nas_kd.calibrate(calibrated, [x])
    (norm,) = nas_kd.calibrate(net, [x], [arch])
    with torch.no_grad():
        assert torch.equal(calibrated(x), net.extract(arch, norm).eval()(x))
        trained.train()(x)
        for norm_layer in (m for m in trained.modules() if isinstance(m, nn.BatchNorm2d)):
            assert norm_layer.num_batches_tracked == 1
        loaded.load_state_dict(trained.state_dict())
        average = AveragedModel(averaged, use_buffers=True)
        average.update_parameters(trained)
        wanted = trained.eval()(x)
        assert torch.equal(loaded(x), wanted) and torch.equal(average.eval()(x), wanted)
        with pytest.raises(RuntimeError, match=REFUSED):
            averaged(x)  # only its average has taken the statistics
    for student in (calibrated, trained, loaded, net.extract(arch, norm)):
        assert hooks(student) == 0


def test_a_frozen_norm_in_training_is_evaluation(net: nas_kd.Supernet, x: torch.Tensor) -> None:
    student = net.extract(net.space.sample(1)).train()
    next(m for m in student.modules() if isinstance(m, nn.BatchNorm2d)).eval()
    with pytest.raises(RuntimeError, match=REFUSED):
        student(x)


def test_features_are_refused_as_well(x: torch.Tensor) -> None:
    net = named()
    with pytest.raises(RuntimeError, match=REFUSED):
        net.extract(net.space.sample(1)).eval().forward_stages(x)  # not called: a hook of the whole would not see it


def test_the_state_is_that_of_a_measured_network(net: nas_kd.Supernet, x: torch.Tensor) -> None:
    arch = net.space.sample(1)
    (norm,) = nas_kd.calibrate(net, [x], [arch])
    fresh, whole = net.extract(arch), net.extract(arch, norm)
    assert list(fresh.state_dict()) == list(whole.state_dict())
    assert [name for name, _ in fresh.named_modules()] == [name for name, _ in whole.named_modules()]
    assert [type(module) for module in fresh.modules()] == [type(module) for module in whole.modules()]


def test_new_weights_go_with_fresh_statistics(net: nas_kd.Supernet, x: torch.Tensor) -> None:
    """As torch has it: `build` draws weights for which mean 0 and variance 1 are no worse than others."""
    assert net.space.build(net.space.sample(1), 10, 1).eval()(x).shape == (6, 10)


def test_a_network_without_batch_norm_never_refuses() -> None:
    space = nas_kd.load_space("vit")
    net = nas_kd.Supernet(space, num_classes=3)
    assert net.extract(space.smallest()).eval()(torch.randn(1, 3, 32, 32)).shape == (1, 3)


def test_a_saved_one_refuses_where_it_is_loaded(x: torch.Tensor, tmp_path: Path) -> None:
    net = named()
    student = net.extract(net.space.sample(1))
    loaded = nas_kd.load_student(nas_kd.save_student(student, tmp_path / "fresh"))
    with pytest.raises(RuntimeError, match=REFUSED):
        loaded(x)
    nas_kd.calibrate(loaded, [x])
    again = nas_kd.load_student(nas_kd.save_student(loaded, tmp_path / "measured"))
    assert torch.equal(again(x), loaded(x)) and hooks(again) == 0 and "unmeasured" not in again.info
    built = net.space.build(net.space.sample(1), 10, 1)
    assert nas_kd.load_student(nas_kd.save_student(built, tmp_path / "built"))(x).shape == (6, 10)


def test_compiled_it_trains_refuses_and_evaluates(x: torch.Tensor) -> None:
    net = named()
    student = net.extract(net.space.sample(1))
    compiled = torch.compile(student, backend="eager")
    with torch.no_grad():
        with pytest.raises(RuntimeError, match=REFUSED):
            compiled.eval()(x)
        compiled.train()(x)
        found = compiled.eval()(x)
        torch.testing.assert_close(found, copy.deepcopy(student)(x))
        assert hooks(student) == 0
        torch.compile(student, backend="eager", fullgraph=True)(x)


def test_measured_it_is_exported_scripted_and_traced(x: torch.Tensor) -> None:
    net = named()
    student = net.extract(net.space.sample(1))
    nas_kd.calibrate(student, [x])
    student.eval()
    with torch.no_grad():
        wanted = student(x)
        assert torch.equal(torch.export.export(student, (x,)).module()(x), wanted)
        assert torch.equal(torch.jit.trace(student, x)(x), wanted)
        assert torch.equal(torch.fx.symbolic_trace(student)(x), wanted)
    # Dynamo stops where values decide, before our message is reached
    with pytest.raises(RuntimeError, match="data-dependent expression" if OLD_EXPORT else REFUSED):
        torch.export.export(net.extract(net.space.sample(1)).eval(), (x,))


def test_where_values_do_not_matter_it_runs_and_refuses_afterwards(x: torch.Tensor) -> None:
    net = named()
    student = net.extract(net.space.sample(1)).eval()
    assert measure_latency(student, 8, 1, warmup=0, repeats=1).median_ms > 0
    with pytest.raises(RuntimeError, match=REFUSED):
        student(x)


def test_a_training_begins_with_one() -> None:
    data = nas_kd.load_data("digits", subset=200, rate=0.2, select=0.2)
    net = named()
    student = nas_kd.retrain(net.extract(net.space.sample(1)), None, data, method="ce", epochs=1, batch_size=32)
    assert student.info["metrics"]["select_accuracy"] > 0 and hooks(student) == 0
