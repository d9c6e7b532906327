"""Networks trained alongside the student, each with its own loss and optimiser, in alternation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from nas_kd.errors import SettingError

if TYPE_CHECKING:
    from nas_kd.teacher.targets import TargetSource

LR = 1e-3  # of the Adam of a game's own networks


class Player(nn.Module):
    """A network trained together with or against the student.

    Its parameters require gradients only in its own step, so that no other optimiser updates them. State dicts
    include its optimiser.
    """

    single_process = True  # its own optimiser does not average gradients over processes

    def __init__(self, net: nn.Module, lr: float, betas: tuple[float, float] = (0.5, 0.999)) -> None:
        super().__init__()
        if not lr > 0:
            raise SettingError("player.lr", lr, "a number above 0")
        self.net = net.requires_grad_(False)
        self.turns = 0
        self._optimizer = torch.optim.Adam(net.parameters(), lr=lr, betas=betas)

    def step(self, loss: Callable[[], Tensor]) -> Tensor:
        """Take one optimiser step of this network only, and return its detached loss."""
        parameters = list(self.net.parameters())
        self.net.requires_grad_(True)
        try:
            with torch.enable_grad():
                value = loss()
                for parameter, grad in zip(parameters, torch.autograd.grad(value, parameters), strict=True):
                    parameter.grad = grad
            self._optimizer.step()
        finally:
            self._optimizer.zero_grad(set_to_none=True)
            self.net.requires_grad_(False)
        self.turns += 1
        return value.detach()

    def get_extra_state(self) -> dict[str, Any]:
        """Return the optimiser's state, for checkpoints."""
        return {"optimizer": self._optimizer.state_dict(), "turns": self.turns}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Restore the optimiser's state."""
        self._optimizer.load_state_dict(state["optimizer"])
        self.turns = state["turns"]


def open_teacher(source: TargetSource | None, method: str) -> tuple[nn.Module, Callable[[Tensor], Tensor]]:
    """Return a sealed teacher that passes gradients to its input, and the normalisation of its images.

    Raises:
        SettingError: there is no network, only logits.
    """
    teacher = None if source is None else source.teacher
    if teacher is None:
        expected = "a live teacher, whose logits have a gradient with respect to its input"
        raise SettingError("teacher", type(source).__name__, expected, f"pass the teacher itself to {method}")
    return teacher.network, teacher.normalised


@contextmanager
def norm_inputs(network: nn.Module) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """Record mean and variance of every batch norm's input within the context, in the order of ``norms``."""
    found: list[tuple[Tensor, Tensor]] = []

    def note(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        dims = [0, *range(2, args[0].ndim)]
        found.append((args[0].mean(dims), args[0].var(dims, unbiased=False)))

    handles = [norm.register_forward_pre_hook(note) for norm in norms(network)]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def norms(network: nn.Module) -> list[nn.modules.batchnorm._BatchNorm]:
    """Return a network's batch norms with running statistics."""
    kinds = nn.modules.batchnorm._BatchNorm
    return [module for module in network.modules() if isinstance(module, kinds) and module.running_mean is not None]
