"""Files that anyone may have written: their kind and size is looked at, and every text has an encoding."""

from __future__ import annotations

import ast
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

import nas_kd
from nas_kd.config.file import LARGEST, read_file, read_tree
from nas_kd.config.reading import check_file, memory, parsed, read_bytes, read_text
from nas_kd.errors import SettingError
from nas_kd.pipeline.config import Config

PACKAGE = Path(nas_kd.__file__).parent
TEXTS = ("read_text", "write_text", "open")


def sparse(path: Path, size: int = 2**40) -> Path:
    with open(path, "wb") as file:
        file.truncate(size)
    return path


def test_a_sparse_terabyte_is_refused_by_its_size(tmp_path: Path) -> None:
    for read in (read_bytes, read_text):
        with pytest.raises(SettingError, match="at most 16,777,216 bytes; this has 1,099,511,627,776"):
            read(sparse(tmp_path / "a"))


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_what_has_no_end_is_no_file(make: object, tmp_path: Path) -> None:
    make(tmp_path / "a")  # type: ignore[operator]
    with pytest.raises(SettingError, match="a file; this is a folder, a pipe or a device"):
        read_bytes(tmp_path / "a")


def test_what_is_missing_is_for_the_caller_to_say(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_text(tmp_path / "a")
    (tmp_path / "a").write_bytes(b"abc")
    assert check_file(tmp_path / "a", 3) == 3
    with pytest.raises(SettingError, match="field='.*a': expected a file of at most 2 bytes; this has 3; hint: cut it"):
        check_file(tmp_path / "a", 2, field="field", hint="cut it")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_both_readers_take_what_a_byte_order_mark_says(encoding: str, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes("space: d\u00efgits\r\n".encode(encoding))
    assert read_text(tmp_path / "a") == "space: d\u00efgits\r\n"
    assert read_tree(tmp_path / "a") == {"space": "d\u00efgits"}


def test_no_text_is_one_message(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"\xff\xff")
    with pytest.raises(SettingError, match="a text in UTF-8"):
        read_text(tmp_path / "a")


@pytest.mark.parametrize("text", ["[" * 100_000, "{", "1" * 5000, b"\xff", "nul"])
def test_no_json_is_a_value_error(text: str | bytes) -> None:
    with pytest.raises(ValueError):
        parsed(text)


def test_many_names_of_a_config_take_no_time(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"".join(b"a%d: 1\n" % number for number in range(LARGEST // 11)))
    with pytest.raises(SettingError, match="setting='a0'"):
        read_file(tmp_path / "a", Config)


def test_memory_is_that_of_this_machine() -> None:
    assert 2**28 < memory() < 2**50


def unencoded(tree: ast.AST) -> Iterator[int]:
    """Yield the lines of calls that read or write text in the encoding of the locale."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or ast.unparse(node.func).split(".")[-1] not in TEXTS:
            continue
        owner, _, name = ast.unparse(node.func).rpartition(".")
        if name == "open" and owner and owner.split(".")[-1] not in ("Path", "path", "gzip"):
            continue  # of images, tars and stores, which are no texts
        if name == "read_text" and not owner:
            continue  # our own
        words = {one.arg for one in node.keywords}
        modes = [one.value for one in [*node.args, *(k.value for k in node.keywords)] if isinstance(one, ast.Constant)]
        binary = name == "open" and any(
            isinstance(mode, str) and set(mode) <= set("rwab+x") and "b" in mode for mode in modes
        )
        if "encoding" not in words and not binary:
            yield node.lineno


def test_every_text_has_an_encoding() -> None:
    found = {
        str(path.relative_to(PACKAGE)): [*unencoded(ast.parse(path.read_text("utf-8")))]
        for path in PACKAGE.rglob("*.py")
    }
    assert {path: lines for path, lines in found.items() if lines} == {}


@pytest.mark.parametrize("line", ["open(p)", "open(p, 'w')", "p.read_text()", "Path(p).write_text(t)"])
def test_the_rule_sees_texts_without_encodings(line: str) -> None:
    assert [*unencoded(ast.parse(line))] == [1]


@pytest.mark.parametrize("line", ["open(p, 'rb')", "open(p, encoding='utf-8')", "p.read_text(encoding='utf-8')"])
def test_the_rule_lets_others_pass(line: str) -> None:
    assert [*unencoded(ast.parse(line))] == []
