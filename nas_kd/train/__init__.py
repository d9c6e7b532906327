"""How networks are trained: one loop, and a step for each purpose."""

from nas_kd.train.evaluate import evaluate_archs
from nas_kd.train.fine_tune import train_teacher
from nas_kd.train.loop import Moment, fit
from nas_kd.train.network import measure, predict, train_network
from nas_kd.train.optim import Schedule, adamw, decay_groups, sgd
from nas_kd.train.sandwich import sandwich_step
from nas_kd.train.supernet import train_supernet
from nas_kd.train.weights import load_weights, save_weights, weights_hash

__all__ = [
    "Moment",
    "Schedule",
    "adamw",
    "decay_groups",
    "evaluate_archs",
    "fit",
    "load_weights",
    "measure",
    "predict",
    "sandwich_step",
    "save_weights",
    "sgd",
    "train_network",
    "train_supernet",
    "train_teacher",
    "weights_hash",
]
