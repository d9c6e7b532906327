"""Intermediate teachers: assistants of other sizes, and earlier generations of the student itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

from torch import nn

from nas_kd.data import Data
from nas_kd.distill.peers import fresh
from nas_kd.errors import SettingError
from nas_kd.runtime.seeds import seeded
from nas_kd.space import Arch
from nas_kd.supernet import Supernet
from nas_kd.teacher import TargetSource, Teacher
from nas_kd.teacher.text import seal
from nas_kd.train.config import RetrainConfig


def as_teacher(student: nn.Module, name: str, data: Data) -> Teacher:
    """Return a sealed copy of a student trained on the data; the student itself stays trainable."""
    sealed = seal(
        deepcopy(student), name, num_classes=data.num_classes, in_chans=data.in_chans, mean=data.mean, std=data.std
    )
    return sealed.bind(data)


def train_intermediate(
    retrain: Callable[..., nn.Module],
    model: nn.Module | Arch,
    teacher: TargetSource | None,
    data: Data,
    config: RetrainConfig,
    *,
    assistants: Sequence[nn.Module | Arch],
    generations: int,
    folder: str,
    seed: int,
    supernet: Supernet | str | Path | None,
    others: dict[str, Any],
) -> TargetSource | None:
    """Train intermediate teachers one after the other, each taught by the previous one; return the last.

    Args:
        retrain: trains one network, like ``nas_kd.retrain``.
        model: the student; earlier generations are new copies of it.
        teacher: the first teacher.
        config: the training of all of them.
        assistants: the networks in between, largest first.
        generations: number of generations of the student; 1 trains no earlier one.
        folder: stage folder of the student, which contains theirs.
        seed: the student's seed, from which theirs are derived.
        supernet: initial weights of a student that is an arch, and of its earlier generations.
        others: further arguments of ``retrain``, the same for all.

    Raises:
        SettingError: generations is below 1.

    Source:
        Mirzadeh et al., Improved knowledge distillation via teacher assistant, arXiv 1902.03393; Furlanello
        et al., Born-again neural networks, arXiv 1805.04770.
    """
    if generations < 1:
        raise SettingError("generations", generations, "an integer of at least 1")
    chain: list[tuple[str, nn.Module | Arch]] = [(f"assistant_{n}", net) for n, net in enumerate(assistants, 1)]
    for number in range(1, generations):
        copy: nn.Module | Arch = model
        if isinstance(model, nn.Module):
            seeded(seed, "generation", number)
            copy = fresh(model)
        chain.append((f"generation_{number}", copy))
    for number, (name, network) in enumerate(chain, 1):
        same_arch = name.startswith("generation") and isinstance(network, Arch)
        own = others | {
            "supernet": supernet if same_arch else None,
            "folder": f"{folder}/{name}",
            "seed": seed + 1000 * number,
        }
        teacher = as_teacher(retrain(network, teacher, data, config, **own), name, data)
    return teacher
