"""Decoding of one image to an array, or an error that names the file."""

from __future__ import annotations

import struct

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nas_kd.data.source import Source
from nas_kd.errors import SettingError

GREY = ("1", "L", "LA")
OVER_8_BITS = ("I", "F")  # and I;16, I;16B ...: a conversion would clip them
TRAILERS = {"JPEG": b"\xff\xd9", "PNG": b"IEND\xaeB`\x82"}  # the last bytes of a complete file
UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError)
Shape = tuple[int, int, int]  # H, W, C
HINT = "set data.resolution: every image is then resized and cropped to that many pixels per side"


def header(source: Source, row: int, stream: object) -> Image.Image:
    """Read only size and mode."""
    if isinstance(stream, Image.Image):
        return stream
    try:
        return Image.open(stream)  # type: ignore[arg-type]
    except UNREADABLE as error:
        raise _unreadable(source, row, error) from error


def load(source: Source, row: int, opened: Image.Image | None = None) -> Image.Image:
    """Read and decode an image, or decode the one already ``opened``."""
    try:
        stream = source.load(row) if opened is None else opened
        image = stream if isinstance(stream, Image.Image) else Image.open(stream)
        image.load()
    except UNREADABLE as error:
        raise _unreadable(source, row, error) from error
    return image


def _unreadable(source: Source, row: int, error: Exception) -> SettingError:
    hint = f"replace or delete the file, or set data.unreadable=skip ({error})"
    return SettingError(source.field, source.where(row), "readable images", hint)


def differ(source: Source, row: int, image: Image.Image, side: tuple[int, int]) -> SettingError:
    """Return the error for an image of another size than the others."""
    sizes = f"{source.where(row)} has {image.height} x {image.width} pixels, others {side[0]} x {side[1]}"
    return SettingError("data.resolution", None, f"images of one size; {sizes}", HINT)


def expected_size(source: Source, row: int, image: Image.Image, resolution: int | None) -> tuple[int, int]:
    """Return the height and width of a set whose first image is this one."""
    if resolution:
        return resolution, resolution
    if image.height != image.width:
        where = f"square images; {source.where(row)} has {image.height} x {image.width} pixels"
        raise SettingError("data.resolution", None, where, HINT)
    return image.height, image.width


def check(source: Source, row: int, image: Image.Image, shape: Shape | None) -> None:
    """Raise SettingError for an image that a conversion to 8 bits would destroy."""
    if image.mode in OVER_8_BITS or image.mode.startswith("I;"):
        expected = f"8-bit images; this one has mode {image.mode}"
        hint = "convert it to 8 bits"
        raise SettingError(source.field, source.where(row), expected, hint)
    if shape and shape[2] == 1 and image.mode not in GREY:
        expected = "greyscale images, like the training images"
        raise SettingError(source.field, source.where(row), expected, "convert the images to one kind")


def to_array(source: Source, row: int, image: Image.Image, resolution: int | None, shape: Shape) -> NDArray[np.uint8]:
    """Turn a decoded image into (H, W, C) of the given shape; greyscale is repeated over three channels."""
    check(source, row, image, shape)
    grey = image.mode in GREY
    mode = "L" if grey else "RGB"
    if image.mode != mode:  # a conversion to the same mode would copy
        image = image.convert(mode)
    if resolution and image.size != (resolution, resolution):
        h, w = resized(image.size[::-1], resolution)
        image = image.resize((w, h), Image.Resampling.BICUBIC)
        top = round((h - resolution) / 2)
        left = round((w - resolution) / 2)
        image = image.crop((left, top, left + resolution, top + resolution))
    array = np.asarray(image)
    if array.shape[:2] != shape[:2]:
        raise differ(source, row, image, shape[:2])
    return np.broadcast_to(array[..., None], shape) if grey else array


def resized(size: tuple[int, int], resolution: int) -> tuple[int, int]:
    """Return the height and width at which the shorter side is ``resolution``."""
    h, w = size
    short = min(h, w)
    return max(resolution, round(h * resolution / short)), max(resolution, round(w * resolution / short))
