"""What a teacher is given: its own channels, size and normalisation; and that the caller's images stay as they are."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas_kd.data import Data, load_data
from nas_kd.derive.space import teacher_space
from nas_kd.errors import SettingError
from nas_kd.nn.output import Output
from nas_kd.pipeline.config import Config
from nas_kd.pipeline.given import Given
from nas_kd.rate.units import rate_units
from nas_kd.supernet import Supernet
from nas_kd.teacher import CifarResNet, cifar_resnet8, load_teacher, save_weights
from nas_kd.teacher.answers import logits_of
from nas_kd.train import train_teacher
from nas_kd.train.retrain import retrain
from nas_kd.train.teacher_config import TeacherConfig


def made(channels: int, size: int = 8, count: int = 40) -> Data:
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(0, 256, (count, channels, size, size), generator=generator, dtype=torch.uint8)
    return load_data((x, torch.arange(count) % 2), rate=0.2, select=0.2, views=0)


def state(net: nn.Module, folder: Any, **notes: Any) -> Any:
    save_weights(net, folder / "x.safetensors", **notes)
    return folder / "x.safetensors"


def test_grey_images_repeated_equal_a_summed_convolution(tmp_path: Any) -> None:
    """Where the three channels are normalised alike; else borders differ, which are 0 after the normalisation."""
    torch.manual_seed(0)
    file = state(cifar_resnet8(2), tmp_path, mean=[0.4] * 3, std=[0.3] * 3)
    data = made(1)
    repeated = load_teacher("cifar_resnet8", checkpoint=file).bind(data)
    summed = load_teacher("cifar_resnet8", checkpoint=file, in_chans=1).bind(data)
    assert (repeated.in_chans, summed.in_chans) == (3, 1)
    assert repeated.mean == (0.4, 0.4, 0.4) and summed.mean == pytest.approx((0.4,))
    assert repeated.macs is not None and summed.macs is not None and repeated.macs > summed.macs
    batch = next(iter(data.rate.clean(8)))
    torch.testing.assert_close(repeated(batch.x), summed(batch.x), atol=1e-4, rtol=1e-4)
    by_hand = torch.cat([(batch.x * data.std[0] + data.mean[0] - 0.4) / 0.3] * 3, 1)
    torch.testing.assert_close(repeated(batch.x), repeated.network(by_hand), atol=1e-4, rtol=1e-4)


def test_repeated_channels_keep_their_own_normalisation(tmp_path: Any) -> None:
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    teacher = load_teacher("cifar_resnet8", checkpoint=state(cifar_resnet8(2), tmp_path, mean=mean, std=std))
    data = made(1)
    x = next(iter(data.rate.clean(8))).x
    pixels = (x * data.std[0] + data.mean[0]).expand(-1, 3, -1, -1)
    want = (pixels - torch.tensor(mean).view(1, 3, 1, 1)) / torch.tensor(std).view(1, 3, 1, 1)
    torch.testing.assert_close(teacher.bind(data).normalised(x), want, atol=1e-5, rtol=1e-5)


def test_a_grey_checkpoint_tells_its_channels(tmp_path: Any) -> None:
    teacher = load_teacher("cifar_resnet8", checkpoint=state(cifar_resnet8(2, in_chans=1), tmp_path))
    assert teacher.in_chans == 1
    with pytest.raises(SettingError, match="teacher.in_chans=1"):
        teacher.bind(made(3))


def test_a_teacher_sees_its_own_size(tmp_path: Any) -> None:
    data = made(3, size=8)
    net = cifar_resnet8(2).eval()
    plain = load_teacher(net).bind(data)
    own = load_teacher(net, resolution=16).bind(data)
    assert plain.macs is not None and own.macs is not None and own.macs > 3 * plain.macs
    x = next(iter(data.rate.clean(4))).x
    want = net(F.interpolate(x, (16, 16), mode="bicubic", antialias=True))
    torch.testing.assert_close(own(x), want, atol=1e-4, rtol=1e-4)
    assert own.fingerprint != plain.fingerprint == load_teacher(net, resolution=8).bind(data).fingerprint
    settings = TeacherConfig(model="cifar_resnet8", resolution=16)
    with pytest.raises(SettingError, match=r"teacher\.resolution=16: expected null or 8.*set data\.resolution"):
        _ = Given(Config(teacher=settings)).untrained
    assert Given(Config(space="digits", teacher=settings)).untrained.resolution == 16
    with pytest.raises(SettingError, match=r"teacher\.resolution=16.*trained here"):
        TeacherConfig(resolution=16, epochs=1)
    with pytest.raises(SettingError, match=r"teacher\.grey='repeat'"):
        Config(run="x", teacher=TeacherConfig(checkpoint="x.pt", grey="repeat"))


class InPlace(nn.Module):
    """Normalises the caller's images."""

    num_classes = 2

    def __init__(self, detached: bool = False, channels: int = 3) -> None:
        super().__init__()
        self.detached = detached
        self.net = cifar_resnet8(2, in_chans=channels)

    def forward(self, x: Tensor) -> Tensor:
        (x.data if self.detached else x).sub_(0.5).div_(0.2)
        return self.net(x)


class Plain(InPlace):
    """The same without changing anything."""

    def forward(self, x: Tensor) -> Tensor:
        return self.net((x - 0.5) / 0.2)


@pytest.mark.parametrize("detached", [False, True])
@pytest.mark.parametrize("bound", [False, True])
def test_the_callers_images_stay(detached: bool, bound: bool) -> None:
    net = InPlace(detached).eval()
    teacher = load_teacher(net)
    data = made(3)
    if bound:
        teacher.bind(data)
    x = next(iter(data.rate.clean(8))).x
    before = x.clone()
    want = net.net((before - 0.5) / 0.2)
    torch.testing.assert_close(teacher(x), want, atol=1e-4, rtol=1e-4)
    assert torch.equal(x, before)
    stages = SimpleNamespace(stage_sizes=lambda resolution: [8, 4, 2])
    teacher.match(stages, 8)  # type: ignore[arg-type]
    torch.testing.assert_close(teacher.forward_stages(x).logits, want, atol=1e-4, rtol=1e-4)
    assert torch.equal(x, before)


class Sometimes(InPlace):
    """Changes images that a look with one image of noise does not show."""

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > 2:
            x.clamp_(-0.1, 0.1)
        return self.net(x)


def test_what_a_look_does_not_show_changes_nothing_either() -> None:
    data = made(3)
    teacher = load_teacher(Sometimes()).bind(data)
    x = next(iter(data.rate.clean(8))).x
    before = x.clone()
    teacher(x)
    teacher.match(SimpleNamespace(stage_sizes=lambda resolution: [8, 4, 2]), 8)  # type: ignore[arg-type]
    teacher.forward_stages(x)
    assert torch.equal(x, before)
    own = load_teacher("cifar_resnet8", num_classes=2).bind(data)
    assert own.normalised(x) is x  # ours leaves them alone


def test_cuts_and_ratings_of_a_teacher_that_changes_its_images() -> None:
    """Images are shown to many cuts: the second one must not see what the first has left."""
    data = made(3, size=16, count=60)
    torch.manual_seed(0)
    nets = InPlace(), Plain()
    nets[0](torch.randn(64, 3, 16, 16))  # else its norms were never measured
    nets[1].load_state_dict(nets[0].state_dict())
    scores = []
    for net in nets:
        teacher = load_teacher(net).bind(data)
        space = teacher_space(teacher, data)
        supernet = Supernet(space)
        x = next(iter(data.rate.clean(4))).x
        before = x.clone()
        supernet(x, space.largest(), norm=space.norm)
        assert torch.equal(x, before)
        scores.append(torch.tensor([s for table in rate_units(supernet, teacher, data) for s in table["score"]]))
    torch.testing.assert_close(*scores)


@pytest.mark.parametrize("views", [0, 2])
def test_students_that_change_their_images(views: int) -> None:
    """What is compared with the student later in a step, such as a mean of its own weights, sees the images."""
    data = load_data("digits", subset=100, rate=0.2, select=0.2, views=views)
    torch.manual_seed(0)
    first = InPlace(channels=1)
    first.net.linear = nn.Linear(64, 10)
    second = Plain(channels=1)
    second.net.linear = nn.Linear(64, 10)
    second.load_state_dict(first.state_dict())
    weights = []
    for net in (first, second):
        retrain(net, None, data, method="mean_teacher", epochs=1, batch_size=20)
        assert not net._forward_pre_hooks
        weights.append(net.net.linear.weight)
    assert torch.equal(*weights)


class Own(CifarResNet):
    """A subclass with a forward of its own."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * 3 + 1


def test_a_subclass_is_not_bypassed() -> None:
    torch.manual_seed(0)
    net = Own(8, 2).eval()
    teacher = load_teacher(net).bind(made(3))
    teacher.match(SimpleNamespace(stage_sizes=lambda resolution: [8, 4, 2]), 8)  # type: ignore[arg-type]
    x = torch.randn(4, 3, 8, 8)
    out = teacher.forward_stages(x)
    assert isinstance(out, Output) and len(out.stages) == 3
    torch.testing.assert_close(out.logits, net(x), atol=1e-4, rtol=1e-4)


class Answer(NamedTuple):
    loss: Tensor | None
    logits: Tensor


WRAPS = {
    "pair": lambda z, aux: (z, aux),
    "dictionary": lambda z, aux: {"out": z, "aux": aux},
    "named": lambda z, aux: {"hidden_states": torch.cat([z, aux], 1), "logits": z},
    "object": lambda z, aux: Answer(None, z),
    "namespace": lambda z, aux: SimpleNamespace(logits=z),
}


class Auxiliary(nn.Module):
    num_classes = 2

    def __init__(self, wrap: str, only_training: bool) -> None:
        super().__init__()
        self.net = cifar_resnet8(2)
        self.aux = nn.Linear(3, 2)
        self.wrap = wrap
        self.only_training = only_training

    def forward(self, x: Tensor) -> Any:
        z = self.net(x)
        plain = self.only_training and not self.training
        return z if plain else WRAPS[self.wrap](z, self.aux(x.mean((2, 3))))


@pytest.mark.parametrize("wrap", WRAPS)
@pytest.mark.parametrize("only_training", [False, True])
def test_networks_that_return_more_than_logits(wrap: str, only_training: bool) -> None:
    data = made(3)
    net = Auxiliary(wrap, only_training)
    teacher = load_teacher(net).bind(data)
    x = torch.randn(4, 3, 8, 8)
    want = net.net.eval()(x)
    torch.testing.assert_close(teacher(x), want, atol=1e-4, rtol=1e-4)
    teacher.match(SimpleNamespace(stage_sizes=lambda resolution: [8, 4, 2]), 8)  # type: ignore[arg-type]
    torch.testing.assert_close(teacher.forward_stages(x).logits, want, atol=1e-4, rtol=1e-4)
    before = net.net.linear.weight.detach().clone()
    trained = train_teacher(net, data, epochs=1, batch_size=8)
    assert trained(x).shape == (4, 2) and not torch.equal(net.net.linear.weight, before)


def test_outputs_without_logits() -> None:
    with pytest.raises(SettingError, match="returns logits"):
        logits_of({"features": torch.zeros(2, 3, 4, 4)})
