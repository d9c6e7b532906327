"""Training: one loop, and a step for each purpose."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nas_kd.lazy import lazy

if TYPE_CHECKING:
    from nas_kd.train.evaluate import evaluate_archs as evaluate_archs
    from nas_kd.train.fine_tune import train_teacher as train_teacher
    from nas_kd.train.loop import StepInfo as StepInfo
    from nas_kd.train.loop import fit as fit
    from nas_kd.train.measured import measure as measure
    from nas_kd.train.network import predict as predict
    from nas_kd.train.network import train_network as train_network
    from nas_kd.train.optim import Schedule as Schedule
    from nas_kd.train.optim import adamw as adamw
    from nas_kd.train.optim import decay_groups as decay_groups
    from nas_kd.train.optim import sgd as sgd
    from nas_kd.train.sandwich import sandwich_step as sandwich_step
    from nas_kd.train.supernet import train_supernet as train_supernet
    from nas_kd.train.supernet_weights import load_supernet as load_supernet
    from nas_kd.train.weights import load_weights as load_weights
    from nas_kd.train.weights import save_weights as save_weights
    from nas_kd.train.weights import weights_hash as weights_hash

_HOME = {
    "StepInfo": "loop",
    "Schedule": "optim",
    "adamw": "optim",
    "decay_groups": "optim",
    "evaluate_archs": "evaluate",
    "fit": "loop",
    "load_supernet": "supernet_weights",
    "load_weights": "weights",
    "measure": "measured",
    "predict": "network",
    "sandwich_step": "sandwich",
    "save_weights": "weights",
    "sgd": "optim",
    "train_network": "network",
    "train_supernet": "supernet",
    "train_teacher": "fine_tune",
    "weights_hash": "weights",
}
__all__ = [*_HOME]
__getattr__, __dir__ = lazy(__name__, _HOME)
