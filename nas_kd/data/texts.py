"""`load_data` of texts: four splits of a table of texts and labels, tokenised once by a teacher's tokenizer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from nas_kd.config.hub import at_home
from nas_kd.data.config import DataConfig
from nas_kd.data.dataset import Data, fingerprint_of
from nas_kd.data.open_source import given_apart
from nas_kd.data.placed import Members
from nas_kd.data.source import Source, TextSource
from nas_kd.data.token_files import made
from nas_kd.data.tokenised import Tokenised
from nas_kd.data.tokens import TextSplit, TokenStore
from nas_kd.errors import SettingError
from nas_kd.nn.text import transformers_library

if TYPE_CHECKING:
    from nas_kd.data.image_split import Split

LENGTH = 128  # tokens that texts are cut to where no setting says so
VOCABULARIES = (
    "tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "tokenizer.model",
    "sentencepiece.bpe.model",
    "spiece.model",
)


def load_texts(train: str | Path, config: DataConfig, test: str | Path | None, device: str) -> Data:
    """Load a table of texts; arguments and result as of `load_data`, whose settings name a tokenizer."""
    assert config.tokenizer is not None  # that is what tells texts
    _refuse_images(config)
    tokenizer = read_tokenizer(config.tokenizer)
    sources, found = given_apart(train, config.test if test is None else test, config)
    pool = sources["train"]
    members = Members(sources, config)
    texts = {home: _texts(sources[home], rows) for home, rows in members.used.items()}
    stores, what = tokenise(tokenizer, texts, config)
    places = members.placed({home: store.keys() for home, store in stores.items()})
    splits: dict[str, Split] = {}
    for name, (home, at, labels, names, _) in places.items():
        y = torch.from_numpy(labels)
        splits[name] = TextSplit(name, stores[home], torch.from_numpy(at), y, names, device)
    equal = members.check_equal(places, "texts", "are")
    return Data(
        train=splits["train"],
        rate=splits["rate"],
        select=splits["select"],
        test=splits["test"],
        classes=pool.classes,
        in_chans=1,
        resolution=what.length,
        mean=(0.0,),
        std=(1.0,),
        fingerprint=fingerprint_of(pool.classes, pool.kind, splits, [*stores.values()]),
        kind=pool.kind,
        balance=config.balance,
        found=replace(found, equal=equal),
        tokens=what,
    )


def read_tokenizer(folder: str) -> Any:
    """Open a tokenizer; code that a folder brings is never run.

    Raises:
        SettingError: there is none, or none that is fast.
    """
    transformers = transformers_library("data.tokenizer", folder)
    place = at_home("data.tokenizer", folder)
    if place.is_dir() and not any((place / name).is_file() for name in VOCABULARIES):
        expected = f"a folder with a tokenizer, which holds {VOCABULARIES[0]}"
        raise SettingError("data.tokenizer", folder, expected, "call tokenizer.save_pretrained(FOLDER)")
    try:
        found = transformers.AutoTokenizer.from_pretrained(str(place), trust_remote_code=False)
    except Exception as error:  # of files, of the hub, of the library: each has classes of its own
        expected = f"a folder that transformers saved, with its tokenizer ({' '.join(str(error).split())[:200]})"
        raise SettingError("data.tokenizer", folder, expected, "call tokenizer.save_pretrained(FOLDER)") from error
    if not getattr(found, "is_fast", False):
        expected = "a tokenizer with a tokenizer.json"
        raise SettingError("data.tokenizer", folder, expected, "save it again with a newer transformers")
    return found


def tokenise(
    tokenizer: Any, texts: Mapping[str, tuple[list[str], list[str] | None]], config: DataConfig
) -> tuple[dict[str, TokenStore], Tokenised]:
    """Tokenise texts once.

    Args:
        tokenizer: of transformers.
        texts: by name, with the second text of each pair.
        config: says how long a text may be.

    Returns:
        The tokens by name, and what they are.
    """
    most = config.length or LENGTH
    root = Path(config.root).expanduser()
    found = {name: made(tokenizer, first, second, most, root) for name, (first, second) in texts.items()}
    stores = {name: each.store for name, each in found.items()}
    length = config.length or max(int(store.lengths.max()) for store in stores.values())
    for store in stores.values():
        store.length = length
    cut = sum(each.cut for each in found.values()) / sum(len(store.lengths) for store in stores.values())
    pairs = next(iter(texts.values()))[1] is not None
    padding = next(iter(stores.values())).padding
    special = (tokenizer.mask_token_id, tuple(sorted(tokenizer.all_special_ids)))
    return stores, Tokenised(str(tokenizer.name_or_path), len(tokenizer), length, cut, pairs, padding, *special)


def _texts(source: Source, rows: np.ndarray) -> tuple[list[str], list[str] | None]:
    assert isinstance(source, TextSource)  # a table with a tokenizer gives these
    second = source.pairs
    return [source.texts[row] for row in rows], None if second is None else [second[row] for row in rows]


def _refuse_images(config: DataConfig) -> None:
    """Refuse settings of images where the data are texts."""
    for name, plain in (("resolution", None), ("augment", None), ("pad", None), ("flip", None), ("image", None)):
        value = getattr(config, name)
        if value is not plain:
            raise SettingError(f"data.{name}", value, "null for texts", f"leave data.{name} out")
    if config.unreadable == "skip":
        raise SettingError("data.unreadable", "skip", "stop for texts", "leave it out")
