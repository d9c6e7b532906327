"""Closed-form alignment of convolutions."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from toy import CLASSES, IMAGE, Toy, images, student
from toy import teacher as frozen

from nas_kd.data import Data, load_data
from nas_kd.distill import Distiller, pair_of
from nas_kd.distill.aligned import Aligned, read_pairs
from nas_kd.distill.injection import alike, inject, merge, solve
from nas_kd.errors import SettingError


def test_solve_is_the_normal_equations():
    torch.manual_seed(0)
    s, t = torch.randn(5, 3, 4, 4).double(), torch.randn(5, 7, 4, 4).double()
    rows, target = (x.permute(0, 2, 3, 1).reshape(80, -1) for x in (s, t))
    torch.testing.assert_close(solve(s, t), torch.linalg.solve(rows.T @ rows, rows.T @ target).T)
    q = torch.randn(7, 3).double()
    torch.testing.assert_close(solve(s, torch.einsum("oc,bchw->bohw", q, s)), q)
    same = torch.cat([s, s], 1)  # dependent channels: the shares are equal
    torch.testing.assert_close(solve(same, s)[:, :3], torch.eye(3).double() / 2)
    with pytest.raises(ValueError, match=r"\(5, 3, 4, 4\)"):
        solve(s, t[:, :, :2])


def test_the_merged_convolution_is_the_two_in_a_row():
    torch.manual_seed(0)
    conv, q, x = nn.Conv2d(3, 6, 3, 2, 1), torch.randn(6, 6), torch.randn(2, 3, 8, 8)
    expected = F.conv2d(conv(x), q[:, :, None, None])
    merge(conv, q)
    torch.testing.assert_close(conv(x), expected, rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match="does not fit"):
        merge(conv, q[:5])
    with pytest.raises(ValueError, match="does not fit"):
        merge(nn.Conv2d(6, 6, 3, groups=2), q)


def test_a_student_with_mixed_channels_becomes_its_teacher():
    torch.manual_seed(0)
    x = images(64).x
    teacher = student()
    teacher(x)  # running statistics
    model = copy.deepcopy(teacher)
    mixed = {name: torch.linalg.qr(torch.randn(n, n))[0] for name, n in (("conv1", 4), ("conv2", 6))}
    for name, q in mixed.items():
        merge(model.get_submodule(name), q)
    teacher.eval()
    away = float((model.eval()(x) - teacher(x)).detach().abs().max())
    errors = inject(model.train(), teacher, x, {"conv1": "conv1", "conv2": "conv2"})
    assert model.training and all(error < 1e-5 for error in errors.values())
    assert float((model.eval()(x) - teacher(x)).detach().abs().max()) < 1e-4 < away
    assert {n: t.shape for n, t in model.state_dict().items()} == {n: t.shape for n, t in teacher.state_dict().items()}


def test_mistakes_are_named():
    x = images().x
    with pytest.raises(SettingError, match="did you mean 'conv2'"):
        inject(student(), student(), x, {"conv1": "conv3"})
    with pytest.raises(SettingError, match="without groups"):
        inject(student(), student(), x, {"bn1": "bn1"})
    with pytest.raises(SettingError, match=r"\(4, 8, 8\).*\(6, 8, 8\)"):
        inject(student(), student((6, 10)), x, {"conv1": "conv1"})


def data() -> Data:
    x = (images(40).x * 40 + 128).clamp(0, 255).to(torch.uint8)
    return load_data((x, images(40).y), test=(x[:4], images(4).y), duplicates="keep", views=0)


def test_the_method_aligns_layers_of_equal_names_and_shapes_before_the_first_step():
    source = frozen(widths=(6, 10))
    model = Toy((4, 10))  # as a cut block: narrower inside, as wide at its end
    distiller = Distiller("inject")
    pair = pair_of(model, distiller.recipe, source, IMAGE, CLASSES, 40)
    distiller.bind(pair)
    given = data()
    x = next(iter(given.train.clean(40))).x
    assert alike(model, source.network, x, x) == {"conv2": "conv2"}
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    target = source.network.conv2(F.relu(source.network.bn1(source.network.conv1(x))))

    def apart() -> float:
        own = model.eval().conv2(F.relu(model.bn1(model.conv1(x))))
        return ((own - target).norm() / target.norm()).item()

    far = apart()
    assert distiller.recipe.start is not None
    distiller.recipe.start(pair, given)
    assert apart() < min(far, 1.0)  # zeros, one of the maps it may choose, are at 1
    changed = {name for name, weight in model.state_dict().items() if not torch.equal(weight, before[name])}
    assert changed == {"conv2.weight"}


def test_what_cannot_be_aligned_is_refused_before_training():
    given = data()
    pair = pair_of(Toy((4, 6)), Distiller("inject").recipe, frozen(widths=(6, 10)), IMAGE, CLASSES, 40)
    with pytest.raises(SettingError, match=r"inject.*name pairs with inject\.layers"):
        Aligned()(pair, given)
    with pytest.raises(SettingError, match=r"layers.*conv2.*equal channels and maps"):
        Aligned("conv2")(pair, given)
    with pytest.raises(SettingError, match="one live teacher"):
        Aligned()(pair_of(Toy(), Distiller("ce").recipe, None, IMAGE, CLASSES, 40), given)
    assert read_pairs("a = b.c, d") == {"a": "b.c", "d": "d"} and read_pairs("  ") == {}
    for wrong in ("a=", "=b", "a,,b"):
        with pytest.raises(SettingError, match=r"inject\.layers"):
            Distiller("inject", layers=wrong)
