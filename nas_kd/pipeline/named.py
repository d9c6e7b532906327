"""A run folder is data: code, databases and folders that its config.yaml names are used if the user named them too."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib.machinery import PathFinder
from importlib.util import find_spec
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas_kd.config.names import HUBS
from nas_kd.config.settings import default_of
from nas_kd.data.config import TEXT_FILES, DataConfig
from nas_kd.errors import SettingError
from nas_kd.runs.files import atomic_json, plain
from nas_kd.searcher.database import without_password

if TYPE_CHECKING:
    from nas_kd.pipeline.config import Config

# settings that may name code as package.module:object
CODE = (
    *("teacher.model", "teacher.others", "retrain.method", "retrain.method_settings"),
    *("rank.method", "rank.scores", "rank.primary", "rank.control"),
)
HUB_NAMES = ("teacher.model", "teacher.others")  # of those, which may be names of timm's hubs
# settings that name what is written to outside of the run folder
PLACES = ("search.storage", "teacher.cache", "data.root")
ROOT = default_of(DataConfig, "root")
MARKS = ("env.json", "space.json", "data.csv", "status.json", "log.txt")  # of a run folder


def check_named(values: Mapping[str, Any], folder: Path) -> None:
    """Check that the user has named what the settings of a run folder would run, connect to or write to outside of it.

    He has where the run was made by this user, by the record that `keep_named` wrote; what lies in the folder itself
    is in no record.

    Args:
        values: the settings of the folder's config.yaml, by dotted names, without those that the command line gives.
        folder: the run folder.

    Raises:
        SettingError: with what to add to the command.
    """
    known = _read(folder)
    missing = {name: values[name] for name, entry in _named(values, folder).items() if entry not in known}
    if not missing:
        return
    first = next(iter(missing))
    add = " ".join(f"--{name} {_quoted(value)}" for name, value in missing.items())
    expected = (
        f"what you name yourself: {folder / 'config.yaml'} is data, and code, databases and folders outside of it are "
        "not used because it names them"
    )
    raise SettingError(first, missing[first], expected, f"if you trust them, add to the command: {add}")


def keep_named(config: Config) -> None:
    """Record outside of a run folder what the user has named for it, for later commands that name the folder alone.

    Args:
        config: the settings of a command that is about to start; its folder may not exist yet.
    """
    folder = Path(str(config.run))
    values = {name: attrgetter(name)(config) for name in ("space", *CODE, *PLACES, "data.download", "data.train")}
    known = _read(folder)
    new = [entry for entry in _named(values, folder).values() if entry is not None and entry not in known]
    if not new:
        return
    path = _record(folder)
    with suppress(OSError, SettingError):  # without a home to write to, names are given again
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        atomic_json(path, {"run": os.path.realpath(folder), "named": [*known, *new]})


def run_of(config: Path) -> Path | None:
    """Return the run folder whose config.yaml a file is; None for a config file of the user's own."""
    here = config.parent
    own = config.name == "config.yaml" and any((here / name).exists() for name in MARKS)
    return here if own else None


def _named(values: Mapping[str, Any], folder: Path) -> dict[str, list[Any] | None]:
    """Return setting, value and origin of what settings name; None for what lies in the run folder itself."""
    found: dict[str, list[Any] | None] = {}
    for name in ("space", *CODE, *PLACES):
        value = values.get(name)
        if name == "search.storage" and isinstance(value, str):
            value = without_password(value)
        if name == "data.root" and (value == ROOT or not _fills_root(values)):
            continue  # it is only read
        several = value.values() if isinstance(value, Mapping) else value if isinstance(value, Sequence) else ()
        given = [value] if isinstance(value, str) else several
        origins = [origin for each in given if isinstance(each, str) for origin in _origin(name, each)]
        inside = any(origin.startswith(os.path.join(os.path.realpath(folder), "")) for origin in origins)
        if origins and not (inside and name in PLACES):  # it may write into itself
            found[name] = None if inside else [name, plain(value), origins]
    return found


def _fills_root(values: Mapping[str, Any]) -> bool:
    """Tell whether anything may be written to data.root: what is downloaded, or tokens, if the data may be texts."""
    train = str(values.get("data.train", TEXT_FILES[0])).lower()
    return values.get("data.download", True) is not False or train.endswith(TEXT_FILES) or train.startswith("hfds/")


def _origin(name: str, value: str) -> list[str]:
    """Return where a value leads to: a file of code, a folder, a database; nothing where it names none of them."""
    if name == "space":
        return [os.path.realpath(value)] if value.endswith(".py") else []
    if name == "search.storage":
        return [value]
    if name in PLACES:
        return [os.path.realpath(os.path.expanduser(value))]
    if ":" not in value or (name in HUB_NAMES and value.startswith(HUBS)):
        return []
    top = value.partition(":")[0].partition(".")[0]
    try:  # to find a package at the top runs nothing
        spec = find_spec(top) or PathFinder.find_spec(top, [os.getcwd()])
    except (ImportError, ValueError, AttributeError):
        spec = None
    if spec is None:
        return [""]
    places = [spec.origin] if spec.has_location and spec.origin else list(spec.submodule_search_locations or [""])
    return [os.path.realpath(place) for place in places]


def _quoted(value: Any) -> str:
    return shlex.quote(value if isinstance(value, str) else json.dumps(value))


def _record(folder: Path) -> Path:
    """Return the file that holds what the user has named for a run folder."""
    state = os.environ.get("XDG_STATE_HOME") or os.path.join(os.path.expanduser("~"), ".local", "state")
    digest = hashlib.sha256(os.fsencode(os.path.realpath(folder))).hexdigest()[:24]
    return Path(state) / "nas_kd" / "named" / f"{digest}.json"


def _read(folder: Path) -> list[Any]:
    try:
        found = json.loads(_record(folder).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    right = isinstance(found, dict) and found.get("run") == os.path.realpath(folder)
    return found["named"] if right and isinstance(found.get("named"), list) else []
