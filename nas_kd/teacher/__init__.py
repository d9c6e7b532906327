"""Teachers: loading, feature extraction, stored logits and features."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nas_kd.lazy import lazy

if TYPE_CHECKING:
    from nas_kd.teacher.build import build_model as build_model
    from nas_kd.teacher.cache import ViewCache as ViewCache
    from nas_kd.teacher.check import TeacherCheck as TeacherCheck
    from nas_kd.teacher.check import check_teacher as check_teacher
    from nas_kd.teacher.choose import choose_taps as choose_taps
    from nas_kd.teacher.cifar_resnet import CifarResNet as CifarResNet
    from nas_kd.teacher.cifar_resnet import cifar_resnet8 as cifar_resnet8
    from nas_kd.teacher.cifar_resnet import cifar_resnet14 as cifar_resnet14
    from nas_kd.teacher.cifar_resnet import cifar_resnet20 as cifar_resnet20
    from nas_kd.teacher.cifar_resnet import cifar_resnet32 as cifar_resnet32
    from nas_kd.teacher.cifar_resnet import cifar_resnet44 as cifar_resnet44
    from nas_kd.teacher.cifar_resnet import cifar_resnet56 as cifar_resnet56
    from nas_kd.teacher.cifar_resnet import cifar_resnet110 as cifar_resnet110
    from nas_kd.teacher.load import load_teacher as load_teacher
    from nas_kd.teacher.sources import TeacherEnsemble as TeacherEnsemble
    from nas_kd.teacher.sources import as_targets as as_targets
    from nas_kd.teacher.stored_features import StoredFeatures as StoredFeatures
    from nas_kd.teacher.taps import Layer as Layer
    from nas_kd.teacher.taps import Tap as Tap
    from nas_kd.teacher.taps import describe_taps as describe_taps
    from nas_kd.teacher.taps import grow_to as grow_to
    from nas_kd.teacher.taps import pool_to as pool_to
    from nas_kd.teacher.targets import LiveSource as LiveSource
    from nas_kd.teacher.targets import TargetSource as TargetSource
    from nas_kd.teacher.teacher import Teacher as Teacher
    from nas_kd.teacher.weights import read_weights as read_weights
    from nas_kd.teacher.weights import save_weights as save_weights

_HOME = {
    "CifarResNet": "cifar_resnet",
    "Layer": "taps",
    "LiveSource": "targets",
    "StoredFeatures": "stored_features",
    "Tap": "taps",
    "TargetSource": "targets",
    "Teacher": "teacher",
    "TeacherCheck": "check",
    "TeacherEnsemble": "sources",
    "ViewCache": "cache",
    "as_targets": "sources",
    "build_model": "build",
    "check_teacher": "check",
    "choose_taps": "choose",
    "cifar_resnet110": "cifar_resnet",
    "cifar_resnet14": "cifar_resnet",
    "cifar_resnet20": "cifar_resnet",
    "cifar_resnet32": "cifar_resnet",
    "cifar_resnet44": "cifar_resnet",
    "cifar_resnet56": "cifar_resnet",
    "cifar_resnet8": "cifar_resnet",
    "describe_taps": "taps",
    "grow_to": "taps",
    "load_teacher": "load",
    "pool_to": "taps",
    "read_weights": "weights",
    "save_weights": "weights",
}
__all__ = [*_HOME]
__getattr__, __dir__ = lazy(__name__, _HOME)
