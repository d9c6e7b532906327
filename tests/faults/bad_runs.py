"""Makes mutated files of a finished run: each draws a file, a way to spoil it, and where."""

from __future__ import annotations

import csv
import io
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

ESCAPES = "\x1b]0;owned\x07\x1b[31m\r"
# what a value of JSON, a setting or a cell is replaced by; text is written as it stands, for what json cannot say
VALUES: tuple[str, ...] = (
    *("null", "true", "0", "-1", "1.5", "1e400", "-1e400", "NaN", "Infinity", str(2**70), "1" + "0" * 5000),
    *('""', '"a"', '"\\u001b]0;owned\\u0007"', '"\\ud800"', '"../../../outside"', '"/etc/passwd"', '"a\\nb"'),
    *("[]", "{}", "[null]", '{"a": 1}', "[[[]]]", "[1, 2, 3]", '["a", 1, null]', '{"": {}}', "[" * 90 + "]" * 90),
)
CELLS = ("", "nan", "inf", "-1", "1e400", "abc", "True", "1" * 400, ESCAPES, "../outside", "[]", '"', "é", "\ud800")


def mutated(path: Path, run: Path, draw: random.Random) -> str:
    """Spoil one file of a run.

    Args:
        path: the file.
        run: the run folder, where contents of other files come from.
        draw: decides how.

    Returns:
        What was done.
    """
    kinds: list[Callable[[Path, Path, random.Random], str]] = [*ANY]
    structured = {".json": JSON, ".csv": CSV, ".yaml": YAML}.get(path.suffix, ())
    return draw.choice([*kinds, *structured * (1 if not structured else len(kinds) // len(structured) + 1)])(
        path, run, draw
    )


def _flipped(path: Path, run: Path, draw: random.Random) -> str:
    content = bytearray(path.read_bytes())
    bits = [draw.randrange(8 * len(content)) for _ in range(draw.choice((1, 1, 5)))] if content else []
    for bit in bits:
        content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)
    return f"bits {bits} flipped"


def _cut(path: Path, run: Path, draw: random.Random) -> str:
    content = path.read_bytes()
    at = draw.randrange(len(content) + 1)
    path.write_bytes(content[:at])
    return f"cut at {at}"


def _twice(path: Path, run: Path, draw: random.Random) -> str:
    path.write_bytes(path.read_bytes() * 2)
    return "twice"


def _line_twice(path: Path, run: Path, draw: random.Random) -> str:
    lines = path.read_bytes().splitlines(keepends=True)
    at = draw.randrange(len(lines)) if lines else 0
    path.write_bytes(b"".join([*lines[:at], *lines[at : at + 1] * 2, *lines[at + 1 :]]))
    return f"line {at + 1} twice"


def _line_gone(path: Path, run: Path, draw: random.Random) -> str:
    lines = path.read_bytes().splitlines(keepends=True)
    at = draw.randrange(len(lines)) if lines else 0
    path.write_bytes(b"".join([*lines[:at], *lines[at + 1 :]]))
    return f"without line {at + 1}"


def _windows(path: Path, run: Path, draw: random.Random) -> str:
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    return "lines end as on Windows"


def _marked(path: Path, run: Path, draw: random.Random) -> str:
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    return "a byte-order mark"


def _utf_16(path: Path, run: Path, draw: random.Random) -> str:
    path.write_bytes(path.read_bytes().decode("latin-1").encode("utf-16"))
    return "UTF-16"


def _empty(path: Path, run: Path, draw: random.Random) -> str:
    path.write_bytes(b"")
    return "empty"


def _zeros(path: Path, run: Path, draw: random.Random) -> str:
    path.write_bytes(bytes(path.stat().st_size or 64))
    return "zeros"


def _sparse(path: Path, run: Path, draw: random.Random) -> str:
    with open(path, "r+b") as file:
        file.truncate(2**40)
    return "a sparse terabyte"


def _deep(path: Path, run: Path, draw: random.Random) -> str:
    mark = draw.choice((b"[", b'{"a":', b"[{"))
    path.write_bytes(mark * draw.choice((2000, 100_000)))
    return "nested deeply"


def _other(path: Path, run: Path, draw: random.Random) -> str:
    others = sorted(other for other in run.rglob("*") if other.is_file() and other != path)
    other = draw.choice([other for other in others if other.suffix == path.suffix] or others)
    path.write_bytes(other.read_bytes())
    return f"the content of {other.relative_to(run)}"


def _folder(path: Path, run: Path, draw: random.Random) -> str:
    path.unlink()
    path.mkdir()
    return "a folder"


def _gone(path: Path, run: Path, draw: random.Random) -> str:
    path.unlink()
    return "deleted"


def _json_value(path: Path, run: Path, draw: random.Random) -> str:
    """Replace one value anywhere in the tree, or the whole."""
    value = draw.choice(VALUES)
    tree = json.loads(path.read_text(encoding="utf-8"))
    places: list[tuple[Any, Any]] = []

    def walk(branch: Any) -> None:
        for key in branch if isinstance(branch, dict) else range(len(branch)) if isinstance(branch, list) else ():
            places.append((branch, key))
            walk(branch[key])

    walk(tree)
    if not places or draw.random() < 0.1:
        path.write_text(value, encoding="utf-8")
        return f"{value[:40]!r} for all"
    branch, key = draw.choice(places)
    branch[key] = "@@"
    path.write_text(json.dumps(tree, indent=1).replace('"@@"', value), encoding="utf-8")
    return f"{value[:40]!r} for {key!r}"


def _json_key(path: Path, run: Path, draw: random.Random) -> str:
    """Leave out or rename one entry of a mapping."""
    tree = json.loads(path.read_text(encoding="utf-8"))
    branches: list[dict[str, Any]] = []

    def walk(branch: Any) -> None:
        if isinstance(branch, dict) and branch:
            branches.append(branch)
        for value in branch.values() if isinstance(branch, dict) else branch if isinstance(branch, list) else ():
            walk(value)

    walk(tree)
    if not branches:
        return _empty(path, run, draw)
    branch = draw.choice(branches)
    key = draw.choice(list(branch))
    value = branch.pop(key)
    more = draw.random() < 0.3
    if more:
        branch[f"{key}{ESCAPES}"] = value
    path.write_text(json.dumps(tree, indent=1), encoding="utf-8")
    return f"{key!r} {'renamed' if more else 'left out'}"


def _csv_changed(path: Path, change: Callable[[list[list[str]]], str]) -> str:
    rows = list(csv.reader(io.StringIO(path.read_text(encoding="utf-8"), newline="")))
    if not rows or not rows[0]:
        return "nothing"
    said = change(rows)
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    path.write_bytes(text.getvalue().encode("utf-8", "surrogatepass"))
    return said


def _cell(path: Path, run: Path, draw: random.Random) -> str:
    def change(rows: list[list[str]]) -> str:
        row = draw.randrange(1, len(rows)) if len(rows) > 1 else 0
        column = draw.randrange(len(rows[row]))
        rows[row][column] = draw.choice(CELLS)
        return f"{rows[row][column][:30]!r} in line {row + 1}, column {rows[0][column]}"

    return _csv_changed(path, change)


def _column_gone(path: Path, run: Path, draw: random.Random) -> str:
    def change(rows: list[list[str]]) -> str:
        column = draw.randrange(len(rows[0]))
        name = rows[0][column]
        for row in rows:
            del row[column]
        return f"without column {name}"

    return _csv_changed(path, change)


def _column_renamed(path: Path, run: Path, draw: random.Random) -> str:
    def change(rows: list[list[str]]) -> str:
        column = draw.randrange(len(rows[0]))
        old, rows[0][column] = rows[0][column], draw.choice(("", "x", ESCAPES, rows[0][0]))
        return f"column {old} renamed {rows[0][column]!r}"

    return _csv_changed(path, change)


def _column_spoilt(path: Path, run: Path, draw: random.Random) -> str:
    def change(rows: list[list[str]]) -> str:
        column = draw.randrange(len(rows[0]))
        value = draw.choice(CELLS)
        for row in rows[1:]:
            row[column] = value
        return f"{value[:30]!r} in all of column {rows[0][column]}"

    return _csv_changed(path, change)


def _setting(path: Path, run: Path, draw: random.Random) -> str:
    """Replace one value of a file of settings."""
    lines = path.read_text(encoding="utf-8").splitlines()
    valued = [at for at, line in enumerate(lines) if ": " in line]
    if not valued:
        return _empty(path, run, draw)
    at, value = draw.choice(valued), draw.choice(VALUES)
    lines[at] = f"{lines[at].partition(': ')[0]}: {value}"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return lines[at][:80]


ANY = (
    *(_flipped, _cut, _twice, _line_twice, _line_gone, _windows, _marked, _utf_16, _empty, _zeros, _sparse, _deep),
    *(_other, _folder, _gone),
)
JSON = (_json_value, _json_value, _json_key)
CSV = (_cell, _column_gone, _column_renamed, _column_spoilt)
YAML = (_setting,)
COMMANDS = ("search", "retrain")  # besides status and report, one in turn: each reads all that came before it


def spoilt(run: Path, place: Path, number: int) -> str:
    """Copy a run and spoil one file of the copy.

    Args:
        run: the finished run.
        place: the copy; what is there is replaced.
        number: which of the endless list of mutations.

    Returns:
        The file and what was done to it.
    """
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(run, place)
    draw = random.Random(number)
    kinds: dict[str, list[Path]] = {}
    for path in sorted(path for path in place.rglob("*") if path.is_file() and not path.name.startswith(".lock")):
        # one of each folder and name: of the many trainings no more than of the one search
        below = path.relative_to(place).parts
        kinds.setdefault(f"{below[0] if len(below) > 1 else ''}/{path.name}", []).append(path)
    path = draw.choice(kinds[draw.choice(sorted(kinds))])
    return f"{path.relative_to(place)}: {mutated(path, place, draw)}"
