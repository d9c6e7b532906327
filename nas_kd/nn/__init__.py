"""Elastic layers and the other parts of networks; nothing here knows about spaces."""

from nas_kd.lazy import lazy
from nas_kd.nn.elastic import ElasticConv2d, ElasticDepthwise, ElasticLinear, centre, prefix
from nas_kd.nn.norm import ElasticBatchNorm2d, NormValues, Recorder
from nas_kd.nn.output import Output
from nas_kd.nn.resize import Resized, at_resolution, resized
from nas_kd.nn.static import StaticNet
from nas_kd.nn.transform import KernelTransform

__all__ = [
    "ElasticBatchNorm2d",
    "ElasticConv2d",
    "ElasticDepthwise",
    "ElasticLinear",
    "KernelTransform",
    "NormValues",
    "Output",
    "Recorder",
    "Resized",
    "StaticNet",
    "at_resolution",
    "centre",
    "prefix",
    "resized",
]
__getattr__, _ = lazy(__name__, {})  # its other modules, such as `nas_kd.nn.part`
