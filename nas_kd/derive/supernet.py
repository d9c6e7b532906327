"""The supernet of a derived space: the teacher's weights, shared by all its cuts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import nn

from nas_kd.derive.chain import Link
from nas_kd.derive.network import Choice, CutNet
from nas_kd.errors import SettingError
from nas_kd.nn import inputs
from nas_kd.nn.norm import NormValues, Recorder
from nas_kd.nn.output import Output
from nas_kd.nn.unmeasured import refuse_unmeasured
from nas_kd.space.arch import Arch, Candidate
from nas_kd.supernet.calibrate import statistics
from nas_kd.supernet.supernet import Supernet


def of_teacher(net: Supernet) -> TeacherSupernet:
    """Return the supernet of a teacher's space as what it is, which a type checker does not see.

    Raises:
        SettingError: it is that of another space.
    """
    if isinstance(net, TeacherSupernet):
        return net
    expected = "the supernet of a teacher's space"
    hint = "pass nas_kd.Supernet(nas_kd.teacher_space(teacher, data))"
    raise SettingError("net", f"a supernet of {net.space.name}", expected, hint)


class TeacherSupernet(Supernet):
    """All archs of a derived space in the teacher's weights; the arch is an argument, never a state.

    `nas_kd.Supernet` of a derived space is one.

    Args:
        space: of `nas_kd.teacher_space`.
        num_classes: classes of the teacher, or None.
        in_chans: channels of the teacher's images, or None.
        seed: not used: nothing is drawn.
        kernel_transform: not offered: kernels stay as they are.

    Raises:
        SettingError: the teacher has other classes or channels.
    """

    def __init__(
        self,
        space: Any,
        num_classes: int | None = None,
        in_chans: int | None = None,
        seed: int = 0,
        *,
        kernel_transform: bool = False,
    ) -> None:
        nn.Module.__init__(self)
        derived = space.derived
        if kernel_transform:
            raise SettingError("supernet.kernel_transform", True, "false for the teacher as a space", "leave it out")
        self.space = space
        self.kernel_transform = False
        self.num_classes = derived.num_classes
        self.in_chans = derived.in_chans
        self.check_data(in_chans or self.in_chans, num_classes or self.num_classes)
        self.links = derived.links.links
        self.cuts = CutNet(derived.network, derived.units, derived.order, derived.links.streams)

    def choices(self, arch: Arch) -> list[Choice]:
        """Return what an arch keeps of each unit, then of each stream."""
        if arch.space != self.space.hash:
            self.space.validate(arch)  # raises, and says why
        found: dict[int, Choice] = {}
        for link, chosen in zip(self.links, arch.stages, strict=True):
            found.update(self.choices_at(link, chosen))
        return [found[number] for number in sorted(found)]

    def choices_at(self, link: Link, chosen: Candidate) -> list[tuple[int, Choice]]:
        """Return what a link decides: the number of a unit, of a stream (these after units), and the choice of each."""
        found: list[tuple[int, Choice]] = []
        if link.unit is not None:
            found.append((link.unit, tuple(int(v) for v in chosen.layers[0]) if chosen.layers else None))
        if link.opens is not None:
            found.append((len(self.cuts.units) + link.opens, (chosen.width,)))
        return found

    def forward_stages(
        self,
        x: Any,
        arch: Arch,
        norm: NormValues | Recorder | None = None,
        *,
        dropout: float = 0.0,
        drop_path: float = 0.0,
    ) -> Output:
        """Run the subnet of an arch.

        Args:
            x: (B, in_chans, H, W), normalised as the teacher's images, or texts.
            arch: an arch of the space.
            norm: calibrated statistics of this arch; None takes the batch's (training mode only).
            dropout: not used: the teacher's own holds.
            drop_path: likewise.

        Returns:
            Logits (B, classes), without features.
        """
        self.check_images(x)
        if norm is None and not self.training:
            raise RuntimeError("a supernet holds no running statistics: pass norm=nas_kd.calibrate(...)[0]")
        if isinstance(norm, Recorder):
            raise TypeError("a derived network's statistics are measured by nas_kd.calibrate")
        logits = self.cuts(x, self.choices(arch), norm)
        return Output(logits, [], [], logits)

    @torch.no_grad()
    def extract(self, arch: Arch, norm: NormValues | None = None) -> nn.Module:  # type: ignore[override]
        """Copy one arch out: the teacher's own class, cut, with weights of its own.

        Args:
            arch: an arch of the space.
            norm: calibrated statistics of this arch; None leaves fresh ones, with which evaluation is refused until
                `nas_kd.calibrate` or a training step has measured others.
        """
        student = self.cuts.extract(self.choices(arch), norm)
        if norm is None:
            refuse_unmeasured(student)
        return student


@statistics.register
def _(net: TeacherSupernet, batches: Iterable[Any], archs: Sequence[Arch]) -> list[NormValues]:
    images = [inputs.inputs_of(batch) for batch in batches]
    if not sum(map(inputs.count, images)):
        raise SettingError("batches", 0, "at least one image", "pass data.train.clean(256, limit=2048)")
    for batch in images:
        net.check_images(batch)
    return [net.cuts.statistics(images, net.choices(arch)) for arch in archs]
