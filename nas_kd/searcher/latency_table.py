"""A latency table that was measured on another device: of whole archs, or of units, whose latencies add up."""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from nas_kd.config.kinds import checked
from nas_kd.config.paths import existing
from nas_kd.config.reading import TABLE, read_bytes
from nas_kd.errors import SettingError
from nas_kd.runs.files import atomic_write
from nas_kd.space import Arch, ElasticSpace
from nas_kd.space.rows import cost_rows

FIELD = "search.latency_table"
PARTS = ("resolution", "stage", "in_width", "candidate", "stem", "head")  # what may tell units apart
OVERHEAD = "overhead"  # the stage of the row that every network has
WALKED = 20_000  # archs of a space that is walked through for keys
NAMED = 5  # missing ones that a message names
FORMATS = "the columns arch and ms, or stage, candidate and ms"
WRITE = "write it with nas_kd.latency_template, and fill in ms"

Unit = tuple[Any, ...]


@dataclass(frozen=True)
class LatencyTable:
    """Milliseconds of archs or of units.

    Args:
        path: the file.
        columns: those of `PARTS` that it has; none where it lists archs.
        archs: latency by an arch's key or label.
        units: latency by the values in the columns.
        overhead: what every network takes besides its units.
        digest: of the file's contents.
    """

    path: str
    columns: tuple[str, ...]
    archs: Mapping[str, float]
    units: Mapping[Unit, float]
    overhead: float
    digest: str
    _sums: dict[tuple[str, int | None], list[dict[Unit, float]]] = field(default_factory=dict, compare=False)

    @property
    def adds_up(self) -> bool:
        """Whether it lists units."""
        return bool(self.columns)

    def check(self, space: ElasticSpace, cost: Mapping[str, int]) -> None:
        """Check that it has every unit of a space, or archs of it only.

        Args:
            cost: of `cost_settings`.

        Raises:
            SettingError: with the number of those that are missing, and the first of them.
        """
        if self.adds_up:
            if len(space.resolutions) > 1 and "resolution" not in self.columns:
                expected = f"a column resolution: {space.name} chooses from {', '.join(map(str, space.resolutions))} px"
                raise SettingError(FIELD, self.path, expected, WRITE)
            for size in space.resolutions or (cost["resolution"],):
                self.timed(space, _rows(space, size, cost), size)
        else:
            self.listed(space)

    def listed(self, space: ElasticSpace) -> list[Arch]:
        """Return the archs that it lists, in its order; archs by key need a space that can be walked through.

        Raises:
            SettingError: rows name no arch of the space.
        """
        known = {name: arch for name in self.archs if (arch := _read_label(space, name)) is not None}
        if len(known) < len(self.archs) and space.size <= WALKED:
            known |= {arch.key: arch for arch in space}
        missing = [name for name in self.archs if name not in known]
        if missing:
            expected = f"archs of {space.name}; {_count(missing, len(self.archs), 'rows')} name none"
            hint = f"name archs by arch.label; keys are found in spaces of up to {WALKED:,} archs alone"
            raise SettingError(FIELD, self.path, expected, hint)
        return list(dict.fromkeys(known[name] for name in self.archs))

    def of(self, space: ElasticSpace, arch: Arch, cost: Mapping[str, int]) -> float:
        """Return an arch's milliseconds; infinity where it lists archs, and not this one."""
        if not self.adds_up:
            return self.archs.get(arch.key, self.archs.get(arch.label, math.inf))
        size = arch.resolution or cost["resolution"]
        if (space.hash, size) not in self._sums:
            timed = self.timed(space, _rows(space, size, cost), size)
            self._sums[space.hash, size] = [dict(zip(_places(t), t["latency_ms"], strict=True)) for t in timed]
        widths = [space.stem.width_of(arch.stem), *(candidate.width for candidate in arch.stages[:-1])]
        stems = [space.stem.choices().index(arch.stem), *(0 for _ in widths[1:])]
        heads = [*(0 for _ in widths[1:]), space.head.choices().index(arch.head)]
        codes = space.encode([arch])[0][: len(widths)].tolist()
        places = zip(widths, stems, codes, heads, strict=True)
        return sum(known[place] for known, place in zip(self._sums[space.hash, size], places, strict=True))

    def timed(self, space: ElasticSpace, tables: Sequence[pd.DataFrame], resolution: int | None) -> list[pd.DataFrame]:
        """Add the column ``latency_ms`` to rating tables; the overhead is charged to the first stage.

        Raises:
            SettingError: units are missing, counted and named.
        """
        missing: list[str] = []
        found = []
        for number, table in enumerate(tables, 1):
            times = []
            for unit in _units(table, number, resolution):
                ms = self.units.get(tuple(unit[name] for name in self.columns))
                if ms is None:
                    missing.append(
                        " ".join(f"{name} {unit[name]}" for name in PARTS if name in unit and unit[name] != "")
                    )
                times.append(math.inf if ms is None else ms + (self.overhead if number == 1 else 0.0))
            found.append(table.assign(latency_ms=times))
        if missing:
            expected = f"every unit of {space.name}; {_count(missing, sum(map(len, tables)), 'units')} are missing"
            raise SettingError(FIELD, self.path, expected, WRITE)
        return found


def read_latency_table(path: str | Path) -> LatencyTable:
    """Read a latency table.

    Args:
        path: a CSV file with the columns ``arch`` (key or label) and ``ms``, or ``stage`` (from 1), ``candidate`` (its
            label) and ``ms``, with ``in_width``, ``stem``, ``head`` and ``resolution`` where these matter; a row whose
            stage is ``overhead`` is what every network takes besides.

    Raises:
        SettingError: the file is not there, has other columns, or a row has no number above 0.
    """
    file = existing(FIELD, str(path), "an existing CSV file")
    content = read_bytes(file, TABLE, field=FIELD, hint=WRITE)
    try:
        frame = pd.read_csv(io.BytesIO(content), dtype=str, keep_default_na=False, comment="#")
    except (ValueError, UnicodeDecodeError) as error:  # also pandas' own errors of parsing
        raise SettingError(FIELD, str(path), f"a CSV file with {FORMATS}", WRITE) from error
    frame.columns = [str(name).strip() for name in frame.columns]
    by_arch = "arch" in frame
    if "ms" not in frame or not (by_arch or {"stage", "candidate"} <= set(frame.columns)):
        raise SettingError(FIELD, str(path), f"a CSV file with {FORMATS}; it has {', '.join(frame.columns)}", WRITE)
    columns = () if by_arch else tuple(name for name in PARTS if name in frame)
    found: dict[Unit, float] = {}
    overhead = 0.0
    empty = []
    for number, row in enumerate(frame.to_dict("records"), 2):
        place = tuple(_told(name, row[name]) for name in columns or ("arch",))
        ms = _milliseconds(row["ms"], f"{path} line {number}")
        if ms is None:
            empty.append(" ".join(part for part in place if part))
        elif not by_arch and row["stage"].strip() == OVERHEAD:
            overhead = ms
        else:
            if found.setdefault(place, ms) != ms:
                raise SettingError(
                    FIELD, f"{path} line {number}", f"one latency for {' '.join(place)}", "leave one out"
                )
    if empty:
        expected = f"a number of milliseconds in every row; {_count(empty, len(frame), 'rows')} have none"
        raise SettingError(FIELD, str(path), expected, "measure them, or leave the rows of archs out")
    archs = {place[0]: ms for place, ms in found.items()} if by_arch else {}
    digest = hashlib.sha256(content).hexdigest()[:12]
    return LatencyTable(str(path), columns, archs, {} if by_arch else found, overhead, digest)


@checked
def latency_template(
    space: ElasticSpace, path: str | Path, *, resolution: int | None = None, in_chans: int = 3, num_classes: int = 10
) -> Path:
    """Write all units of a space as a latency table whose ``ms`` is to be filled in on the device.

    Args:
        space: named, or of a teacher.
        path: the CSV file.
        resolution: height of the images in pixels, where the space has no sizes of its own.
        in_chans: channels of the images.
        num_classes: classes of the head.

    Returns:
        The file. Besides what tells units apart it has their MACs and parameters, which are not read. The first stage's
        units include the stem, the last stage's the head.
    """
    parts = []
    cost = {"in_chans": in_chans, "num_classes": num_classes}
    for size in space.resolutions or (resolution,):
        for number, table in enumerate(_rows(space, size, cost), 1):
            units = pd.DataFrame(list(_units(table, number, size)))
            parts.append(units.assign(macs=table["macs"].tolist(), params=table["params"].tolist()))
    frame = pd.concat(parts, ignore_index=True)
    several = [name for name in ("resolution", "stem", "head") if frame[name].nunique() > 1]
    frame = frame[[*(n for n in PARTS if n in several or n in ("stage", "in_width", "candidate")), "macs", "params"]]
    first = pd.DataFrame([dict.fromkeys(frame.columns, "") | {"stage": OVERHEAD}])
    path = Path(path)
    atomic_write(path, pd.concat([first, frame]).assign(ms="").to_csv(index=False))
    return path


def _rows(space: ElasticSpace, size: int | None, cost: Mapping[str, int]) -> list[pd.DataFrame]:
    return cost_rows(space, resolution=size, in_chans=cost["in_chans"], num_classes=cost["num_classes"])


def _units(table: pd.DataFrame, stage: int, resolution: int | None) -> Iterator[dict[str, str]]:
    """Yield what tells each row of a stage apart, as texts."""
    for row in table.to_dict("records"):
        yield {
            "resolution": "" if resolution is None else str(resolution),
            "stage": str(stage),
            "in_width": str(int(row["in_width"])),
            "candidate": str(row["label"]),
            "stem": str(int(row["stem"])) if "stem" in row else "",
            "head": str(int(row["head"])) if "head" in row else "",
        }


def _places(table: pd.DataFrame) -> Iterator[Unit]:
    """Yield entry width, stem, candidate and head of each row."""
    for row in table.to_dict("records"):
        yield int(row["in_width"]), int(row.get("stem", 0)), int(row["candidate"]), int(row.get("head", 0))


def _told(column: str, text: str) -> str:
    """Return a cell of what tells units apart; pandas writes whole numbers beside an empty cell as 16.0."""
    text = text.strip()
    return text if column in ("arch", "candidate") else text.removesuffix(".0")


def _milliseconds(text: str, where: str) -> float | None:
    """Read a cell; None where it is empty."""
    if not text.strip():
        return None
    try:
        ms = float(text)
    except ValueError:
        ms = math.nan
    if not 0 <= ms < math.inf:
        raise SettingError(FIELD, where, f"a number of milliseconds, not {text!r}", "measure it again")
    return ms


def _read_label(space: ElasticSpace, text: str) -> Arch | None:
    """Return the arch of a label; None where it is none of the space."""
    try:
        arch = Arch.from_label(space.hash, text)
        space.validate(arch)
    except SettingError:
        return None
    return arch


def _count(names: Sequence[str], total: int, what: str) -> str:
    more = " ..." if len(names) > NAMED else ""
    return f"{len(names)} of {total} {what} ({'; '.join(names[:NAMED])}{more})"
