"""How alike teacher and student tell images apart, layer by layer, and what a student knows already (TG-SAGE)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from nas_kd.data import Data
from nas_kd.derive.space import TeacherSpace
from nas_kd.derive.supernet import TeacherSupernet
from nas_kd.errors import SettingError
from nas_kd.nn import NormValues, at_resolution
from nas_kd.nn.cutting import first_of
from nas_kd.nn.static import StaticNet
from nas_kd.rate.scores.base import Bench, Score
from nas_kd.rate.scores.similarity import IMAGES, dissimilarities
from nas_kd.rate.scores.whole import supernet_accuracy
from nas_kd.runtime.device import Runtime, place
from nas_kd.space import Arch
from nas_kd.supernet import Supernet, calibrate
from nas_kd.teacher.targets import LiveSource


def teacher_guidance(student: Sequence[Tensor], teacher: Sequence[Tensor]) -> float:
    """Compare each teacher layer with the student layer that is most like it.

    Args:
        student: one (P,) vector a layer, what `dissimilarities` returned.
        teacher: likewise; the layers may be others, and of another number.

    Returns:
        The mean over the teacher's layers of the highest Pearson correlation with any of the student's, -1 to 1. A
        layer that answers all images alike has a correlation of -1.

    Source: TG-SAGE (Bashivan et al. 2019), section 3.
    """
    ours, theirs = (_standardised(torch.stack(list(layers))) for layers in (student, teacher))
    return float((theirs @ ours.T).nan_to_num(-1.0).amax(1).mean())


def _standardised(rows: Tensor) -> Tensor:
    rows = rows - rows.mean(1, keepdim=True)
    return rows / rows.norm(dim=1, keepdim=True)


@torch.no_grad()
def layer_features(net: Supernet, arch: Arch, norm: NormValues, x: Tensor) -> list[Tensor]:
    """Run a subnet and return what each of its layers gives.

    Args:
        net: the supernet.
        arch: the subnet.
        norm: its calibrated statistics.
        x: (B, C, H, W) at the arch's own input size.

    Returns:
        One feature (B, ...) a residual block, before its last activation where that is known; where the space is the
        teacher, of each unit that stays.
    """
    student = net.extract(arch, norm).eval()
    found: list[Tensor] = []
    if isinstance(student, StaticNet):
        x = student.stem(x)
        for stage in student.stages:
            assert isinstance(stage.layers, nn.ModuleList)
            for layer in stage.layers:
                x, pre = layer(x)
                found.append(pre)
        return found
    assert isinstance(net, TeacherSupernet)
    staying = [student.get_submodule(unit.path) for unit in net.cuts.units]
    handles = [
        module.register_forward_hook(lambda _, __, out: found.append(_by_image(first_of(out).detach().clone(), len(x))))
        for module in staying
        if not isinstance(module, nn.Identity)
    ]
    student(x)
    for handle in handles:
        handle.remove()
    return found


def _by_image(feature: Tensor, images: int) -> Tensor:
    """Put the parts of an image together where each is a row of its own, as MobileViT's, image by image."""
    return feature if len(feature) == images else feature.unflatten(0, (images, -1))


class Guidance:
    """Measures the guidance of one teacher for subnets of a supernet.

    Args:
        net: the supernet.
        teacher: what teaches; of a space that is the teacher, its units are compared, else the layers that teach its
            stages.
        data: ``train`` calibrates norms, ``rate`` is compared.
        runtime: device and precision.
        images: rating images, at most; their pairs are what is compared.
        calibration_images: training images that norms are measured on.
    """

    def __init__(
        self,
        net: Supernet,
        teacher: LiveSource,
        data: Data,
        runtime: Runtime,
        *,
        images: int = IMAGES,
        calibration_images: int,
    ) -> None:
        if data.tokens is not None:
            expected = "a score for texts, of which images are no part: kl or accuracy"
            raise SettingError("score", "guidance of layers", expected, "use supernet_kl, in a search kl")
        self.net = place(net, runtime)
        batches = data.rate.clean(images, limit=images)
        self.x = torch.cat([batch.x.to(runtime.device) for batch in batches])
        calibration = data.train.clean(512, limit=calibration_images)
        self.calibration = [batch.x.to(runtime.device) for batch in calibration]
        if isinstance(net.space, TeacherSpace):
            whole = net.space.largest()
            features = layer_features(net, whole, net.space.norm, at_resolution(self.x, whole.resolution))
        else:
            teacher.match(net.space, data.resolution)
            features = teacher.forward_stages(self.x).pre
        self.teacher = [dissimilarities(feature) for feature in features]

    @torch.no_grad()
    def __call__(self, arch: Arch) -> float:
        """Return the guidance of one arch, -1 to 1; higher is better."""
        training = self.net.training
        calibration = [at_resolution(x, arch.resolution) for x in self.calibration]
        norm = calibrate(self.net, calibration, [arch])[0]
        features = layer_features(self.net, arch, norm, at_resolution(self.x, arch.resolution))
        self.net.train(training)
        if not features:  # every unit is left out
            return -1.0
        return teacher_guidance([dissimilarities(feature) for feature in features], self.teacher)


def guidance(bench: Bench, archs: Sequence[Arch]) -> list[float]:
    """Measure how much each calibrated subnet tells images apart as the teacher does."""
    teacher = bench.need_teacher()
    net = bench.need_net()
    measured = Guidance(
        net,
        teacher,
        bench.data,
        bench.runtime,
        images=min(IMAGES, bench.images),
        calibration_images=bench.calibration_images,
    )
    bench.used.teacher += len(measured.x)
    bench.used.student += (len(measured.x) + sum(map(len, measured.calibration))) * len(archs)
    return [measured(arch) for arch in archs]


def premature_and_guidance(bench: Bench, archs: Sequence[Arch]) -> list[float]:
    """Add the accuracy of each subnet with shared weights, its premature one, to its guidance; both count the same.

    Of a measure of which less is better the negative value is added.
    """
    return [p + tg for p, tg in zip(supernet_accuracy(bench, archs), guidance(bench, archs), strict=True)]


NEEDS = frozenset({"teacher", "supernet"})
TG = Score("teacher guidance", guidance, True, needs=NEEDS)
P_TG = Score("premature accuracy and guidance", premature_and_guidance, True, needs=NEEDS)
