"""What `--help` prints."""

from __future__ import annotations

from nas_kd.pipeline.command_table import COMMANDS, MACHINE, READERS


def overview() -> str:
    """Return the help of all commands."""
    width = max(map(len, COMMANDS))
    commands = "\n".join(f"  {name:{width}}  {command.help}" for name, command in COMMANDS.items())
    return f"""usage: nas-kd COMMAND [CONFIG.yaml] [--run DIR] [--SETTING VALUE ...]

Find, retrain and explain the student network that a fixed teacher teaches best within a budget.

commands:
{commands}

`nas-kd COMMAND --help` lists its settings, `--help_all` all there are, `--print_config` prints them as YAML.
`nas-kd export STUDENT` takes a student folder in the place of CONFIG.yaml.
`nas-kd search RUN --worker` and `nas-kd rank RUN --worker` help a run that is going with one more process.
`nas-kd --completion` prints what completes all of this in bash and zsh, `--version` the versions.
The same command again goes on where the last one stopped."""


def help_of_command(command: str, everything: bool = False) -> str:
    """Return the help of a command.

    Args:
        command: its name.
        everything: all settings, not only those that are used most.
    """
    from nas_kd.config.help import listed, settings_help
    from nas_kd.config.settings import fields_of
    from nas_kd.export.config import ExportConfig
    from nas_kd.pipeline.config import Config

    shown = COMMANDS[command].shown
    lines = [f"usage: nas-kd {command} [CONFIG.yaml] [--run DIR] [--SETTING VALUE ...]", "", COMMANDS[command].help]
    if command == "methods":
        return "\n".join(["usage: nas-kd methods", *lines[1:]])
    if command == "init":
        lines[0] = "usage: nas-kd init [FILE.yaml] [--time 2h] [--SETTING VALUE ...]"
    if command == "compare":
        lines[0] = "usage: nas-kd compare RUN RUN ... [--out DIR]"
        return "\n".join([*lines, "", "compare.csv, settings.csv and compare.svg are written to DIR (compare)."])
    if command in READERS:
        lines[0] = f"usage: nas-kd {command} RUN"
    if command == "export":
        lines[0] = "usage: nas-kd export STUDENT [--to FORMAT] [--SETTING VALUE ...]"
    lines += settings_help(ExportConfig if command == "export" else Config, () if everything else shown)
    if command == "export":
        return "\n".join([*lines, "", "Defaults stand in brackets. `--help_all` lists all settings of the images."])
    if command in READERS:
        return "\n".join(lines)
    lines += ["", "Defaults stand in brackets. `--print_config` prints all settings as YAML."]
    if not everything:
        sections = [f"{name}.*" for name, info in fields_of(Config).items() if "default_factory" in repr(info)]
        others = [name for name in (*MACHINE, *sections) if name.removesuffix(".*") not in shown]
        lines += [listed([f"Also there, see `nas-kd {command} --help_all`: {others[0]}", *others[1:]])]
    return "\n".join(lines)
