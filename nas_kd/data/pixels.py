"""Decoded pixels: all in memory, or decoded at every fetch."""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from nas_kd.data.duplicates import Keys
from nas_kd.data.image import (
    HINT,
    TRAILERS,
    Decoder,
    Seen,
    Shape,
    check_strip,
    differ,
    header,
    load,
    read,
    resized,
    upright_size,
)
from nas_kd.data.source import ArraySource, Source
from nas_kd.errors import SettingError

KEY = 16  # bytes of the hash of an image


class Pixels(Protocol):
    """Images of one size."""

    shape: Shape

    @property
    def place(self) -> torch.device:
        """Device on which row numbers are expected."""

    def fetch(self, rows: Tensor) -> Tensor:
        """Return the images of ``rows`` (B,): (B, H, W, C) uint8."""

    def resident(self, rows: Tensor, device: torch.device) -> Pixels | None:
        """Return the images of ``rows``, in order, on a device; None if they do not fit."""

    def digest(self) -> bytes:
        """Hash the pixels, or the files that hold them."""

    def keys(self) -> Keys:
        """Hash each image: equal for equal pixels, or for files of equal bytes where images are not kept decoded."""


class MemoryPixels:
    """Images decoded once, (N, H, W, C) uint8, on the device of the batches."""

    def __init__(self, pixels: Tensor) -> None:
        self._pixels = pixels
        self.shape: Shape = (pixels.shape[1], pixels.shape[2], pixels.shape[3])

    @property
    def place(self) -> torch.device:
        return self._pixels.device

    def fetch(self, rows: Tensor) -> Tensor:
        return self._pixels.index_select(0, rows.to(self._pixels.device))

    def resident(self, rows: Tensor, device: torch.device) -> MemoryPixels | None:
        """See `Pixels`; half of a GPU's free memory is left for training."""
        bytes_ = len(rows) * self._pixels[0].numel()
        if device.type == "cuda" and 2 * bytes_ > torch.cuda.mem_get_info(device)[0]:
            return None
        return MemoryPixels(self.fetch(rows).to(device))

    def digest(self) -> bytes:
        return hashlib.sha256(self._pixels.cpu().numpy().reshape(-1).data).digest()

    def keys(self) -> Keys:
        return np.array([_key(image.data) for image in self._pixels.cpu().numpy()])


class LazyPixels:
    """Images decoded whenever they are fetched, for data sets that do not fit into memory."""

    def __init__(
        self,
        source: Source,
        rows: NDArray[np.int64],
        shape: Shape,
        decoder: Decoder,
        content: bytes,
        keys: Keys,
        device: str,
    ) -> None:
        self.shape = shape
        self._source = source
        self._rows = rows
        self._decoder = decoder
        self._content = content
        self._keys = keys
        self._device = device

    @property
    def place(self) -> torch.device:
        return torch.device("cpu")

    def resident(self, rows: Tensor, device: torch.device) -> None:
        """Return None: nothing is kept decoded."""

    def fetch(self, rows: Tensor) -> Tensor:
        out = np.empty((len(rows), *self.shape), dtype=np.uint8)

        def put(job: tuple[int, int]) -> None:
            place, row = job
            image = load(self._source, row)
            out[place] = self._decoder.array(self._source, row, image, self.shape)

        jobs = list(enumerate(self._rows[rows.cpu().numpy()].tolist()))
        threads = min(torch.get_num_threads(), os.cpu_count() or 1)
        if threads > 1 and len(jobs) > 1:
            with ThreadPoolExecutor(threads) as pool:
                list(pool.map(put, jobs))
        else:
            for job in jobs:
                put(job)
        return torch.from_numpy(out).to(self._device)

    def digest(self) -> bytes:
        return hashlib.sha256(repr((self.shape, self._content)).encode()).digest()

    def keys(self) -> Keys:
        return self._keys


class Part(NamedTuple):
    """The selected images of one source."""

    source: Source
    rows: NDArray[np.int64]


def decode(parts: list[Part], decoder: Decoder, memory_gib: float, device: str) -> tuple[list[Pixels], Seen]:
    """Decode all parts to one size and one number of channels.

    The result is greyscale (one channel) if every image is.

    Args:
        parts: the images; the first part determines size and channels.
        decoder: without a resolution all images must have the size of the first.
        memory_gib: decode once if all parts together take at most this much memory.

    Returns:
        The pixels of each part, and what was seen of the images.

    Raises:
        SettingError: an image is unreadable, sizes differ without a resolution, or channels differ.
    """
    done: list[Pixels] = []
    seen = Seen()
    shape: Shape | None = None
    total = sum(len(part.rows) for part in parts)
    for part in parts:
        source = part.source
        if isinstance(source, ArraySource):
            pixels = _from_arrays(part, source, decoder.resolution, shape).to(device)
            done.append(MemoryPixels(pixels))
        else:
            first = int(part.rows[0])
            size = (
                (decoder.resolution,) * 2 if decoder.resolution else decoder.side(source, first, header(source, first))
            )
            if total * size[0] * size[1] * 3 <= memory_gib * 2**30:
                pixels = torch.from_numpy(_decode_part(part, decoder, shape, seen))
                done.append(MemoryPixels(pixels.to(device)))
            else:
                done.append(_scan_part(part, decoder, shape, device, seen))
        shape = done[-1].shape if shape is None else shape
    return done, seen


def _from_arrays(part: Part, source: ArraySource, resolution: int | None, shape: Shape | None) -> Tensor:
    x = source.pixels[torch.from_numpy(part.rows)]
    if resolution and tuple(x.shape[2:]) != (resolution, resolution):
        check_strip(source.field, source.origin, (x.shape[2], x.shape[3]), resolution)
        h, w = resized((x.shape[2], x.shape[3]), resolution)
        # torch resizes uint8 in integers, as PIL does
        x = torch.nn.functional.interpolate(x, (h, w), mode="bicubic", antialias=True)
        top = round((h - resolution) / 2)
        left = round((w - resolution) / 2)
        x = x[:, :, top : top + resolution, left : left + resolution]
    found: Shape = (x.shape[2], x.shape[3], x.shape[1])
    if shape and found[2] == 1 and shape[2] == 3:
        x = x.expand(-1, 3, -1, -1)
        found = (*found[:2], 3)
    if found[0] != found[1]:
        raise SettingError("data.resolution", None, f"square images; these are {found[0]} x {found[1]}", HINT)
    if shape and found != shape:
        raise SettingError(source.field, f"{found} pixels (H, W, C)", f"{shape}, like the training images", HINT)
    return x.permute(0, 2, 3, 1).contiguous()


def _decode_part(part: Part, decoder: Decoder, shape: Shape | None, seen: Seen) -> NDArray[np.uint8]:
    """Decode to (N, H, W, C); C becomes 3 at the first colour image if no shape is given."""
    source, rows = part
    buffer: NDArray[np.uint8] | None = None
    for place, row in enumerate(rows.tolist()):
        image = header(source, row)
        decoder.check(source, row, image, shape)  # before memory is taken for its pixels
        image = load(source, row, image)
        seen.add(image, upright_size(image))
        if buffer is None:
            size = shape or (*decoder.side(source, row, image), decoder.channels(image))
            buffer = np.empty((len(rows), *size), dtype=np.uint8)
        elif shape is None and buffer.shape[-1] == 1 and decoder.channels(image) == 3:
            buffer = np.repeat(buffer, 3, axis=-1)
        buffer[place] = decoder.array(source, row, image, buffer.shape[1:])
    assert buffer is not None  # the split rejects parts without images
    return buffer


def _scan_part(part: Part, decoder: Decoder, shape: Shape | None, device: str, seen: Seen) -> LazyPixels:
    """Read the header and the hash of every file; decode only those that seem to be incomplete.

    A truncated test image would otherwise be found only after the last training, when the test set is first used.
    """
    source, rows = part
    content = hashlib.blake2b(digest_size=32)
    keys = []
    side: tuple[int, int] | None = shape[:2] if shape else None
    grey = True
    for row in rows.tolist():
        stream = read(source, row)
        image = header(source, row, stream)
        decoder.check(source, row, image, shape)
        size = upright_size(image)
        if decoder.resolution is None and side is not None and size != side:
            raise differ(source, row, size, side)
        side = side or decoder.side(source, row, image)
        grey = grey and decoder.channels(image) == 1
        seen.add(image, size)
        if isinstance(stream, Image.Image):
            load(source, row, image)
            content.update(repr((image.mode, image.size, image.getpalette())).encode())
            content.update(image.tobytes())
            keys.append(_key(repr((image.mode, image.getpalette())).encode(), image.tobytes()))
        else:
            stream.seek(0)
            raw = stream.read()
            content.update(len(raw).to_bytes(8, "little"))  # else bytes could move between files unnoticed
            content.update(raw)
            keys.append(_key(raw))
            end = TRAILERS.get(image.format or "")
            if end is None or not raw.endswith(end):
                load(source, row)
    assert side is not None
    shape = shape or (*side, 1 if grey else 3)
    return LazyPixels(source, rows, shape, decoder, content.digest(), np.array(keys), device)


def _key(*parts: bytes | memoryview) -> bytes:
    state = hashlib.blake2b(digest_size=KEY)
    for part in parts:
        state.update(part)
    return state.hexdigest().encode()  # numpy would drop zeros at the end of raw bytes
