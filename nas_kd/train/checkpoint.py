"""What a training keeps to go on from: weights, optimiser and place, taken over by all processes."""

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


class Place(NamedTuple):
    """How far a training is.

    Args:
        epoch: finished epochs.
        step: finished steps of the epoch after these.
        skipped: how many of them were skipped.
        sums: sums of the values of the others, by name.
    """

    epoch: int = 0
    step: int = 0
    skipped: int = 0
    sums: Mapping[str, Tensor] = {}


class Checkpoint:
    """The checkpoint of one training.

    Args:
        stage: where it lies; None keeps nothing.
        holders: the networks in it, by name.
        optimizer: the optimiser.
    """

    def __init__(self, stage: Stage | None, holders: Mapping[str, nn.Module], optimizer: torch.optim.Optimizer) -> None:
        self._stage = stage
        self._holders = holders
        self._optimizer = optimizer

    def save(self, place: Place) -> None:
        """Write the state.

        Args:
            place: how far it is.

        Raises:
            SettingError: the disk is full or read-only.
        """
        if self._stage is None:
            return
        state = {key: module.state_dict() for key, module in self._holders.items()}
        sums = {name: value.detach().cpu() for name, value in place.sums.items()}
        self._stage.save(state | {"optimizer": self._optimizer.state_dict()} | place._replace(sums=sums)._asdict())

    def take_over(self, runtime: Runtime) -> Place:
        """Go back to the state of the first process's checkpoint, if there is one.

        Returns:
            How far the training is.

        Raises:
            SettingError: the checkpoint is damaged.
            RuntimeError: processes begin with different weights.
        """
        state = self._stage.load() if self._stage is not None else None
        if runtime.world > 1:
            state = broadcast(state)
        if state is not None:
            for key, module in self._holders.items():
                module.load_state_dict(state[key])
            self._optimizer.load_state_dict(state["optimizer"])
        if runtime.world > 1:
            hashes = map(weights_hash, self._holders.values())
            check_same("the weights that a training begins with", ",".join(hashes))
        if state is None:
            return Place()
        sums = {name: value.to(runtime.device) for name, value in state.get("sums", {}).items()}
        return Place(int(state["epoch"]), int(state.get("step", 0)), int(state.get("skipped", 0)), sums)


def batches_from(split: Any, first: int, batch_size: int, **settings: Any) -> Iterator[Any]:
    """Go through an epoch from one of its steps on.

    Args:
        split: what is trained on.
        first: the step, from 0.
        batch_size: images per step.
        settings: epoch, seed, rank and world.
    """
    if isinstance(split, Split):
        return split.batches(batch_size, first=first, **settings)
    return islice(split.batches(batch_size, **settings), first, None)
