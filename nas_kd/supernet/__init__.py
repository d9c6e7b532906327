"""The supernet and the calibration of its subnets."""

from nas_kd.supernet.calibrate import calibrate
from nas_kd.supernet.sorting import sort_channels
from nas_kd.supernet.supernet import Supernet

__all__ = ["Supernet", "calibrate", "sort_channels"]
