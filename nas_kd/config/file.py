"""Config files: YAML that holds nothing but known settings with values of their types."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from nas_kd.config.paths import working_folder
from nas_kd.config.reading import decoded, read_bytes
from nas_kd.config.settings import Settings, setting_error, settings_of
from nas_kd.errors import SettingError, nearest_setting

LARGEST = 2**18  # bytes; all settings with their explanations take 10,000


class Loader(yaml.SafeLoader):
    """PyYAML's safe loader, which creates plain values only; a name that is given twice is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names = Counter(key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode))
        for name, times in names.items():
            if times > 1:
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
    tree = read_tree(path)
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
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError):
        return text
    return text if setting_error(kind, name, value) and not setting_error(kind, name, text) else value


def read_tree(path: Path) -> Any:
    """Read any YAML file, UTF-8 or what its byte-order mark says.

    Raises:
        SettingError: it does not exist, cannot be read, is too large or no YAML.
    """
    try:
        content = read_bytes(path, LARGEST, field="config", hint="pass a YAML file of settings")
    except FileNotFoundError:
        hint = f"check the path; the working folder is {working_folder()}"
        raise SettingError("config", str(path), "a YAML file", hint) from None
    try:
        return yaml.load(decoded(content), Loader)
    except RecursionError as error:
        raise SettingError("config", str(path), "a YAML file of settings", "reduce the nesting") from error
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # also UnicodeDecodeError, numbers of 5,000 digits
        text = " ".join(str(error).split())
        raise SettingError("config", str(path), "a YAML file", f"fix the syntax: {text[:300]}") from error
