"""Elastic layers and their static twins."""

from nas_kd.nn.elastic import ElasticConv2d, ElasticDepthwise, ElasticLinear, centre, prefix
from nas_kd.nn.norm import ElasticBatchNorm2d, NormValues, Recorder, batch_statistics
from nas_kd.nn.output import Output
from nas_kd.nn.stage import ElasticStage
from nas_kd.nn.static import StaticNet

__all__ = [
    "ElasticBatchNorm2d", "ElasticConv2d", "ElasticDepthwise", "ElasticLinear", "ElasticStage", "NormValues",
    "Output", "Recorder", "StaticNet", "batch_statistics", "centre", "prefix",
]  # fmt: skip
