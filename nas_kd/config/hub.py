"""Names on the Hugging Face hub in the place of folders: taken from its cache, else downloaded into it."""

from __future__ import annotations

import re
from fnmatch import fnmatch
from functools import lru_cache
from pathlib import Path

from nas_kd.errors import SettingError

NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
# what is downloaded: no code, and no weights but those that cannot hold any
WEIGHTS = ("*.safetensors", "*.safetensors.index.json")
TOKENS = ("tokenizer*.json", "vocab.*", "merges.txt", "*.model", "special_tokens_map.json", "added_tokens.json")
VOCABULARIES = ("tokenizer.json", "vocab.*", "*.model")  # of these, the ones without which there is no tokenizer
FILES = ("config.json", *WEIGHTS, *TOKENS)


def is_hub_name(model: str | Path) -> bool:
    """Tell whether a name is one of the hub, ``owner/name``: no folder is there, nor one that it could be in."""
    if isinstance(model, Path) or NAME.fullmatch(model) is None:
        return False
    return not Path(model).exists() and not Path(model).parent.is_dir()


def at_home(field: str, model: str | Path) -> Path:
    """Return the folder that a name stands for: of the hub that in its cache, else itself.

    Args:
        field: the setting, for the error message.
        model: a folder, or a name on the hub.

    Raises:
        SettingError: it is a name that the hub does not know or give, or one without weights in safetensors.
    """
    return _snapshot(field, str(model)) if is_hub_name(model) else Path(model).expanduser()


@lru_cache(maxsize=16)
def _snapshot(field: str, name: str) -> Path:
    import huggingface_hub  # late: comes with timm and transformers, and is slow

    try:
        kept = _whole(huggingface_hub.snapshot_download(name, allow_patterns=[*FILES], local_files_only=True))
    except (OSError, ValueError):  # it is not in the cache, or no name: the hub says which
        kept = None
    if kept is not None and _has_tokens(kept):  # the same command again has the same teacher, whatever is new there
        return kept
    try:  # a library that opened the model alone has left no tokenizer in the cache
        found = _whole(huggingface_hub.snapshot_download(name, allow_patterns=[*FILES]))
    except Exception as error:  # of the network, of the hub: each has classes of its own
        if kept is not None:
            return kept
        text = " ".join(str(error).split())[:200]
        expected = (
            "a student folder (with arch.json), a folder of transformers, or a name on the Hugging Face hub that is "
            f"in its cache or can be reached ({type(error).__name__}: {text})"
        )
        hint = "check the path or the name; without a network download it elsewhere and give the folder"
        raise SettingError(field, name, expected, hint) from error
    found = found or kept
    if found is None:
        expected = "a name on the hub with config.json and weights in safetensors, the only ones that are opened"
        raise SettingError(field, name, expected, "convert it, and give the folder")
    return found


def _whole(folder: str) -> Path | None:
    """Return a folder that holds a model; None of one that holds only a part of it."""
    path = Path(folder)
    return path if (path / "config.json").is_file() and next(path.glob("*.safetensors"), None) is not None else None


def _has_tokens(folder: Path) -> bool:
    """Tell whether a folder holds a tokenizer."""
    return any(fnmatch(file.name, some) for file in folder.iterdir() for some in VOCABULARIES)
