"""Check a tar before anything reads it: names inside its own folder, sizes within the file."""

from __future__ import annotations

import tarfile
from pathlib import Path

from nas_kd.errors import SettingError

NESTED = 1  # deeper tars are not read


def check_tar(field: str, path: Path) -> None:
    """Walk through the headers of a tar, and of the tars in it.

    It seeks from header to header: reading the claimed size would never end if a header claims an exabyte.

    Raises:
        SettingError: a member lies outside the folder that the tar is unpacked in, or tars are nested more than once.
        tarfile.TarError: it is damaged or not a tar; also OSError.
    """
    with tarfile.open(path, "r:") as tar:
        _check(field, path, tar, 0)


def _check(field: str, path: Path, tar: tarfile.TarFile, depth: int) -> None:
    for info in tar:
        if info.name.startswith("/") or ".." in info.name.split("/"):
            expected = f"a .tar with names inside its own folder; it has {info.name!r}"
            raise SettingError(
                field, str(path), expected, "pack the class folders again: tar -cf images.tar -C FOLDER ."
            )
        if info.isfile() and info.name.lower().endswith(".tar"):
            if depth == NESTED:
                expected = f"a .tar of class folders, or of one .tar per class; {info.name!r} is nested too deeply"
                raise SettingError(field, str(path), expected, "unpack the inner ones")
            with tarfile.open(fileobj=tar.extractfile(info), mode="r:") as inner:
                _check(field, path, inner, depth + 1)
