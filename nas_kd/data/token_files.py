"""Tokens of texts: made once, in parts; of many texts they are kept in files that are mapped into memory."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nas_kd.data.tokens import TokenStore
from nas_kd.errors import SettingError
from nas_kd.nn.text import TYPES
from nas_kd.runs.files import atomic_json
from nas_kd.runs.links import create, part_of, remove

AT_ONCE = 1024  # texts that are tokenised together
MAPPED = 2**23  # characters from which on tokens are kept in files: fewer are tokenised again in a second or two
ABOUT = "tokens.json"
ABANDONED = 86_400  # seconds without a write after which an unfinished folder is nobody's
Chunk = tuple[NDArray[np.int32], NDArray[np.uint8], NDArray[np.int64], int]


@dataclass(frozen=True)
class Made:
    """Tokens of some texts.

    Args:
        store: the tokens.
        cut: how many texts are longer than their tokens.
    """

    store: TokenStore
    cut: int


def made(tokenizer: Any, first: Sequence[str], second: Sequence[str] | None, most: int, root: Path) -> Made:
    """Tokenise texts, or read what was made of the same texts by the same tokenizer.

    Args:
        tokenizer: of transformers.
        first: (N,) texts.
        second: (N,) the second text of each pair; None where there are no pairs.
        most: tokens that texts are cut to.
        root: folder below which tokens of many texts are kept.

    Raises:
        SettingError: a text has no tokens, or the folder cannot be written.
    """
    padding = tokenizer.pad_token_id or 0
    typed = TYPES in tokenizer.model_input_names
    if sum(map(len, first)) + sum(map(len, second or ())) < MAPPED:
        ids, types, counts, cut = zip(*_chunks(tokenizer, first, second, most), strict=True)
        kinds = torch.from_numpy(np.concatenate(types)) if typed else None
        found = TokenStore(torch.from_numpy(np.concatenate(ids)), _starts(counts), kinds, padding, most)
        return Made(found, sum(cut))
    key = _key(tokenizer, first, second, most)
    folder = root / "tokens" / hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:32]
    try:
        known = _read(folder, key, padding, most, typed)
        if known is None:
            _write(folder, key, tokenizer, first, second, most, padding, typed)
            known = _read(folder, key, padding, most, typed)
    except OSError as error:
        hint = "free space, or name another folder in data.root"
        raise SettingError("data.root", str(root), f"a folder for the tokens of these texts ({error})", hint) from error
    if known is None:
        expected = "a folder that keeps what is written to it"
        raise SettingError("data.root", str(folder), expected, "name another folder in data.root")
    return known


def _chunks(tokenizer: Any, first: Sequence[str], second: Sequence[str] | None, most: int) -> Iterator[Chunk]:
    """Yield tokens, which text of a pair each is of, numbers of tokens, and how many texts are cut."""
    for start in range(0, len(first), AT_ONCE):
        pair = None if second is None else list(second[start : start + AT_ONCE])
        rows = tokenizer(list(first[start : start + AT_ONCE]), pair, truncation=True, max_length=most).encodings
        counts = np.array([len(row.ids) for row in rows], dtype=np.int64)
        if not counts.all():
            text = first[start + int(np.flatnonzero(counts == 0)[0])]
            expected = f"texts of which the tokenizer makes at least a token; of {text[:40]!r} it makes none"
            raise SettingError("data.tokenizer", str(tokenizer.name_or_path), expected, "leave such rows out")
        ids = np.concatenate([np.array(row.ids, dtype=np.int32) for row in rows])
        types = np.concatenate([np.array(row.type_ids, dtype=np.uint8) for row in rows])
        yield ids, types, counts, sum(bool(row.overflowing) for row in rows)


def _starts(counts: Sequence[NDArray[np.int64]]) -> Tensor:
    return torch.from_numpy(np.concatenate([np.zeros(1, dtype=np.int64), *counts]).cumsum())


def _key(tokenizer: Any, first: Sequence[str], second: Sequence[str] | None, most: int) -> dict[str, Any]:
    """Return what decides the tokens of texts: the texts, all of the tokenizer, and how long they may be."""
    import tokenizers

    texts = hashlib.sha256()
    for text in (*first, *(second or ())):
        given = text.encode("utf-8", "surrogatepass")
        texts.update(len(given).to_bytes(8, "little") + given)
    rules = json.loads(tokenizer.backend_tokenizer.to_str())  # vocabulary, normaliser, special tokens and all
    for name in ("truncation", "padding"):
        rules.pop(name, None)  # as the last call left them
    about = (
        json.dumps(rules, sort_keys=True),
        tokenizer.padding_side,
        tokenizer.truncation_side,
        [*tokenizer.model_input_names],
    )
    return {
        "tokenizer": hashlib.sha256(repr(about).encode("utf-8", "surrogatepass")).hexdigest(),
        "tokenizers": tokenizers.__version__,
        "texts": texts.hexdigest(),
        "count": len(first),
        "pairs": second is not None,
        "length": most,
    }


def _write(
    folder: Path,
    key: Mapping[str, Any],
    tokenizer: Any,
    first: Sequence[str],
    second: Sequence[str] | None,
    most: int,
    padding: int,
    typed: bool,
) -> None:
    """Write tokens into a folder that has its name once it is whole."""
    part = part_of(folder)
    remove(part)
    for left in folder.parent.glob(f".{folder.name}.*.tmp"):  # of a process that was killed
        if time.time() - left.stat().st_mtime > ABANDONED:
            remove(left)
    remove(folder)  # what is there was read before, and was not whole; later it may be that of another process
    part.mkdir(parents=True)
    try:
        counts, cut = [], 0
        with create(part / "ids.bin") as ids, create(part / "types.bin") as types:
            for tokens, kinds, lengths, longer in _chunks(tokenizer, first, second, most):
                ids.write(tokens.tobytes())
                types.write(kinds.tobytes() if typed else b"")
                counts.append(lengths)
                cut += longer
        with create(part / "starts.bin") as file:
            file.write(_starts(counts).numpy().tobytes())
        digest = TokenStore.mapped(part, padding, most, typed).digest().hex()
        atomic_json(part / ABOUT, {"key": key, "cut": cut, "digest": digest})
        part.rename(folder)
    except OSError:
        if not (folder / ABOUT).is_file():  # else another process was faster
            raise
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _read(folder: Path, key: Mapping[str, Any], padding: int, most: int, typed: bool) -> Made | None:
    """Return what a folder holds; None where it is not there, of other texts, or not what was written."""
    try:
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        store = TokenStore.mapped(folder, padding, most, typed)
        if about["key"] != key or len(store.lengths) != key["count"] or about["digest"] != store.digest().hex():
            return None
        return Made(store, int(about["cut"]))
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
        return None
