"""Steps that are left out because a loss or a gradient of theirs is not finite."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from nas_kd.runs.stage import Stage
from nas_kd.train.watch import Bad

_log = logging.getLogger(__name__)


class Skips:
    """Undoes bad steps and counts them.

    What a step leaves in a network besides gradients, such as running statistics or a running mean of weights,
    would stay NaN for ever: it is put back to what it was before the step. Networks that step optimisers of
    their own within it are not known here; `train_network` refuses them.

    Args:
        modules: the networks in training.
        stage: keeps them in skipped.csv, one row per step; None tells Python's log.
    """

    def __init__(self, modules: Mapping[str, nn.Module], stage: Stage | None) -> None:
        self._modules = modules
        self._stage = stage
        self._file = None if stage is None else stage.log("skipped.csv")
        self._held: list[tuple[Tensor, Tensor]] = []

    def cut(self, steps: int) -> None:
        """Drop the rows of steps that a checkpoint does not know of.

        Args:
            steps: steps before the checkpoint, of the whole training.
        """
        if self._file is not None:
            self._file.cut("steps", steps)

    def hold(self) -> None:
        """Remember the networks' buffers before a step, and weights that no gradient moves."""
        modules = self._modules.values()
        moved: list[Tensor] = [buffer for module in modules for buffer in module.buffers()]
        moved += [p.detach() for module in modules for p in module.parameters() if not p.requires_grad]
        self._held = [(tensor, tensor.clone()) for tensor in moved]

    @torch.no_grad()
    def find(self, step: int, values: Mapping[str, Tensor], parameters: Sequence[nn.Parameter]) -> Bad | None:
        """Look for a value or gradient that is not finite; the device is waited for.

        Args:
            step: number of the step in its epoch, from 0.
            values: the values of the step by name.
            parameters: the parameters; their gradients are looked at.

        Returns:
            What is not finite, or None.
        """
        gradients = [p.grad for p in parameters if p.grad is not None]
        first = next(iter(values.values()))
        found = [value.detach().to(first.device).float() for value in values.values()]
        if gradients:
            found.append(torch.stack(torch._foreach_norm(gradients)).norm().to(first.device).float())
        numbers = torch.stack(found).tolist()
        names = [*values, "gradient"]
        for name, number in zip(names, numbers, strict=False):
            if number - number != 0.0:  # NaN and infinities
                return Bad(step, name, number)
        return None

    @torch.no_grad()
    def undo(self, bad: Bad, words: str, epoch: int, steps: int) -> None:
        """Put back what was held and note the step.

        Args:
            bad: what was not finite.
            words: the same in words, with what was trained.
            epoch: the epoch, from 0.
            steps: steps an epoch.
        """
        for tensor, held in self._held:
            tensor.copy_(held)
        if self._stage is None or self._file is None:
            _log.warning("%s: skipped", words)
            return
        if not self._file.columns:
            self._stage.run.log_message(f"{words}: skipped; this and all others are in {self._file.path}")
        at = epoch * steps + bad.step + 1
        row = {"steps": at, "epoch": epoch + 1, "step": bad.step + 1, "what": bad.key, "value": bad.value}
        self._file.append(row | {"trained": words})
