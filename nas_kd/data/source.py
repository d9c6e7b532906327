"""Named, labelled images that are not decoded yet."""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Callable
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from nas_kd.data.config import Kind

LARGEST = 2**28  # bytes of an image file; a sparse file or tar member may claim terabytes


class Source:
    """Named, labelled images.

    Args:
        field: the setting that named this source, for messages.
        origin: the value of that setting.
        names: one per image, independent of how the data set is packed.
        labels: (N,) class numbers, or (N, L) float32; see `nas_kd.data.labels.Labels`.
        classes: names of the classes, or of the columns of labels.
        kind: what labels are.
    """

    def __init__(
        self,
        field: str,
        origin: str,
        names: list[str],
        labels: NDArray[Any],
        classes: tuple[str, ...],
        kind: Kind = "classes",
    ) -> None:
        self.field = field
        self.origin = origin
        self.names = names
        self.labels = labels
        self.classes = classes
        self.kind: Kind = kind

    def __len__(self) -> int:
        return len(self.names)

    def where(self, i: int) -> str:
        """Return where a user finds image i."""
        return f"{self.origin}: {self.names[i]}"

    def stream(self, i: int) -> IO[bytes] | Image.Image:
        """Open image i without reading its pixels."""
        raise NotImplementedError

    def load(self, i: int) -> IO[bytes] | Image.Image:
        """Read image i's bytes; safe to call from several threads."""
        return self.stream(i)


class ArraySource(Source):
    """Images in memory, (N, C, H, W) uint8."""

    def __init__(self, pixels: Tensor, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.pixels = pixels


class Subset(Source):
    """Some of the images of a source."""

    def __init__(self, source: Source, rows: NDArray[np.int64]) -> None:
        names = [source.names[row] for row in rows.tolist()]
        super().__init__(source.field, source.origin, names, source.labels[rows], source.classes, source.kind)
        self._source = source
        self._rows = rows

    def __reduce__(self) -> tuple[Callable[..., Source], tuple[Any, ...]]:
        return Subset, (self._source, self._rows)

    def stream(self, i: int) -> IO[bytes] | Image.Image:
        return self._source.stream(int(self._rows[i]))

    def load(self, i: int) -> IO[bytes] | Image.Image:
        return self._source.load(int(self._rows[i]))


class FileSource(Source):
    """Images behind open files and locks, which cannot be pickled: another process reopens the source."""

    def __init__(self, *args: Any, reopen: tuple[Callable[..., Source], tuple[Any, ...]]) -> None:
        super().__init__(*args)
        self._reopen = reopen

    def __reduce__(self) -> tuple[Callable[..., Source], tuple[Any, ...]]:
        return self._reopen


class ReaderSource(FileSource):
    """Images behind a timm reader.

    timm's own data set replaces an unreadable image by the next one, so its reader is used directly and the
    image is reported.
    """

    def __init__(self, reader: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._reader = reader
        self._lock = threading.Lock()

    def stream(self, i: int) -> IO[bytes]:
        stream: IO[bytes] = self._reader[i][0]
        return stream

    def load(self, i: int) -> IO[bytes]:
        with self._lock, self.stream(i) as stream:  # a tar has one file position for all its members
            if stream.seek(0, os.SEEK_END) > LARGEST:
                raise OSError(f"it has more than {LARGEST:,} bytes")
            stream.seek(0)
            return io.BytesIO(stream.read())


class VisionSource(FileSource):
    """Images behind a torchvision data set."""

    def __init__(self, dataset: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._dataset = dataset

    def stream(self, i: int) -> Image.Image:
        image: Image.Image = self._dataset[i][0]
        return image
