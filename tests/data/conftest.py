"""Small image folders."""

from __future__ import annotations

import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

Make = Callable[..., Path]


@pytest.fixture
def make_folder(tmp_path: Path) -> Make:
    def make(
        name: str = "pets",
        classes: tuple[str, ...] = ("cat", "dog", "owl"),
        count: int = 20,
        size: tuple[int, int] = (12, 12),
        mode: str = "RGB",
        start: int = 0,
    ) -> Path:
        for c, label in enumerate(classes):
            folder = tmp_path / name / label
            folder.mkdir(parents=True, exist_ok=True)
            for i in range(start, start + count):
                pixels = np.random.default_rng([c, i]).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
                Image.fromarray(pixels).convert(mode).save(folder / f"{i:04d}.png")
        return tmp_path / name

    return make


def pack(folder: Path, inside: str = "") -> Path:
    path = folder.with_suffix(".tar")
    with tarfile.open(path, "w") as tar:
        for file in sorted(folder.rglob("*.png")):
            tar.add(file, arcname=f"{inside}{file.relative_to(folder).as_posix()}")
    return path


@pytest.fixture
def make_tar() -> Callable[..., Path]:
    return pack
