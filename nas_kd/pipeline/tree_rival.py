"""A soft decision tree as a rival: the one student that is no network of layers, trained by its own method."""

from __future__ import annotations

from functools import partial

from torch import nn

from nas_kd.derive.cost import whole_cost
from nas_kd.distill.tree import SoftTree
from nas_kd.errors import SettingError
from nas_kd.pipeline.candidates import ModuleStudent
from nas_kd.pipeline.given import Given
from nas_kd.runtime.seeds import seeded

NAME = "soft_tree"
DEPTH = 8  # of Frosst and Hinton's trees on digits
DEEPEST = 12  # 4,095 linear functions of the image


def soft_tree(given: Given, text: str) -> ModuleStudent:
    """Return a soft decision tree as a rival, which learns from the teacher by the method of its name.

    Args:
        given: what the settings name.
        text: ``soft_tree``, or ``soft_tree=DEPTH``.

    Raises:
        SettingError: there is no teacher or there are no classes, the depth is no whole number from 1 to 12, or the
            tree is beyond the budget.
    """
    depth = text.partition("=")[2] or str(DEPTH)
    if not (depth.isdecimal() and 1 <= int(depth) <= DEEPEST):
        raise SettingError("retrain.rivals", text, f"soft_tree=DEPTH, with a depth from 1 to {DEEPEST}")
    data = given.images
    if not given.taught or data.kind != "classes":
        lacks = "a teacher" if not given.taught else f"classes; these labels are {data.kind}"
        raise SettingError("retrain.rivals", text, f"no soft tree, which learns from {lacks}", "omit it")
    make = partial(_tree, int(depth), data.in_chans * data.resolution**2, data.num_classes)
    cost = whole_cost(make(0).eval(), data.in_chans, data.resolution)
    given.check_cost("retrain.rivals", text, cost)
    return ModuleStudent(NAME, f"{NAME}-{int(depth)}", f"a tree of depth {depth}", cost, make, method=NAME)


def _tree(depth: int, inputs: int, classes: int, seed: int) -> nn.Module:
    seeded(seed, "rival", NAME)
    return SoftTree(depth, inputs, classes)
