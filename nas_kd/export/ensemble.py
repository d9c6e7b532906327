"""An ensemble of students as one network, which a student folder holds like any other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nas_kd.data import Data
from nas_kd.errors import SettingError
from nas_kd.export.factory import check_untrusted
from nas_kd.export.handover import factory_of
from nas_kd.export.student import rebuilt
from nas_kd.losses.logits import mixture
from nas_kd.nn.static import StaticNet


class Ensemble(nn.Module):
    """A weighted mean of the probabilities of frozen students.

    Args:
        members: what rebuilds each: ``layers`` of one of ours, or ``factory``, ``factory_kwargs`` and ``cut``.

    Raises:
        SettingError: there is none, or one cannot be rebuilt.

    Source: AdaNAS (Macko et al., arXiv 1903.06236), section 3.
    """

    def __init__(self, members: Sequence[Mapping[str, Any]]) -> None:
        super().__init__()
        if not members:
            raise SettingError("members", [], "one student or more")
        self.members = nn.ModuleList(map(_member, members))
        self.scores = nn.Parameter(torch.zeros(len(members)), requires_grad=False)
        # rebuilds it from a student folder
        self.factory = f"{Ensemble.__module__}:{Ensemble.__name__}", {"members": [dict(member) for member in members]}

    @staticmethod
    def of(students: Sequence[nn.Module], weights: Tensor) -> Ensemble:
        """Join students, with copies of their weights.

        Args:
            students: what `retrain` returned, or `load_student`.
            weights: (K,) their shares, which sum to 1.
        """
        made = Ensemble([_described(student) for student in students])
        for member, student in zip(made.members, students, strict=True):
            member.load_state_dict(student.state_dict())
        made.scores.copy_(weights.clamp_min(torch.finfo(torch.float32).tiny).log())
        return made.eval().requires_grad_(False)

    @property
    def shares(self) -> Tensor:
        """(K,) weights of the members, which sum to 1."""
        return self.scores.detach().softmax(0)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (B, C, H, W) to log-probabilities (B, classes)."""
        return mixture(torch.stack([member(x) for member in self.members]), self.scores)


def check_member(network: nn.Module, data: Data) -> None:
    """Refuse a network that could be no member, before it is trained.

    Args:
        network: as `retrain` is given it.
        data: that it is trained on.

    Raises:
        SettingError: nothing rebuilds it, or a function does, or a class among the user's files.
    """
    if isinstance(network, StaticNet):
        return
    factory, _ = factory_of(network, data, None, None, needed=False)
    if factory is None:
        raise _unknown(network)
    check_untrusted(factory, _home(factory))


def _member(described: Mapping[str, Any]) -> nn.Module:
    """Build a member with new weights: a network of ours, of timm, or of a class that is not among the user's files."""
    return rebuilt(described, described.get("layers"), _home(described.get("factory")))


def _home(factory: object) -> Path:
    """Return the place beside which no file may hold what is named."""
    own = str(factory).startswith("nas_kd.")
    return (Path(__file__).parent if own else Path.cwd()) / "member"


def _unknown(student: nn.Module) -> SettingError:
    expected = "students that their folders rebuild: of a space, of timm, or with info['factory']"
    return SettingError("members", type(student).__name__, expected, "pass what nas_kd.load_student returns")


def _described(student: nn.Module) -> dict[str, Any]:
    """Return what rebuilds a student."""
    if isinstance(student, StaticNet):
        return {"layers": [dict(layer) for layer in student.layers_spec]}
    info: Any = getattr(student, "info", {})
    if not info.get("factory"):
        raise _unknown(student)
    return {name: info[name] for name in ("factory", "factory_kwargs", "cut") if name in info}
