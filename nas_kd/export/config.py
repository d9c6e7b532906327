"""Settings of `nas-kd export`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field
from typing import Literal

from nas_kd.config.settings import Settings, settings
from nas_kd.config.types import Count, Natural, Positive
from nas_kd.data.config import DataConfig

To = Literal["onnx", "pt2", "torchscript", "standalone", "timm", "hf"]
TOLERANCE = 1e-4


@settings("")
class ExportConfig(Settings):
    """A student in another format, its check, and what it costs."""

    student: str | None = None
    """student folder"""
    to: To = "onnx"
    """onnx, pt2 (torch.export), torchscript, standalone (one Python file with the weights), timm or hf (folders)"""
    path: str | None = None
    """file or folder to write; null is export/ in the student folder"""
    normalise: bool = False
    """take images in 0..1, and subtract the mean and divide by the standard deviation inside"""
    softmax: bool = False
    """return probabilities and not logits: softmax of classes, sigmoids of several labels"""
    tolerance: Positive = TOLERANCE
    """largest difference of outputs from those of the network, as a share of the largest where that is above 1"""
    latency: bool = True
    """measure the latency beside that of the network in torch"""
    batch_sizes: Sequence[Count] = (1, 32)
    """images a pass, of latencies"""
    threads: Count | None = None
    """CPU threads of torch and of the runtime; null leaves it to torch"""
    factory: str | None = None
    """package.module:function that builds the student, if its folder names one and you trust it"""
    int8: bool = False
    """quantise the file to 8 bits too (onnx by ONNX Runtime, pt2 by torchao), and measure both on the test images"""
    int8_epochs: Natural = 0
    """with int8: also fine-tune the student for 8 bits by its run's teacher, for so many epochs, and measure that"""
    calibration: Count = 256
    """training images from which the ranges of 8-bit values are taken"""
    data: DataConfig = field(default_factory=DataConfig)
    """Images for int8; those of the run that the student lies in, where it lies in one"""
