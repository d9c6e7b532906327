"""`nas-kd init`: write a commented config for the data, the teacher, the device and the time that are given."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nas_kd.config.file import read_value
from nas_kd.config.options import split_options
from nas_kd.config.settings import build, help_of, settings_of
from nas_kd.errors import SettingError
from nas_kd.pipeline.config import Config
from nas_kd.runs.progress import format_seconds

TIME = "1h"
BUDGET = {"search.max_macs": "30%"}  # where no budget is given
WIDTH = 100
FIRST = ("space", "seed", "device", "threads", "workers", "data", "teacher", "search", "retrain")  # then the others


def read_init(arguments: Sequence[str]) -> tuple[Path, dict[str, Any], str]:
    """Read the file to write, the settings that are given, and the time.

    Args:
        arguments: ``[FILE.yaml] [--time 2h] [--SETTING VALUE ...]``.

    Returns:
        The file, the settings by their dotted names, and the time as text.

    Raises:
        SettingError: a setting is unknown or has a value it cannot take, or the file exists.
    """
    known = settings_of(Config)
    source, options = split_options(arguments, {}, ["time", *known])
    texts = {name: text for name, _, text in (option[2:].partition("=") for option in options)}
    time = texts.pop("time", TIME)
    values = {name: read_value(*known[name], text) for name, text in texts.items()}
    if not any(name.startswith(("search.max_", "search.min_")) for name in values):
        values |= BUDGET
    values.setdefault("device", "auto")
    config = build(Config, values)
    file = Path(source or f"{Path(config.data.train).stem}.yaml")
    if file.exists():
        raise SettingError("file", str(file), "a file that does not exist yet", "name another: nas-kd init FILE.yaml")
    return file, values, time


def init_command(file: Path, values: dict[str, Any], time: str) -> None:
    """Time a few steps, choose lengths that fit the time, and write the config."""
    from nas_kd.pipeline.fit_time import fit, read_time
    from nas_kd.pipeline.places import check_places
    from nas_kd.pipeline.plan import words

    seconds = read_time(time)
    check_places(build(Config, values))
    chosen, works = fit(values, seconds)
    total = sum(work.seconds for work in works)
    head = [
        f"Written by nas-kd init for {format_seconds(seconds)}; a run takes about {format_seconds(total)} here.",
        f"nas-kd describe {file} says what it will do, nas-kd run {file} does it. Every line may be changed;",
        "nas-kd run --help_all lists all settings.",
    ]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(commented(head, values | chosen), encoding="utf-8")
    print("\n".join([*words(works), f"written: {file}"]))


def commented(head: Sequence[str], values: Mapping[str, Any]) -> str:
    """Write settings as YAML with the help of each above it.

    Args:
        head: lines of the first comment.
        values: settings by their dotted names.
    """
    known = settings_of(Config)
    sections: dict[str, list[str]] = {}
    for name in sorted(values, key=lambda name: list(known).index(name)):
        section, _, _ = name.rpartition(".")
        sections.setdefault(section or name, []).append(name)
    order = sorted(sections, key=lambda each: FIRST.index(each) if each in FIRST else len(FIRST))
    lines = [f"# {line}" for line in head]
    for section in order:
        names = sections[section]
        deep = "." in names[0]
        lines += [f"{section}:"] if deep else []
        for name in names:
            indent = "  " if deep else ""
            lines += textwrap.wrap(
                help_of(*known[name]),
                WIDTH,
                initial_indent=f"{indent}# ",
                subsequent_indent=f"{indent}# ",
                break_on_hyphens=False,
                break_long_words=False,
            )
            lines.append(f"{indent}{_yaml(name.rpartition('.')[2], values[name])}")
    return "\n".join(lines) + "\n"


def _yaml(name: str, value: Any) -> str:
    import yaml

    text = yaml.safe_dump(value, default_flow_style=True, width=1_000_000).removesuffix("...\n")
    return f"{name}: {text.strip()}"
