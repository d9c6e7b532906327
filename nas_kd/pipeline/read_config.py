"""Settings of a command, from a config file and from dotted options."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from nas_kd.config.options import FLAGS, OPEN, split_options
from nas_kd.errors import SettingError
from nas_kd.pipeline.command_help import help_of_command
from nas_kd.pipeline.command_table import READERS, SHORT

if TYPE_CHECKING:
    from nas_kd.pipeline.config import Config


def read_config(arguments: Sequence[str], command: str = "run") -> Config | None:
    """Read settings from a config file and options; options win.

    Args:
        arguments: ``[CONFIG.yaml] [--config CONFIG.yaml] [--run DIR] [--SETTING VALUE ...]``; a run folder in
            the place of CONFIG.yaml stands for its own config.yaml and run.
        command: the command, for the help.

    Returns:
        The settings, ``run`` filled in; None when help or the configuration was printed.

    Raises:
        SettingError: a setting is unknown or has a value it cannot take.
    """
    from nas_kd.config.file import read_file, read_value
    from nas_kd.config.settings import build, settings_of
    from nas_kd.pipeline.config import Config
    from nas_kd.pipeline.named import check_named, run_of

    known = settings_of(Config)
    source, options = split_options(arguments, SHORT.get(command, {}), known)
    folder = None
    if source is not None and os.path.isdir(source):
        own = Path(source) / "config.yaml"
        if command not in READERS and not own.is_file():
            expected = "a config file, or a run folder, which holds config.yaml"
            raise SettingError("config", source, expected, "give a YAML file, or name the folder by --run")
        folder = source
        source = str(own) if own.exists() else None
    if any(flag in options for flag in ("--help", "-h", "--help_all")):
        print(help_of_command(command, "--help_all" in options))
        return None
    if source is not None and command in READERS and not os.path.exists(source):
        hint = f"check the path; the working folder is {os.getcwd()}"
        raise SettingError("run", source, "an existing run folder", hint)
    values = {} if source is None else read_file(Path(source), Config)
    theirs = dict(values)  # of the file, where the command line does not say otherwise
    for option in options:
        name, _, text = option.removeprefix("--").partition("=")
        if name.startswith(f"{OPEN}."):
            key = name.removeprefix(f"{OPEN}.")
            values[OPEN] = {**values.get(OPEN, {}), key: read_value(*known[OPEN], text)}
            theirs[OPEN] = {each: value for each, value in theirs.get(OPEN, {}).items() if each != key}
        elif option not in FLAGS:
            values[name] = read_value(*known[name], text)
            theirs.pop(name, None)
    owner = Path(folder) if folder is not None else None if source is None else run_of(Path(source))
    if owner is not None and command not in READERS and "--print_config" not in options:
        check_named(theirs, owner)
    config = build(Config, values)
    if "--print_config" in options:
        print(config.to_yaml(), end="")
        return None
    if config.run == "":
        raise SettingError("run", "", "the path of a folder", "write --run runs/NAME, or leave it out")
    if config.run is None or folder is not None:
        name = Path(source or config.space or config.teacher.model or "run").stem
        config = replace(config, run=folder or f"runs/{name}")
    return config
