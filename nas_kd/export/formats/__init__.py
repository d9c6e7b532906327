"""One file a format; a new one is a file and a line in this table."""

from nas_kd.export.formats import folders, onnx, pt2, standalone, torchscript
from nas_kd.export.formats.base import Format

FORMATS: dict[str, Format] = {
    "onnx": onnx.FORMAT,
    "pt2": pt2.FORMAT,
    "torchscript": torchscript.FORMAT,
    "standalone": standalone.FORMAT,
    "timm": folders.TIMM,
    "hf": folders.HUB,
}
