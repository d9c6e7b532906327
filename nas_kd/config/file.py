"""Config files: YAML that holds nothing but known settings with values of their types."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from nas_kd.config.settings import Settings, setting_error, settings_of
from nas_kd.errors import SettingError, nearest_setting

LARGEST = 2**20  # bytes; all settings with their explanations take 10,000


class Loader(yaml.SafeLoader):
    """PyYAML's safe loader, which creates plain values only; a name that is given twice is an error."""

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
    """Read a config file and check each name and value on its own.

    Returns:
        The settings by their dotted names.

    Raises:
        SettingError: the file does not exist or holds no settings as YAML, or a setting is unknown or out of range.
    """
    try:
        content = path.read_bytes()[: LARGEST + 1] if path.is_file() else None
    except (OSError, ValueError) as error:  # an impossible file name, or no permission
        raise SettingError("config", str(path), "a YAML file that can be read", "check the path") from error
    if content is None:
        raise SettingError("config", str(path), "a YAML file", f"check the path; the working folder is {Path.cwd()}")
    if len(content) > LARGEST:
        raise SettingError("config", str(path), f"a YAML file of up to {LARGEST:,} bytes", "pass a file of settings")
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
            elif (error := setting_error(*known[name], value)) is not None:
                raise error
            else:
                found[name] = value

    walk(tree, "")
    return found


def read_value(kind: type[Settings], name: str, text: str) -> Any:
    """Parse an option of the command line as YAML, or keep the text if only that is valid for the setting."""
    if not text.strip():
        return text
    try:
        value = yaml.load(text, Loader)
    except (yaml.YAMLError, ValueError, RecursionError):
        return text
    return text if setting_error(kind, name, value) and not setting_error(kind, name, text) else value


def _tree(content: bytes, path: str) -> Any:
    try:
        return yaml.load(content, Loader)
    except RecursionError as error:
        raise SettingError("config", path, "a YAML file of settings", "reduce the nesting") from error
    except (yaml.YAMLError, ValueError) as error:  # also UnicodeDecodeError, numbers of 5,000 digits, impossible dates
        text = " ".join(str(error).split())
        raise SettingError("config", path, "a YAML file", f"fix the syntax: {text[:300]}") from error
