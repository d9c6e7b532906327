"""Skipping of steps with a non-finite loss or gradient."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from nas_kd.runs.stage import Stage
from nas_kd.train.watch import NonFinite

_log = logging.getLogger(__name__)


class Skips:
    """Undoes steps with non-finite values and records them.

    State that a step changes besides gradients, such as running statistics or a moving average of weights,
    would stay NaN forever: it is restored. Networks with their own optimisers are not supported;
    `train_network` rejects them.

    Args:
        modules: the networks in training.
        stage: where skipped.csv is written, one row per step; None uses Python's logging.
    """

    def __init__(self, modules: Mapping[str, nn.Module], stage: Stage | None) -> None:
        self._modules = modules
        self._stage = stage
        self._file = None if stage is None else stage.log("skipped.csv")
        self._held: list[tuple[Tensor, Tensor]] = []

    def cut(self, steps: int) -> None:
        """Drop the rows after a checkpoint, ``steps`` being the steps of the whole training before it."""
        if self._file is not None:
            self._file.cut("steps", steps)

    def hold(self) -> None:
        """Copy the networks' buffers and frozen weights before a step."""
        modules = self._modules.values()
        moved: list[Tensor] = [buffer for module in modules for buffer in module.buffers()]
        moved += [p.detach() for module in modules for p in module.parameters() if not p.requires_grad]
        self._held = [(tensor, tensor.clone()) for tensor in moved]

    @torch.no_grad()
    def find(self, step: int, values: Mapping[str, Tensor], parameters: Sequence[nn.Parameter]) -> NonFinite | None:
        """Return the first non-finite value or gradient of a step, or None; synchronises with the device.

        Args:
            step: index of the step in its epoch.
            values: the values of the step by name.
            parameters: the parameters whose gradients are checked.
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
                return NonFinite(step, name, number)
        return None

    @torch.no_grad()
    def undo(self, nonfinite: NonFinite, message: str, epoch: int, steps: int) -> None:
        """Restore what `hold` copied and record the step.

        Args:
            message: describes the value and what was trained.
            epoch: index of the epoch.
            steps: steps per epoch.
        """
        for tensor, held in self._held:
            tensor.copy_(held)
        if self._stage is None or self._file is None:
            _log.warning("%s: skipped", message)
            return
        if not self._file.columns:
            self._stage.run.log_message(f"{message}: skipped; all skipped steps are listed in {self._file.path}")
        at = epoch * steps + nonfinite.step + 1
        row = {
            "steps": at,
            "epoch": epoch + 1,
            "step": nonfinite.step + 1,
            "what": nonfinite.key,
            "value": nonfinite.value,
        }
        self._file.append(row | {"trained": message})
