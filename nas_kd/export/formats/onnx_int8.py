"""8 bits in an ONNX file, by ONNX Runtime."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import Tensor

from nas_kd.export.formats.base import Quantiser


def quantise(source: Path, target: Path, batches: Iterator[Tensor]) -> None:
    """Quantise weights by channel and activations by their ranges on some images.

    Args:
        source: an ONNX file.
        target: the ONNX file to write.
        batches: images as the file takes them.
    """
    import logging

    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Images(CalibrationDataReader):  # type: ignore[misc]  # untyped
        def get_next(self) -> dict[str, Any] | None:
            batch = next(batches, None)
            return None if batch is None else {"images": batch.numpy()}

    prepared = target.with_name(f"{target.name}.prepared")
    told = logging.root.level
    logging.root.setLevel(logging.ERROR)  # it advises to do what is done here
    try:
        quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
        quantize_static(
            str(prepared),
            str(target),
            Images(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
        )
    finally:
        logging.root.setLevel(told)
        prepared.unlink(missing_ok=True)


INT8 = Quantiser(quantise, ("onnxruntime",), "onnx")
