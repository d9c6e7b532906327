"""What becomes of the teacher's answers when one of its stages is replaced by a candidate."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas_kd.errors import SettingError
from nas_kd.losses import kl_divergence
from nas_kd.rate.scores.base import CHUNK, Bench, Key, Score, keys_of
from nas_kd.rate.scores.stages import BLOCKWISE
from nas_kd.space import Arch
from nas_kd.teacher import Tap, Teacher


@torch.no_grad()
def logits_with(teacher: Teacher, index: int, x: Tensor, answer: Tensor) -> Tensor:
    """Run the teacher with one tapped feature replaced.

    Where the teacher's map is larger than the student's, what is averaged away to compare them is left as the
    teacher has it: only the averages are replaced. So the perfect answer changes nothing.

    Args:
        teacher: a teacher whose taps are chosen.
        index: which tap.
        x: (N, C, H, W) images.
        answer: (N, channels of the tap, student's H, W) in place of the teacher's, in its scale, before the
            tapped block's last ReLU where that is at hand.

    Returns:
        Logits (N, classes).
    """
    assert teacher.taps is not None
    tap = teacher.taps[index]
    parts = []
    for images, wanted in zip(x.split(CHUNK), answer.split(CHUNK), strict=True):
        known = teacher.forward_stages(images).pre[index]
        parts.append(_forward(teacher, tap.path, _Swap(tap, known, wanted), images))
    return torch.cat(parts).float()


def _forward(teacher: Teacher, path: str, swap: _Swap, x: Tensor) -> Tensor:
    """Run the teacher with the output of one module swapped."""

    def hook(module: nn.Module, args: object, out: object) -> object:
        post = out[0] if isinstance(out, tuple) else out  # own blocks also give what is before the activation
        if not isinstance(post, Tensor) or post.shape != swap.known.shape or not swap.gives(post):
            legal = "a module that gives one feature map (B, C, H, W), with or without a ReLU at its end"
            raise SettingError("teacher.stages", path, legal, "leave out the scores that replace stages")
        new = swap.after()
        return (new, *out[1:]) if isinstance(out, tuple) else new

    handle = teacher.network.get_submodule(path).register_forward_hook(hook)
    try:
        return teacher.network(teacher.normalised(x))
    finally:
        handle.remove()


class _Swap:
    """Puts a student's answer in the place of a block's output."""

    def __init__(self, tap: Tap, known: Tensor, wanted: Tensor) -> None:
        self.tap, self.known, self.wanted = tap, known, wanted

    def gives(self, post: Tensor) -> bool:
        """Tell whether the block's output is what we take it for."""
        return torch.allclose(F.relu(self.known) if self.tap.pre else self.known, post)

    def after(self) -> Tensor:
        """Return what the rest of the teacher gets."""
        missing = self.wanted - F.adaptive_avg_pool2d(self.known, (self.wanted.shape[2], self.wanted.shape[3]))
        if missing.shape != self.known.shape:  # equal windows: spreading an average evenly keeps it
            missing = F.interpolate(missing, size=self.known.shape[2:])
        return F.relu(self.known + missing) if self.tap.pre else self.known + missing


def replace_one(bench: Bench, archs: Sequence[Arch]) -> list[float]:
    """Add up, over the stages, the KL between the teacher and the teacher with this stage replaced.

    Source: LANA (Molchanov et al. 2022); Puzzle (Bercovich et al. 2024).
    """
    calibration, rating = bench.features()
    teacher, model, truth = bench.need_teacher(), bench.need_model(), bench.teacher_logits()
    x, found = bench.rating_images, dict[Key, float]()
    for arch in archs:
        for key in keys_of(bench.space, arch):
            if key not in found:
                index = key[0]
                with torch.no_grad():
                    answer = model.leave(index, bench.stage(key, calibration, rating).rating)
                logits = logits_with(teacher, index, x, answer * model.target_scale[index])
                bench.used.teacher += len(x)  # one pass would do: the second only finds the feature again
                found[key] = float(kl_divergence(logits, truth))
    return [sum(found[key] for key in keys_of(bench.space, arch)) for arch in archs]


REPLACE_ONE = Score("replace-one KL", replace_one, False, needs=BLOCKWISE)
