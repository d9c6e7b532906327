"""An export appears as a whole or not at all, and nothing of an earlier one stays beside it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from nas_kd.errors import SettingError
from nas_kd.runs.files import on_disk, read_json
from nas_kd.runs.links import part_of, remove

TABLES = (".latency.csv", ".int8.csv")  # what is measured of a file, beside it


class staged:
    """A temporary folder beside a file or folder; what is in it is moved to its place unless something failed."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.folder = part_of(place)
        self.made = [top for top in (place.parent, *place.parent.parents) if not top.exists()]

    def __enter__(self) -> Path:
        with on_disk(self.place):
            remove(self.folder)
            self.folder.mkdir(parents=True)
        return self.folder / self.place.name

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                with on_disk(self.place):
                    older = left_beside(self.place) - {made.name for made in self.folder.iterdir()}
                    for name in older:
                        remove(self.place.parent / name)
                    for made in self.folder.iterdir():
                        target = self.place.parent / made.name
                        if target.is_dir():
                            remove(target)
                        os.replace(made, target)
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)
            if kind is not None:
                for top in self.made:  # folders that were made for it
                    if top.is_dir() and not any(top.iterdir()):
                        top.rmdir()


def note_of(place: Path) -> Path:
    """Return the file that says how an export was checked and what else it wrote."""
    return place.with_name(f"{place.name}.json")


def left_beside(place: Path) -> set[str]:
    """Return the names of what an earlier export to the same place wrote beside it.

    Files of other names than its own, which a foreign note may list, are left alone.
    """
    try:
        listed = read_json(note_of(place)).get("files")
    except SettingError:  # there is none, or it is not ours
        listed = None
    listed = listed if isinstance(listed, list) else []
    own = {name for name in listed if isinstance(name, str) and Path(name).name == name}
    return {f"{place.name}{end}" for end in TABLES} | {name for name in own if name.startswith(f"{place.stem}.")}
