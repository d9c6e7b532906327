"""Selection of the readable images of a source."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from nas_kd.data.image import Decoder, header, load
from nas_kd.data.source import ArraySource, Source, Subset
from nas_kd.errors import SettingError


def readable(source: Source, decoder: Decoder) -> tuple[Source, list[tuple[str, int]]]:
    """Decode every image once; return the readable ones, and name and class of the others."""
    if isinstance(source, ArraySource):
        return source, []

    def can_read(row: int) -> bool:
        try:
            image = header(source, row)
            decoder.check(source, row, image, None)
            load(source, row, image)
        except SettingError:
            return False
        return True

    threads = min(torch.get_num_threads(), os.cpu_count() or 1)
    if threads > 1:
        with ThreadPoolExecutor(threads) as pool:
            kept = np.fromiter(pool.map(can_read, range(len(source))), dtype=bool, count=len(source))
    else:
        kept = np.fromiter(map(can_read, range(len(source))), dtype=bool, count=len(source))
    if kept.all():
        return source, []
    classes = source.kind == "classes"
    skipped = [
        (source.names[row], int(source.labels[row]) if classes else -1) for row in np.flatnonzero(~kept).tolist()
    ]
    return Subset(source, np.flatnonzero(kept)), skipped
