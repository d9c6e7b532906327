"""A config file: YAML with nothing in it but data, names that exist and values of their types."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from nas_kd.config.settings import Settings, refusal, settings_of
from nas_kd.errors import SettingError, nearest_setting

LARGEST = 2**20  # bytes; all settings with their explanations take 10,000


class Loader(yaml.SafeLoader):
    """PyYAML's safe loader, which makes plain values only, without its liking for the last of two equal names."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for name in names:
            if names.count(name) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"{name} is given twice", node.start_mark)
        return super().construct_mapping(node, deep)


# 1e-3 and 6.5e6 are numbers, as in YAML 1.2
Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def read_file(path: Path, kind: type[Settings]) -> dict[str, Any]:
    """Read a config file and check its names and values by themselves.

    Args:
        path: the file.
        kind: the class of all settings.

    Returns:
        The settings in it by their dotted names.

    Raises:
        SettingError: there is no such file, it is no YAML of settings, or a setting in it is unknown or out of range.
    """
    try:
        content = path.read_bytes()[: LARGEST + 1] if path.is_file() else None
    except (OSError, ValueError) as error:  # a name that no file can have, a file that may not be read
        raise SettingError("config", str(path), "a YAML file that can be read", "check the path") from error
    if content is None:
        raise SettingError("config", str(path), "a YAML file", f"check the path; the working folder is {Path.cwd()}")
    if len(content) > LARGEST:
        raise SettingError("config", str(path), f"a YAML file of up to {LARGEST:,} bytes", "give a file of settings")
    tree = _tree(content, str(path))
    if not isinstance(tree, Mapping):
        raise SettingError("config", str(path), "a YAML mapping of settings", "write lines such as `space: digits`")
    known = settings_of(kind)
    found: dict[str, Any] = {}

    def walk(branch: Mapping[Any, Any], prefix: str) -> None:
        for key, value in branch.items():
            name = f"{prefix}{key}"
            if any(full.startswith(f"{name}.") for full in known):
                if not isinstance(value, Mapping):
                    hint = f"leave it out, or write `{name}: {{...}}` with settings that `nas-kd run --help_all` lists"
                    raise SettingError(name, value, "a mapping of settings", hint)
                walk(value, f"{name}.")
            elif name not in known:
                raise nearest_setting(name, known)
            elif (refused := refusal(*known[name], value)) is not None:
                raise refused
            else:
                found[name] = value

    walk(tree, "")
    return found


def read_value(kind: type[Settings], name: str, text: str) -> Any:
    """Read the text of an option as YAML, or as it is where a setting takes that and not what YAML makes of it.

    Args:
        kind: the class that declares the setting.
        name: its name there.
        text: what the command line gave.

    Returns:
        The value, checked when the settings are made of it.
    """
    if not text.strip():
        return text
    try:
        value = yaml.load(text, Loader)
    except (yaml.YAMLError, ValueError, RecursionError):
        return text
    return text if refusal(kind, name, value) and not refusal(kind, name, text) else value


def _tree(content: bytes, path: str) -> Any:
    try:
        return yaml.load(content, Loader)
    except RecursionError as error:
        raise SettingError("config", path, "a YAML file of settings", "reduce the nesting") from error
    except (yaml.YAMLError, ValueError) as error:  # also UnicodeDecodeError, numbers of 5,000 digits, no such dates
        text = " ".join(str(error).split())
        raise SettingError("config", path, "a YAML file", f"fix the syntax: {text[:300]}") from error
