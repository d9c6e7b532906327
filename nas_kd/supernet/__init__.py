"""The supernet and the calibration of its subnets."""

from nas_kd.supernet.calibrate import calibrate
from nas_kd.supernet.elastic_stage import ElasticStage
from nas_kd.supernet.sorting import sort_channels
from nas_kd.supernet.supernet import Supernet

__all__ = ["ElasticStage", "Supernet", "calibrate", "sort_channels"]
