"""A config file: YAML with nothing in it but data, names that exist and values of their types."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nas_kd.config.typed import fits, hints_of, worded
from nas_kd.config.whole import Config
from nas_kd.errors import SettingError, nearest_setting

LARGEST = 2**20  # bytes; all settings with their explanations take 10,000


def read_file(path: Path) -> dict[str, Any]:
    """Read a config file and check its names and the types of its values.

    Args:
        path: the file.

    Returns:
        The settings in it, by section.

    Raises:
        SettingError: there is no such file, it is no YAML of settings, or a setting in it is not usable.
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
    hints = hints_of(Config)

    def walk(branch: Mapping[Any, Any], prefix: str) -> None:
        for key, value in branch.items():
            name = f"{prefix}{key}"
            if any(full.startswith(f"{name}.") for full in hints):
                if not isinstance(value, Mapping):
                    mend = f"leave it out, or write `{name}: {{...}}` with settings that `nas-kd run --help` lists"
                    raise SettingError(name, value, "a mapping of settings", mend)
                walk(value, f"{name}.")
            elif name not in hints:
                raise nearest_setting(name, hints)
            elif not fits(value, hints[name], read=False):
                raise SettingError(name, value, worded(hints[name]), "see `nas-kd run --help`, or leave it out")

    walk(tree, "")
    return dict(tree)


def _tree(content: bytes, path: str) -> Any:
    import yaml

    class Loader(yaml.SafeLoader):
        """PyYAML's safe loader, which makes plain values only, without its liking for the last of two equal names."""

        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
            names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
            for name in names:
                if names.count(name) > 1:
                    raise yaml.constructor.ConstructorError(None, None, f"{name} is given twice", node.start_mark)
            return super().construct_mapping(node, deep)

    try:
        return yaml.load(content, Loader)
    except RecursionError as error:
        raise SettingError("config", path, "a YAML file of settings", "mend it: it is nested too deeply") from error
    except (yaml.YAMLError, ValueError) as error:  # also UnicodeDecodeError, numbers of 5,000 digits, no such dates
        text = " ".join(str(error).split())
        raise SettingError("config", path, "a YAML file", f"mend it: {text[:300]}") from error
