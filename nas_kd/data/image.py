"""Decoding of one image to an array, or an error that names the file."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import IO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from nas_kd.data.formats import formats
from nas_kd.data.source import Source
from nas_kd.errors import SettingError

TRAILERS = {"JPEG": b"\xff\xd9", "PNG": b"IEND\xaeB`\x82"}  # the last bytes of a complete file
LARGEST_PIXELS = 2**26  # of a resized image before its crop: 64 megapixels, of which a strip of 1 x 60,000 has more
ORIENTATION = 0x0112  # of EXIF
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
Shape = tuple[int, int, int]  # H, W, C
HINT = "set data.resolution: every image is then resized and cropped to that many pixels per side"


@dataclass
class Seen:
    """What was seen of images: how many of each mode and of each size (H, W), turned, transparent and of 16 bits."""

    modes: Counter[str] = field(default_factory=Counter)
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    traits: Counter[str] = field(default_factory=Counter)

    def add(self, image: Image.Image, size: tuple[int, int]) -> None:
        """Count an image that is (H, W) once turned upright."""
        self.modes[image.mode] += 1
        self.sizes[size] += 1
        if has_alpha(image):
            self.traits["with transparency"] += 1
        if is_deep(image):
            self.traits["of 16 bits, scaled to 8"] += 1
        if _orientation(image) in TURNS:
            self.traits["turned as their EXIF says"] += 1


def read(source: Source, row: int) -> IO[bytes] | Image.Image:
    """Read an image's bytes, or its pixels where it is no file."""
    try:
        return source.load(row)
    except Exception as error:
        raise unreadable(source, row, error) from error


def header(source: Source, row: int, stream: IO[bytes] | Image.Image | None = None) -> Image.Image:
    """Read size and mode of an image, or of the one already read."""
    stream = read(source, row) if stream is None else stream
    if isinstance(stream, Image.Image):
        return stream
    try:
        return Image.open(stream, formats=formats())
    except Exception as error:  # whatever a decoder raises: each has errors of its own
        raise unreadable(source, row, error) from error


def load(source: Source, row: int, opened: Image.Image | None = None) -> Image.Image:
    """Read and decode an image, or decode the one already ``opened``."""
    image = header(source, row) if opened is None else opened
    try:
        image.load()
    except Exception as error:
        raise unreadable(source, row, error) from error
    return image


def unreadable(source: Source, row: int, error: Exception) -> SettingError:
    """Return the error for an image that cannot be read."""
    # Pillow's own message names an object in memory
    why = "no format that is read here" if isinstance(error, UnidentifiedImageError) else error
    hint = f"replace or delete the file, or set data.unreadable=skip ({why})"
    return SettingError(source.field, source.where(row), "readable images", hint)


def has_alpha(image: Image.Image) -> bool:
    """Tell whether an image may be transparent."""
    return image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info


def is_deep(image: Image.Image) -> bool:
    """Tell whether an image is grey of 16 bits; older versions of Pillow read such a PNG to 32."""
    return image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM"))


def is_grey(image: Image.Image, background: tuple[int, int, int]) -> bool:
    """Tell whether an image has shades of grey alone, by its mode and its palette."""
    if has_alpha(image) and len(set(background)) > 1:
        return False
    if image.mode in ("P", "PA"):
        palette = np.array(image.getpalette("RGB") or [0, 0, 0]).reshape(-1, 3)
        return bool((palette == palette[:, :1]).all())
    return image.mode in ("1", "L", "LA", "La") or is_deep(image)


def upright_size(image: Image.Image) -> tuple[int, int]:
    """Return height and width of an image once it is turned as its EXIF says."""
    w, h = image.size
    # a TIFF has its upright size already
    return (w, h) if image.format != "TIFF" and _orientation(image) >= 5 else (h, w)


def _orientation(image: Image.Image) -> int:
    """Return the orientation of EXIF, 1 for none."""
    if not {"exif", "Raw profile type exif"} & image.info.keys():  # else Pillow would decode a PNG to look for it
        return 1
    try:
        return int(image.getexif().get(ORIENTATION, 1))
    except Exception:  # damaged EXIF spoils no pixels
        return 1


def differ(source: Source, row: int, size: tuple[int, int], side: tuple[int, int]) -> SettingError:
    """Return the error for an image of another size (H, W) than the others."""
    sizes = f"{source.where(row)} has {size[0]} x {size[1]} pixels, others {side[0]} x {side[1]}"
    return SettingError("data.resolution", None, f"images of one size; {sizes}", HINT)


@dataclass(frozen=True)
class Decoder:
    """How images become arrays of one size.

    Args:
        resolution: pixels per side after the shorter side is resized to it and the centre is cropped; None keeps sizes.
        background: red, green and blue under transparent pixels.
    """

    resolution: int | None = None
    background: tuple[int, int, int] = (255, 255, 255)

    def __post_init__(self) -> None:
        most = math.isqrt(LARGEST_PIXELS)
        if self.resolution is not None and self.resolution > most:
            raise SettingError("data.resolution", self.resolution, f"at most {most}", "use the size of the images")

    def side(self, source: Source, row: int, image: Image.Image) -> tuple[int, int]:
        """Return the height and width of a set whose first image is this one."""
        if self.resolution:
            return self.resolution, self.resolution
        h, w = upright_size(image)
        if h != w:
            where = f"square images; {source.where(row)} has {h} x {w} pixels"
            raise SettingError("data.resolution", None, where, HINT)
        return h, w

    def channels(self, image: Image.Image) -> int:
        """Return the channels of a set whose first image is this one."""
        return 1 if is_grey(image, self.background) else 3

    def check(self, source: Source, row: int, image: Image.Image, shape: Shape | None) -> None:
        """Raise SettingError for an image that would be destroyed by the conversion to ``shape``, or is too large."""
        if image.mode in ("I", "F") and not is_deep(image):
            expected = f"images of 8 or 16 bits; this one has mode {image.mode}"
            raise SettingError(source.field, source.where(row), expected, "convert it to 8 bits")
        if shape and shape[2] == 1 and not is_grey(image, self.background):
            expected = "greyscale images, like the training images"
            raise SettingError(source.field, source.where(row), expected, "convert the images to one kind")
        if self.resolution:
            check_strip(source.field, source.where(row), upright_size(image), self.resolution)

    def array(self, source: Source, row: int, image: Image.Image, shape: Shape) -> NDArray[np.uint8]:
        """Turn a decoded image into (H, W, C) of the given shape; greyscale is repeated over three channels."""
        self.check(source, row, image, shape)
        grey = is_grey(image, self.background)
        try:
            image = self._plain(image, "L" if grey else "RGB")
        except Exception as error:  # of modes that Pillow cannot convert
            raise unreadable(source, row, error) from error
        if self.resolution and image.size != (self.resolution, self.resolution):
            h, w = resized(image.size[::-1], self.resolution)
            image = image.resize((w, h), Image.Resampling.BICUBIC)
            top = round((h - self.resolution) / 2)
            left = round((w - self.resolution) / 2)
            image = image.crop((left, top, left + self.resolution, top + self.resolution))
        array = np.asarray(image)
        if array.shape[:2] != shape[:2]:
            raise differ(source, row, image.size[::-1], shape[:2])
        return np.broadcast_to(array[..., None], shape) if grey else array

    def _plain(self, image: Image.Image, mode: str) -> Image.Image:
        """Turn an image upright, put it onto the background and convert it to ``mode``."""
        turn = TURNS.get(_orientation(image))
        if is_deep(image):
            values = np.asarray(image).astype(np.int64)
            image = Image.fromarray(((values * 255 + 32767) // 65535).clip(0, 255).astype(np.uint8))
        elif has_alpha(image):
            ground = Image.new("RGBA", image.size, (*self.background, 255))
            ground.alpha_composite(image.convert("RGBA"))
            image = ground
        if turn is not None:
            image = image.transpose(turn)
        return image if image.mode == mode else image.convert(mode)  # a conversion to the same mode would copy


def check_strip(what: str, where: str, size: tuple[int, int], resolution: int) -> None:
    """Raise SettingError for an image (H, W) that is so long that its resized copy would not fit into memory."""
    h, w = resized(size, resolution)
    if h * w > LARGEST_PIXELS:
        found = f"{where}: {size[0]} x {size[1]} pixels, {h} x {w} once the shorter side has {resolution}"
        raise SettingError(what, found, "images that are no strips", "crop it, leave it out, or lower data.resolution")


def resized(size: tuple[int, int], resolution: int) -> tuple[int, int]:
    """Return the height and width at which the shorter side is ``resolution``."""
    h, w = size
    short = min(h, w)
    return max(resolution, round(h * resolution / short)), max(resolution, round(w * resolution / short))
