"""Makes folders and tars that are no data sets: each function writes one below a folder and returns its path."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import random
import struct
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

Maker = Callable[[Path], Path]
COUNT = 6  # images a class: enough for all splits


def png(number: int, size: tuple[int, int] = (8, 8)) -> bytes:
    """Return a grey image, (H, W)."""
    buffer = io.BytesIO()
    pixels = np.random.default_rng(number).integers(0, 256, size, dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def jpeg(number: int) -> bytes:
    """Return the same as JPEG."""
    buffer = io.BytesIO()
    Image.open(io.BytesIO(png(number))).save(buffer, "JPEG")
    return buffer.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    """Return a chunk of a PNG file."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def bomb(width: int, height: int | None = None) -> bytes:
    """Return a small PNG file that says it has so many pixels; as high as it is wide unless said."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height or width, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(100_000))) + chunk(b"IEND", b"")


def good(folder: Path, classes: tuple[str, ...] = ("ash", "yew"), count: int = COUNT) -> Path:
    """Write a sound data set."""
    for label, name in enumerate(classes):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            (folder / name / f"{number}.png").write_bytes(png(100 * label + number))
    return folder


def _with(name: str, content: bytes) -> Maker:
    """One image of a sound set is replaced."""

    def make(folder: Path) -> Path:
        (good(folder) / "yew" / "3.png").unlink()
        (folder / "yew" / name).write_bytes(content)
        return folder

    return make


def _changed(change: Callable[[Path], object]) -> Maker:
    def make(folder: Path) -> Path:
        change(good(folder))
        return folder

    return make


def _built(build: Callable[[Path], object]) -> Maker:
    def make(folder: Path) -> Path:
        folder.mkdir(parents=True)
        build(folder)
        return folder

    return make


def _zeros(path: Path, size: int) -> None:
    """Write a file of zeros that take no place."""
    path.write_bytes(b"")
    os.truncate(path, size)


def _deep() -> bytes:
    """Return an image of 32 bits a pixel."""
    buffer = io.BytesIO()
    Image.fromarray(np.full((8, 8), 0.5, np.float32)).save(buffer, "TIFF")
    return buffer.getvalue()


FOLDERS: dict[str, Maker] = {
    "empty": _built(lambda p: None),
    "only a text": _built(lambda p: (p / "a.txt").write_text("a")),
    "only images": _built(lambda p: (p / "1.png").write_bytes(png(1))),
    "only hidden": _built(lambda p: good(p / ".git")),
    "empty classes": _built(lambda p: [(p / name).mkdir() for name in "ab"]),
    "deep and empty": _built(lambda p: (p / "a/b/c/d").mkdir(parents=True)),
    "texts in classes": _built(lambda p: [good(p / "x"), (p / "y").mkdir(), (p / "y/1.txt").write_text("")]),
    "one class": lambda p: good(p, ("ash",)),
    "tars of classes": _built(lambda p: [(p / f"{name}.tar").write_bytes(bytes(10240)) for name in "ab"]),
    "zips of classes": _built(lambda p: [(p / f"{name}.zip").write_bytes(b"PK") for name in "ab"]),
    **{f"{n} images a class": (lambda p, n=n: good(p, count=n)) for n in (1, 2, 3)},  # type: ignore[misc]
    "one class of one": _changed(lambda p: [(p / "yew" / f"{n}.png").unlink() for n in range(1, COUNT)]),
    "an empty class more": _changed(lambda p: (p / "zzz").mkdir()),
    "images beside classes": _changed(lambda p: (p / "1.png").write_bytes(png(1))),
    "a folder as image": _changed(lambda p: [(p / "zzz").mkdir(), (p / "zzz/1.png").mkdir()]),
    "a link to itself": _changed(lambda p: (p / "yew/again").symlink_to(p)),
    "links to themselves": _changed(lambda p: [(p / "yew" / f"again{n}").symlink_to(p / "yew") for n in range(9)]),
    "a link to nothing": _changed(lambda p: (p / "yew/9.png").symlink_to(p / "nothing.png")),
    "a link in a ring": _changed(lambda p: (p / "yew/9.png").symlink_to(p / "yew/9.png")),
    "a pipe": _changed(lambda p: os.mkfifo(p / "yew/9.png")),
    "a device": _changed(lambda p: (p / "yew/9.png").symlink_to("/dev/zero")),
    "no bytes": _with("3.png", b""),
    "zeros": _with("3.png", bytes(1000)),
    "random": _with("3.png", random.Random(0).randbytes(500)),
    "a text": _with("3.png", b"not an image"),
    "a page": _with("3.png", b"<html><script>alert(1)</script></html>"),
    "a pickle": _with("3.png", b"\x80\x04\x95\x1d\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94\x8c\x06system"),
    **{f"PNG cut at {share} %": _with("3.png", png(3)[: len(png(3)) * share // 100]) for share in (8, 30, 50, 70, 85)},
    **{f"JPEG cut at {share} %": _with("3.jpg", jpeg(3)[: len(jpeg(3)) * share // 100]) for share in (5, 30, 60, 90)},
    "PNG with a wrong sum": _with("3.png", png(3)[:30] + b"\xff" + png(3)[31:]),
    "PNG without pixels": _with("3.png", bomb(8)[:33] + chunk(b"IEND", b"")),
    "PNG of no size": _with("3.png", bomb(0)),
    "32 bits": _with("3.png", _deep()),
    "a strip": _with("3.png", bomb(1, 60_000)),
    "PostScript": _with("3.png", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n(PWNED) (w) file closefile\n"),
    "a bomb of 400 megapixels": _with("3.png", bomb(20_000)),
    "a bomb of 40 gigapixels": _with("3.png", bomb(200_000)),
    "a bomb of text": _with(
        "3.png", png(3)[:33] + chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(2**26), 1)) + png(3)[33:]
    ),
    "another size": _with("3.png", png(3, (9, 8))),
    "not square": _built(
        lambda p: [
            (good(p) / name / f"{n}.png").write_bytes(png(n, (8, 9))) for name in ("ash", "yew") for n in range(COUNT)
        ]
    ),
    "half a gigabyte of zeros": _changed(lambda p: _zeros(p / "yew/3.png", 2**29)),
    "a terabyte of zeros": _changed(lambda p: _zeros(p / "yew/3.png", 2**40)),
}


def tar_of(members: list[tuple[tarfile.TarInfo, bytes]]) -> bytes:
    """Return a tar."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for info, content in members:
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def member(
    name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE, link: str = ""
) -> tuple[tarfile.TarInfo, bytes]:
    """Return a member of a tar."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, len(content)
    return info, content


def sound(prefix: str = "", names: tuple[str, ...] = ("ash", "yew")) -> list[tuple[tarfile.TarInfo, bytes]]:
    """Return the members of a sound set."""
    return [member(f"{prefix}{name}/{n}.png", png(n)) for name in names for n in range(COUNT)]


def _header(**fields: bytes) -> bytes:
    """Return the header of an image member with some fields as given and the right sum."""
    block = bytearray(tarfile.TarInfo("ash/9.png").tobuf(tarfile.GNU_FORMAT)[:512])
    places = {"size": (124, 12), "type": (156, 1), "name": (0, 100), "link": (157, 100)}
    for name, value in fields.items():
        start, length = places[name]
        block[start : start + length] = value.ljust(length, b"\0")
    block[148:156] = b" " * 8
    block[148:156] = f"{sum(block):06o}\0 ".encode()
    return bytes(block)


def _nested(depth: int) -> bytes:
    content = tar_of(sound())
    for _ in range(depth):
        content = tar_of([member("in.tar", content)])
    return content


SOUND = tar_of(sound())
ENDED = SOUND[: -(len(SOUND) - sum(512 + -(-len(c) // 512) * 512 for _, c in sound()))]  # without the end's zeros
TARS: dict[str, bytes] = {
    "no bytes": b"",
    "zeros": bytes(10240),
    "random": random.Random(0).randbytes(10240),
    "a text": b"no tar at all" * 100,
    "an image": png(1),
    "gzip": gzip.compress(SOUND),
    "bzip2": bz2.compress(SOUND),
    "xz": lzma.compress(SOUND),
    "a zip": b"PK\x03\x04" + bytes(2000),
    **{f"cut at {at}": SOUND[:at] for at in (100, 511, 600, 700, 1500, 5000)},
    "no members": tar_of([]),
    "no images": tar_of([member("a/1.txt", b"a")]),
    "one class": tar_of(sound(names=("ash",))),
    "no classes": tar_of([member(f"{n}.png", png(n)) for n in range(9)]),
    "one image a class": tar_of(sound()[::COUNT]),
    "above": tar_of(sound("../")),
    "far above": tar_of(sound("../../../../../../tmp/")),
    "absolute": tar_of(sound("/tmp/PWNED/")),
    "above in between": tar_of(sound("a/../../")),
    "one above": tar_of([*sound(), member("../PWNED/1.png", png(1))]),
    "one absolute": tar_of([*sound(), member("/tmp/PWNED/1.png", png(1))]),
    "points alone": tar_of(sound("", ("..", "../.."))),
    "links out": tar_of([member(f"a/{n}.png", kind=tarfile.SYMTYPE, link="/etc/passwd") for n in range(9)]),
    "hard links out": tar_of([member(f"a/{n}.png", kind=tarfile.LNKTYPE, link="../../etc/passwd") for n in range(9)]),
    "devices": tar_of([member(f"a/{n}.png", kind=tarfile.CHRTYPE) for n in range(9)]),
    "pipes": tar_of([member(f"a/{n}.png", kind=tarfile.FIFOTYPE) for n in range(9)]),
    "folders": tar_of([member(f"a/{n}.png", kind=tarfile.DIRTYPE) for n in range(9)]),
    "an exabyte in a tar in it": tar_of(
        [member("in.tar", ENDED + _header(size=b"\x80" + (2**60).to_bytes(11, "big")))]
    ),
    "an exabyte": ENDED + _header(size=b"\x80" + (2**60).to_bytes(11, "big")) + bytes(1024),
    "a size below zero": ENDED + _header(size=b"\xff" * 12) + bytes(1024),
    "a long name without end": _header(type=b"L", size=b"77777777777") + bytes(2048),
    "a pax header without end": _header(type=b"x", size=b"77777777777") + bytes(2048),
    "a wrong sum": SOUND[:150] + b"9" + SOUND[151:],
    "a tar of tars of tars": _nested(3),
    "twenty tars deep": _nested(20),
    "a broken image": tar_of([*sound(), member("yew/9.png", png(9)[:60])]),
    "an empty image": tar_of([*sound(), member("yew/9.png")]),
    "a bomb": tar_of([*sound(), member("yew/9.png", bomb(50_000))]),
    "another size": tar_of([*sound(), member("yew/9.png", png(9, (8, 9)))]),
}
