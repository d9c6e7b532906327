"""The image formats that are read: those that Pillow decodes in this process."""

from __future__ import annotations

import os
from functools import cache

from PIL import Image

# Left out: EPS (starts ghostscript) and WMF (calls the operating system), IPTC (opens what it holds as any format),
# FITS (unpacks gzip of any size), and BUFR, GRIB, HDF5 and MPEG, which Pillow recognises but cannot decode.
FORMATS = (
    "JPEG",
    "PNG",
    "WEBP",
    "TIFF",
    "BMP",
    "GIF",
    "PPM",
    "JPEG2000",
    "AVIF",
    "QOI",
    "DIB",
    "ICO",
    "ICNS",
    "CUR",
    "PCX",
    "DCX",
    "PSD",
    "DDS",
    "SGI",
    "SUN",
    "MSP",
    "XBM",
    "XPM",
    "FLI",
    "BLP",
    "FTEX",
    "GBR",
    "MCIDAS",
    "PIXAR",
    "IM",
    "IMT",
    "PCD",
    "SPIDER",
    "XVTHUMB",
    "TGA",  # last: it has no mark of its own at the beginning
)


@cache
def formats() -> tuple[str, ...]:
    """Return those of `FORMATS` that this build of Pillow knows."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


@cache
def suffixes() -> frozenset[str]:
    """Return the suffixes of image files, in lower case with their dot."""
    known = set(formats())
    return frozenset(suffix for suffix, name in Image.registered_extensions().items() if name in known)


def is_image_name(name: str) -> bool:
    """Tell by its suffix, in any case, whether a file is an image."""
    return os.path.splitext(name)[1].lower() in suffixes()


def is_hidden(name: str) -> bool:
    """Tell whether a file or folder is hidden, or was added by an archiver of macOS."""
    return name.startswith(".") or name == "__MACOSX"
