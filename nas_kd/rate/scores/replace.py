"""The change of the teacher's logits when a candidate replaces one of its stages."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas_kd.errors import SettingError
from nas_kd.rate.scores.base import CHUNK, Bench, Key, Score, keys_of
from nas_kd.rate.scores.stages import BLOCKWISE
from nas_kd.space import Arch
from nas_kd.teacher import Tap, Teacher
from nas_kd.teacher.cifar_resnet import own_class


@torch.no_grad()
def logits_with(teacher: Teacher, index: int, x: Tensor, known: Tensor, answer: Tensor) -> Tensor:
    """Give the teacher's logits with one tapped feature replaced.

    Where the teacher's map is larger than the student's, what is averaged away to compare them is left as the
    teacher has it: only the averages are replaced. So the perfect answer changes nothing.

    Args:
        teacher: a teacher whose taps are chosen.
        index: which tap.
        x: (B, C, H, W) images.
        known: (B, channels of the tap, H, W) the teacher's feature, as ``forward_stages(x).pre`` has it.
        answer: (B, channels of the tap, student's H, W) in its place, in the teacher's scale, before the tapped
            block's last ReLU where that is at hand.

    Returns:
        Logits (B, classes).
    """
    assert teacher.taps is not None
    swap = _Swap(teacher.taps[index], known, answer)
    if own_class(teacher.network):
        return teacher.network.forward_after(swap.after(), swap.tap.path).float()

    site = teacher.site(swap.tap.path)

    def hook(module: nn.Module, args: object, out: object) -> object:
        post = site.feature(out)  # own blocks also give what is before the activation
        if post.shape != known.shape or not swap.gives(post):
            expected = "a module whose feature map is all that it gives, with or without a ReLU at its end"
            raise SettingError("teacher.stages", swap.tap.path, expected, "leave out the scores that replace stages")
        return site.replaced(out, swap.after())

    handle = teacher.network.get_submodule(swap.tap.path).register_forward_hook(hook)
    try:
        return teacher.network(teacher.normalised(x)).float()
    finally:
        handle.remove()


def share_after(teacher: Teacher, index: int) -> float:
    """Return which share of the teacher `logits_with` runs."""
    assert teacher.taps is not None
    if not own_class(teacher.network):
        return 1.0
    names = teacher.network.block_names
    return 1 - (names.index(teacher.taps[index].path) + 1) / len(names)


class _Swap:
    """Replaces a block's output by a student's."""

    def __init__(self, tap: Tap, known: Tensor, output: Tensor) -> None:
        self.tap = tap
        self.known = known
        self.output = output

    def gives(self, post: Tensor) -> bool:
        """Tell whether the block's output is what we take it for."""
        return torch.allclose(F.relu(self.known) if self.tap.pre else self.known, post)

    def after(self) -> Tensor:
        """Return what the rest of the teacher gets."""
        missing = self.output - F.adaptive_avg_pool2d(self.known, (self.output.shape[2], self.output.shape[3]))
        if missing.shape != self.known.shape:  # equal windows: spreading an average evenly keeps it
            missing = F.interpolate(missing, size=self.known.shape[2:])
        return F.relu(self.known + missing) if self.tap.pre else self.known + missing


def replace_one(bench: Bench, archs: Sequence[Arch]) -> list[float]:
    """Add up, over the stages, the KL between the teacher and the teacher with this stage replaced.

    Source: LANA (Molchanov et al. 2022); Puzzle (Bercovich et al. 2024).
    """
    kls = replacement_kl(bench, [key for arch in archs for key in keys_of(bench.space, arch)])
    return [sum(kls[key] for key in keys_of(bench.space, arch)) for arch in archs]


@torch.no_grad()
def replacement_kl(bench: Bench, keys: Iterable[Key]) -> dict[Key, float]:
    """Measure the KL between the teacher and the teacher with one stage replaced by a candidate.

    Args:
        bench: what is measured on.
        keys: stage, entry and candidate of each.

    Returns:
        The mean KL over the rating images by key, in nats.
    """
    calibration, _ = bench.features()
    teacher = bench.need_teacher()
    model = bench.need_model()
    keys = list(dict.fromkeys(keys))
    norms = {key: bench.calibrated(key, calibration)[0] for key in keys}
    sums = dict.fromkeys(keys, 0.0)
    for x in bench.rating_images.split(CHUNK):
        out = teacher.forward_stages(x)  # one for all candidates of all stages; `features` has paid for it
        inputs = model.features(x, out)
        for key in keys:
            index = key[0]
            answer = model.leave(index, bench.run_stage(key, inputs[index].inputs, norms[key]))
            logits = logits_with(teacher, index, x, out.pre[index], answer * model.target_scale[index])
            sums[key] += len(x) * float(bench.task.divergence(logits, out.logits))
            bench.used.teacher += share_after(teacher, index) * len(x)
    return {key: total / len(bench.rating_images) for key, total in sums.items()}


REPLACE_ONE = Score("replace-one KL", replace_one, False, needs=BLOCKWISE)
