"""Checkpoints of a training: weights, optimiser and position, restored by all processes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from nas_kd.data import Split
from nas_kd.runs.stage import Stage
from nas_kd.runtime.device import Runtime
from nas_kd.runtime.ranks import broadcast
from nas_kd.runtime.reduce import check_same
from nas_kd.train.weights import weights_hash


class Position(NamedTuple):
    """The position in a training.

    Args:
        epoch: finished epochs.
        step: finished steps of the current epoch.
        skipped: how many of these were skipped.
        sums: sums of the values of the others, by name.
    """

    epoch: int = 0
    step: int = 0
    skipped: int = 0
    sums: Mapping[str, Tensor] = {}


class Checkpoint:
    """The checkpoint of one training.

    Args:
        stage: where it is stored; None stores nothing.
        modules: the networks in it, by name.
    """

    def __init__(self, stage: Stage | None, modules: Mapping[str, nn.Module], optimizer: torch.optim.Optimizer) -> None:
        self._stage = stage
        self._modules = modules
        self._optimizer = optimizer

    def save(self, position: Position) -> None:
        """Write the state.

        Raises:
            SettingError: the disk is full or read-only.
        """
        if self._stage is None:
            return
        state = {key: module.state_dict() for key, module in self._modules.items()}
        sums = {name: value.detach().cpu() for name, value in position.sums.items()}
        self._stage.save(state | {"optimizer": self._optimizer.state_dict()} | position._replace(sums=sums)._asdict())

    def restore(self, runtime: Runtime) -> Position:
        """Restore the first process's checkpoint, if there is one, in all processes.

        Returns:
            The position in the training.

        Raises:
            SettingError: the checkpoint is damaged.
            RuntimeError: processes start with different weights.
        """
        state = self._stage.load() if self._stage is not None else None
        if runtime.world > 1:
            state = broadcast(state)
        if state is not None:
            for key, module in self._modules.items():
                module.load_state_dict(state[key])
            self._optimizer.load_state_dict(state["optimizer"])
        if runtime.world > 1:
            hashes = map(weights_hash, self._modules.values())
            check_same("the initial weights", ",".join(hashes))
        if state is None:
            return Position()
        sums = {name: value.to(runtime.device) for name, value in state.get("sums", {}).items()}
        return Position(int(state["epoch"]), int(state.get("step", 0)), int(state.get("skipped", 0)), sums)


def batches_from(split: Any, first: int, batch_size: int, **settings: Any) -> Iterator[Any]:
    """Iterate over an epoch from its step ``first`` (from 0) on.

    Args:
        settings: epoch, seed, rank and world.
    """
    if isinstance(split, Split):
        return split.batches(batch_size, first=first, **settings)
    return islice(split.batches(batch_size, **settings), first, None)
