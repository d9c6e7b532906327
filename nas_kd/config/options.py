"""The arguments of a command: one file or folder, and dotted options."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from nas_kd.errors import SettingError, nearest_setting

FLAGS = ("--help", "-h", "--help_all", "--print_config")
OPEN = "retrain.method_settings"  # which there are depends on the method


def split_options(
    arguments: Sequence[str], short: Mapping[str, str], settings: Iterable[str]
) -> tuple[str | None, list[str]]:
    """Part the file or folder of a command from its options, so that options win wherever it stands.

    Args:
        arguments: of the command.
        short: short name, or beginning of a name with its point, to what it stands for.
        settings: dotted names of all settings.

    Returns:
        The file or folder, or None; the options as ``--NAME=VALUE``, and flags.

    Raises:
        SettingError: a setting is unknown or lacks its value, or there are two files.
    """
    known = ["config", *settings]
    source = None
    options = []
    rest = list(arguments)
    while rest:
        token = rest.pop(0)
        option, equals, value = token.partition("=")
        if option in FLAGS:
            options.append(token)
            continue
        if not option.startswith("--"):
            if source is not None:
                raise SettingError("CONFIG.yaml", token, f"one config file, {source} is given", "leave one out")
            source = token
            continue
        name, dot, setting = option[2:].partition(".")
        if name + dot in short:
            option = f"--{short[name + dot]}{setting}"
        if option[2:] not in known and not re.fullmatch(rf"{re.escape(OPEN)}\.\w+", option[2:]):
            raise nearest_setting(option[2:], known)
        if not equals:
            if not rest:
                raise SettingError(option[2:], None, "a value", f"write {option} VALUE")
            value = rest.pop(0)
        if option == "--config":
            source = value
        else:
            options.append(f"{option}={value}")
    return source, options
