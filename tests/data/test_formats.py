"""Formats and modes of images against pixels that were written down; nothing is started, nothing drowns the memory."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from nas_kd.data import Data, load_data
from nas_kd.data.formats import FORMATS, formats, suffixes
from nas_kd.errors import SettingError

SIDE, COUNT = 12, 6
SETTINGS: dict[str, Any] = {"rate": 0, "select": 0, "pad": 0, "views": 1, "flip": False}


def noise(number: int, channels: int = 3) -> NDArray[np.uint8]:
    shape = (SIDE, SIDE, channels) if channels > 1 else (SIDE, SIDE)
    return np.random.default_rng(number).integers(0, 256, shape, dtype=np.uint8)


def folder(root: Path, channels: int = 3, suffix: str = ".png") -> Path:
    """Write two classes of six images."""
    for label, name in enumerate(("ash", "yew")):
        (root / name).mkdir(parents=True)
        for number in range(COUNT):
            Image.fromarray(noise(10 * label + number, channels)).save(root / name / f"{number}{suffix}")
    return root


def pixels(data: Data, name: str) -> NDArray[np.int64]:
    """Return an image (H, W, C) as it is kept."""
    for split in data.splits:
        if name in split.names:
            batch = next(split.clean(1000)).x[split.names.index(name)]
            mean, std = (torch.tensor(part)[:, None, None] for part in (data.mean, data.std))
            return ((batch * std + mean) * 255).round().long().permute(1, 2, 0).numpy()
    raise AssertionError(name)


def writable() -> dict[str, str]:
    """Return the formats that Pillow writes, and a suffix of each."""
    Image.init()
    named = {name: suffix for suffix, name in reversed(Image.registered_extensions().items())}
    return {name: named[name] for name in formats() if name in Image.SAVE and name in named}


@pytest.mark.parametrize("kind", list(writable()))
@pytest.mark.parametrize("memory_gib", [4.0, 0.0])
def test_every_format_that_pillow_writes_is_read(tmp_path: Path, kind: str, memory_gib: float) -> None:
    suffix = writable()[kind]
    mode = {"MSP": "1", "XBM": "1", "BLP": "P"}.get(kind, "RGB")
    root = folder(tmp_path / "set", 1 if mode == "1" else 3)
    (root / "yew/3.png").unlink()
    image = Image.fromarray(noise(13, 1 if mode == "1" else 3)).convert(mode)
    sizes = {"sizes": [image.size]} if kind == "ICO" else {}  # the usual ones are larger, and some versions write none
    image.save(root / f"yew/3{suffix.upper()}", format=kind, **sizes)
    data = load_data(root, memory_gib=memory_gib, resolution=SIDE, **SETTINGS)
    expected = np.asarray(Image.open(root / f"yew/3{suffix.upper()}").convert("RGB" if data.in_chans == 3 else "L"))
    assert data.in_chans == (1 if mode == "1" else 3)
    if kind not in ("ICO", "ICNS"):  # which hold an image in several sizes
        assert np.array_equal(pixels(data, f"yew/3{suffix.upper()}").squeeze(), expected)


def test_formats_start_no_program_and_open_no_other_format() -> None:
    assert not {"EPS", "WMF", "IPTC", "FITS"} & set(FORMATS) and not {".eps", ".ps", ".wmf"} & suffixes()
    assert {"JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "PPM"} <= set(formats())
    assert {".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif", ".pgm", ".ppm"} <= suffixes()


@pytest.mark.parametrize("memory_gib", [4.0, 0.0])
def test_postscript_by_the_name_of_a_png_is_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, memory_gib: float
) -> None:
    root = folder(tmp_path / "set")
    Image.fromarray(noise(3)).save(root / "ash/3.png", format="EPS")
    (root / "ash/9.eps").write_bytes((root / "ash/3.png").read_bytes())

    def started(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("a program was started")

    monkeypatch.setattr(subprocess, "Popen", started)
    monkeypatch.setattr(os, "system", started)
    with pytest.raises(SettingError, match=r"ash/3\.png.*readable images.*no format that is read here"):
        load_data(root, memory_gib=memory_gib, **SETTINGS)
    data = load_data(root, memory_gib=memory_gib, unreadable="skip", **SETTINGS)
    assert data.unreadable == (("ash/3.png", 0),)
    assert dict(data.found.ignored) == {"no image by its name (.eps)": 1}


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("memory_gib", [4.0, 0.0])
def test_images_are_turned_as_their_exif_says(tmp_path: Path, kind: str, memory_gib: float) -> None:
    root = folder(tmp_path / "set")
    upright = np.zeros((SIDE, SIDE, 3), dtype=np.uint8)
    upright[: SIDE // 2, : SIDE // 2] = 255  # white in the top left corner
    # what a camera stores so that the orientation makes it upright again: EXIF 2.3, table of tag 0x0112
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }
    for orientation, array in stored.items():
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.fromarray(np.ascontiguousarray(array)).save(root / f"ash/turn{orientation}.png", kind, exif=exif)
    data = load_data(root, memory_gib=memory_gib, **SETTINGS)
    for orientation in stored:
        found = pixels(data, f"ash/turn{orientation}.png")
        assert np.abs(found - upright).max() < 60, orientation  # JPEG and WEBP lose a little


@pytest.mark.parametrize("memory_gib", [4.0, 0.0])
def test_a_turned_image_has_its_upright_size(tmp_path: Path, memory_gib: float) -> None:
    root = folder(tmp_path / "set")
    exif = Image.Exif()
    exif[0x0112] = 6
    wide = np.random.default_rng(0).integers(0, 256, (20, 40, 3), dtype=np.uint8)
    Image.fromarray(wide).save(root / "ash/photo.png", exif=exif)
    data = load_data(root, resolution=20, memory_gib=memory_gib, **SETTINGS)
    expected = np.rot90(wide, -1)[10:30]  # 40 high and 20 wide: the centre of the height
    assert np.array_equal(pixels(data, "ash/photo.png"), expected)
    assert ((40, 20), 1) in data.found.sizes and ("turned as their EXIF says", 1) in data.found.traits
    with pytest.raises(SettingError, match=r"ash/photo\.png has 40 x 20 pixels, others 12 x 12"):
        load_data(root, memory_gib=memory_gib, **SETTINGS)


@pytest.mark.parametrize(("background", "shade"), [("white", 255), ("black", 0), ("#808080", 128)])
def test_transparent_pixels_show_the_background(tmp_path: Path, background: str, shade: int) -> None:
    root = folder(tmp_path / "set")
    drawing = np.zeros((SIDE, SIDE, 4), dtype=np.uint8)  # a black square on transparent black, as many tools write
    drawing[4:8, 4:8, 3] = 255
    drawing[0, 0, 3] = 51  # a fifth
    Image.fromarray(drawing).save(root / "ash/icon.png")
    found = pixels(load_data(root, background=background, **SETTINGS), "ash/icon.png")
    expected = np.full((SIDE, SIDE, 3), shade)
    expected[4:8, 4:8] = 0
    expected[0, 0] = round(shade * 0.8)
    assert np.abs(found - expected).max() <= 1 and np.array_equal(found[1:], expected[1:])
    with pytest.raises(SettingError, match=r"data\.background='whit'.*a colour such as white"):
        load_data(root, background="whit", **SETTINGS)


def grey_variants() -> dict[str, tuple[Image.Image, NDArray[np.int64]]]:
    """Return grey images in other modes than L, and what they are."""
    grey = noise(99, 1)
    image = Image.fromarray(grey)
    deep = (grey.astype(np.uint16) * 257) ^ 3  # one value in 257 is nearest to each shade
    half = Image.merge("LA", (image, Image.new("L", image.size, 0)))
    return {
        "palette": (image.convert("P"), grey.astype(np.int64)),
        "LA": (image.convert("LA"), grey.astype(np.int64)),
        "transparent": (half, np.full((SIDE, SIDE), 255)),
        "1 bit": (image.convert("1"), np.asarray(image.convert("1")).astype(np.int64) * 255),
        "16 bits": (Image.fromarray(deep), grey.astype(np.int64)),
    }


@pytest.mark.parametrize("name", list(grey_variants()))
@pytest.mark.parametrize("memory_gib", [4.0, 0.0])
def test_grey_images_in_other_modes_leave_a_grey_set_grey(tmp_path: Path, name: str, memory_gib: float) -> None:
    root = folder(tmp_path / "set", 1)
    image, expected = grey_variants()[name]
    image.save(root / "ash/odd.png")
    data = load_data(root, memory_gib=memory_gib, **SETTINGS)
    assert data.in_chans == 1
    assert np.array_equal(pixels(data, "ash/odd.png")[..., 0], expected)


def test_a_palette_of_colours_and_a_colour_image_make_the_set_colour(tmp_path: Path) -> None:
    root = folder(tmp_path / "set", 1)
    Image.fromarray(noise(5)).convert("P").save(root / "ash/odd.png")
    data = load_data(root, **SETTINGS)
    assert data.in_chans == 3 and dict(data.found.modes) == {"L": 12, "P": 1}
    grey = pixels(data, "ash/0.png")
    assert (grey == grey[..., :1]).all() and np.array_equal(grey[..., 0], noise(0, 1))
    expected = np.asarray(Image.fromarray(noise(5)).convert("P").convert("RGB"))
    assert np.array_equal(pixels(data, "ash/odd.png"), expected)


def test_print_colours_are_shown_as_those_of_a_screen(tmp_path: Path) -> None:
    root = folder(tmp_path / "set")
    inks = Image.fromarray(noise(7)).convert("CMYK")
    inks.save(root / "ash/odd.tif")
    found = pixels(load_data(root, **SETTINGS), "ash/odd.tif")
    cyan, magenta, yellow, black = np.moveaxis(np.asarray(inks).astype(float), 2, 0)
    expected = np.stack([(255 - ink) * (255 - black) / 255 for ink in (cyan, magenta, yellow)], axis=2)
    assert np.abs(found - expected).max() <= 1


def test_a_colour_behind_transparent_grey_is_colour(tmp_path: Path) -> None:
    root = folder(tmp_path / "set", 1)
    grey_variants()["transparent"][0].save(root / "ash/odd.png")
    data = load_data(root, background="red", **SETTINGS)
    assert data.in_chans == 3 and (pixels(data, "ash/odd.png") == [255, 0, 0]).all()


def png(width: int, height: int) -> bytes:
    """Return a PNG that says it has so many grey pixels and holds few."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


@pytest.mark.parametrize("memory_gib", [4.0, 0.0])
@pytest.mark.parametrize("size", [(1, 60_000), (60_000, 1)])
def test_a_strip_is_refused_before_it_is_resized(tmp_path: Path, memory_gib: float, size: tuple[int, int]) -> None:
    root = folder(tmp_path / "set")
    (root / "ash/9.png").write_bytes(png(*size))
    with pytest.raises(SettingError, match=r"ash/9\.png: .*images that are no strips.*lower data\.resolution"):
        load_data(root, resolution=224, memory_gib=memory_gib, **SETTINGS)
    with pytest.raises(SettingError, match="no strips"):  # tensors as well
        x = torch.zeros(8, 1, *size, dtype=torch.uint8)
        load_data((x, torch.arange(8) % 2), resolution=224, **SETTINGS)
    with pytest.raises(SettingError, match=r"data\.resolution=100000.*at most 8192"):
        load_data(root, resolution=100_000, **SETTINGS)


def test_whatever_a_decoder_raises_is_an_unreadable_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = folder(tmp_path / "set")
    from PIL import PngImagePlugin

    whole = PngImagePlugin.PngImageFile.load
    bad = (root / "ash/3.png").read_bytes()

    for kind in (IndexError, KeyError, MemoryError, RuntimeError, AttributeError, ZeroDivisionError, OverflowError):

        def failing(image: Any, kind: type[Exception] = kind) -> Any:
            if image.fp and image.fp.getvalue() == bad:
                raise kind("from deep inside")
            return whole(image)

        monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", failing)
        with pytest.raises(SettingError, match=r"ash/3\.png.*readable images"):
            load_data(root, **SETTINGS)
        assert load_data(root, unreadable="skip", **SETTINGS).unreadable == (("ash/3.png", 0),)


def test_damaged_exif_spoils_no_image(tmp_path: Path) -> None:
    root = folder(tmp_path / "set")
    stream = io.BytesIO()
    Image.fromarray(noise(3)).save(stream, "PNG", exif=b"Exif\x00\x00MM\x00*\xff\xff\xff\xff")
    (root / "ash/3.png").write_bytes(stream.getvalue())
    assert np.array_equal(pixels(load_data(root, **SETTINGS), "ash/3.png"), noise(3))
