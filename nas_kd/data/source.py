"""Named, labelled images that are not decoded yet."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Mapping
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
        groups: (N,) names of groups whose images stay in one split; None for none.
    """

    def __init__(
        self,
        field: str,
        origin: str,
        names: list[str],
        labels: NDArray[Any],
        classes: tuple[str, ...],
        kind: Kind = "classes",
        groups: NDArray[Any] | None = None,
    ) -> None:
        self.field = field
        self.origin = origin
        self.names = names
        self.labels = labels
        self.classes = classes
        self.kind: Kind = kind
        self.groups = groups

    def __len__(self) -> int:
        return len(self.names)

    def where(self, i: int) -> str:
        """Return where a user finds image i."""
        return f"{self.origin}: {self.names[i]}"

    def load(self, i: int) -> IO[bytes] | Image.Image:
        """Read image i's bytes, or its pixels where it is no file; safe to call from several threads."""
        raise NotImplementedError


ALONE = "alone "  # begins the name of the group of an image that has none


def parted_groups(sources: Mapping[str, Source]) -> dict[str, list[str]]:
    """Return the groups whose images are in several splits, with the splits.

    Args:
        sources: by split, those that are given apart.
    """
    splits: dict[str, list[str]] = {}
    for split, source in sources.items():
        if source.groups is None:
            continue
        own = set(source.names)  # an image outside of deeper folders is its own group
        for name in dict.fromkeys(map(str, source.groups.tolist())):
            if name not in own and not name.startswith(ALONE):
                splits.setdefault(name, []).append(split)
    return {name: found for name, found in splits.items() if len(found) > 1}


class ArraySource(Source):
    """Images in memory, (N, C, H, W) uint8."""

    def __init__(self, pixels: Tensor, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.pixels = pixels


class Subset(Source):
    """Some of the images of a source."""

    def __init__(self, source: Source, rows: NDArray[np.int64]) -> None:
        names = [source.names[row] for row in rows.tolist()]
        groups = None if source.groups is None else source.groups[rows]
        super().__init__(source.field, source.origin, names, source.labels[rows], source.classes, source.kind, groups)
        self._source = source
        self._rows = rows

    def where(self, i: int) -> str:
        """See `Source`."""
        return self._source.where(int(self._rows[i]))

    def load(self, i: int) -> IO[bytes] | Image.Image:
        return self._source.load(int(self._rows[i]))


class FileSource(Source):
    """Images that are files, or parts of files as the members of a tar are.

    Args:
        files: (N,) paths.
        spans: (N, 2) first byte and number of bytes of each image; None for whole files.
    """

    def __init__(self, files: list[str], spans: NDArray[np.int64] | None, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._files = files
        self._spans = spans

    def where(self, i: int) -> str:
        """See `Source`; of tars also the one that has it."""
        return super().where(i) if self._spans is None else f"{self._files[i]}: {self.names[i]}"

    def load(self, i: int) -> IO[bytes]:
        with open(self._files[i], "rb") as file:
            start, size = (0, os.fstat(file.fileno()).st_size) if self._spans is None else self._spans[i].tolist()
            if size > LARGEST:
                raise OSError(f"it has more than {LARGEST:,} bytes")
            file.seek(start)
            return io.BytesIO(file.read(size))


class TableSource(Source):
    """Images whose bytes are cells of a table.

    Args:
        cells: row to bytes, or to a dictionary of bytes and path as Hugging Face's data sets have it.
        rows: (N,) rows of the images.
        folder: where relative paths begin.
    """

    def __init__(
        self, cells: Callable[[int], Any], rows: NDArray[np.int64], folder: str, *args: Any, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self._cells = cells
        self._rows = rows
        self._folder = folder

    def where(self, i: int) -> str:
        """See `Source`; of tars also the one that has it."""
        home = getattr(self._cells, "home", None)
        return super().where(i) if home is None else f"{home(int(self._rows[i]))}: {self.names[i]}"

    def load(self, i: int) -> IO[bytes]:
        cell = self._cells(int(self._rows[i]))
        if isinstance(cell, dict):
            cell = cell.get("bytes") or cell.get("path")
        if isinstance(cell, bytes):
            return io.BytesIO(cell)
        if not isinstance(cell, str):
            raise OSError("it has neither bytes nor a path")
        path = os.path.join(self._folder, cell)
        if os.path.getsize(path) > LARGEST:
            raise OSError(f"it has more than {LARGEST:,} bytes")
        with open(path, "rb") as file:
            return io.BytesIO(file.read())


class TextSource(Source):
    """Texts.

    Args:
        texts: (N,).
        pairs: (N,) the second text of each pair; None where there are no pairs.
    """

    def __init__(self, texts: list[str], pairs: list[str] | None, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.texts = texts
        self.pairs = pairs


class VisionSource(Source):
    """Images behind a torchvision data set, which another process reopens."""

    def __init__(self, dataset: Any, *args: Any, reopen: tuple[Callable[..., Source], tuple[Any, ...]]) -> None:
        super().__init__(*args)
        self._dataset = dataset
        self._reopen = reopen

    def __reduce__(self) -> tuple[Callable[..., Source], tuple[Any, ...]]:
        return self._reopen

    def load(self, i: int) -> Image.Image:
        image: Image.Image = self._dataset[i][0]
        return image
