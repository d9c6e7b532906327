"""Teachers: load them, read their features, store their logits and features."""

from nas_kd.teacher.as_targets import TeacherEnsemble, as_targets
from nas_kd.teacher.build import build_model
from nas_kd.teacher.cache import ViewCache
from nas_kd.teacher.cifar_resnet import (
    CifarResNet,
    cifar_resnet8,
    cifar_resnet14,
    cifar_resnet20,
    cifar_resnet32,
    cifar_resnet44,
    cifar_resnet56,
    cifar_resnet110,
)
from nas_kd.teacher.load import load_teacher
from nas_kd.teacher.stored_features import StoredFeatures
from nas_kd.teacher.taps import Layer, Tap, choose_taps, describe_taps, pool_to
from nas_kd.teacher.targets import LiveSource, TargetSource
from nas_kd.teacher.teacher import Teacher
from nas_kd.teacher.weights import read_weights, save_weights

__all__ = [
    "CifarResNet",
    "Layer",
    "LiveSource",
    "StoredFeatures",
    "Tap",
    "TargetSource",
    "Teacher",
    "TeacherEnsemble",
    "ViewCache",
    "as_targets",
    "build_model",
    "choose_taps",
    "cifar_resnet8",
    "cifar_resnet14",
    "cifar_resnet20",
    "cifar_resnet32",
    "cifar_resnet44",
    "cifar_resnet56",
    "cifar_resnet110",
    "describe_taps",
    "load_teacher",
    "pool_to",
    "read_weights",
    "save_weights",
]
