"""The data of a run: written into it, and compared with what is there."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from nas_kd.config.file import read_tree
from nas_kd.config.nouns import TOKENS
from nas_kd.data import Data
from nas_kd.data.config import DataConfig
from nas_kd.errors import SettingError
from nas_kd.runs.files import atomic_json, read_json
from nas_kd.runs.run import Run


def record_data(run: Run, config: DataConfig, data: Data) -> None:
    """Record the data in a run, or compare them with those that it was made with.

    Raises:
        SettingError: they differ; where it is by a setting, it is named.
    """
    kept = _kept(run)
    _check_decoding(run, config, data, kept.get("memory_gib"))
    if data.tokens is not None:
        atomic_json(run.path / TOKENS, asdict(data.tokens))
    try:
        run.record_data(data.frame())
    except SettingError as error:
        now = asdict(config)
        changed = [name for name in now if name in kept and kept[name] != now[name]]
        if not changed:
            raise
        names = ", ".join(f"data.{name}" for name in changed)
        was = ", ".join(f"data.{name}={kept[name]!r}" for name in changed)
        expected = f"{was}, as {run.path} was made with"
        raise SettingError(names, ", ".join(str(now[name]) for name in changed), expected, error.hint) from error


def _kept(run: Run) -> dict[str, Any]:
    """Return the settings of the data that a run was made with, as far as its config.yaml tells."""
    path = run.path / "config.yaml"
    tree = read_tree(path) if path.exists() else None
    kept = tree.get("data") if isinstance(tree, dict) else None
    return kept if isinstance(kept, dict) else {}


def _check_decoding(run: Run, config: DataConfig, data: Data, kept: Any) -> None:
    """Name data.memory_gib where it makes data look like others: files are hashed, or pixels that are kept decoded."""
    if kept is None or kept == config.memory_gib:
        return
    for name in ("supernet", "blockwise", "search"):
        path = run.path / name / "stage.json"
        made = read_json(path, ("inputs",))["inputs"].get("data") if path.exists() else None
        if made not in (None, data.fingerprint):
            expected = f"{kept}, as {run.path} was made with: it decides whether images are kept decoded, and by what "
            expected += "they are compared with those of the run"
            hint = f"use data.memory_gib={kept}, or another --run"
            raise SettingError("data.memory_gib", config.memory_gib, expected, hint)
