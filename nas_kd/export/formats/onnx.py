"""ONNX by torch's exporter, one file, for any batch size; run by ONNX Runtime."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nas_kd.export.deployed import Deployed
from nas_kd.export.formats.base import Format, Read
from nas_kd.export.formats.onnx_int8 import INT8
from nas_kd.export.formats.traced import exported


def write(network: Deployed, example: Tensor, path: Path) -> None:
    """Write an ONNX file with the input ``images`` and the output ``outputs``, both with any number of rows."""
    save_program(network, example, path, ["images"], ["outputs"])


def save_program(
    network: nn.Module,
    example: Tensor | tuple[Any, ...],
    path: Path,
    inputs: Sequence[str],
    outputs: Sequence[str],
) -> None:
    """Write the ONNX file of any module, with names of its inputs and outputs; `exported` says what the example is.

    Where torch's exporter cannot translate what it traced, as where onnxscript is much newer than torch, the older
    exporter by TorchScript does.
    """
    traced = exported(network, example)
    names: dict[str, Any] = {"input_names": inputs, "output_names": outputs}
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")  # of the exporters about themselves
        try:
            program: Any = torch.onnx.export(traced, dynamo=True, verbose=False, **names)
            program.save(str(path), external_data=False)
        except Exception as error:  # whatever a translation raises
            given = example if isinstance(example, tuple) else (example,)
            # a module inside is traced for what it gets, as in `exported`
            axes = None if isinstance(example, tuple) else {name: {0: "batch"} for name in (*inputs, *outputs)}
            try:
                torch.onnx.export(network, given, str(path), dynamo=False, dynamic_axes=axes, **names)
            except Exception:  # the first error says more
                raise error from None


def session(path: Path) -> Any:
    """Open an ONNX file in ONNX Runtime on the CPU, with as many threads as torch has."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def read(path: Path) -> Read:
    """Read a file back as a function of images."""
    opened = session(path)
    name = opened.get_inputs()[0].name

    def run(x: Tensor) -> Tensor:
        return torch.from_numpy(opened.run(None, {name: x.numpy()})[0])

    return run


FORMAT = Format(
    "onnx",
    ".onnx",
    "onnxruntime",
    write,
    read,
    exported,
    ("onnx", "onnxscript", "onnxruntime"),
    extra="onnx",
    int8=INT8,
)
