"""Completion of commands, settings and their words in bash, and in zsh by its bashcompinit; needs no package."""

from __future__ import annotations

from collections.abc import Iterable

from nas_kd.config.options import FLAGS
from nas_kd.config.settings import Settings, hint_of, settings_of
from nas_kd.config.wording import names_in

SCRIPT = """\
# nas-kd: completion for bash; in zsh run `autoload -U +X bashcompinit && bashcompinit` before
_nas_kd() {{
  local current="${{COMP_WORDS[COMP_CWORD]}}" before="${{COMP_WORDS[COMP_CWORD-1]}}" words=""
  COMPREPLY=()
  if [ "$COMP_CWORD" -eq 1 ]; then
    words="{commands}"
  elif [[ "$current" == -* ]]; then
    case "${{COMP_WORDS[1]}}" in
{options}
    esac
  else
    case "$before" in
{values}
    esac
  fi
  if [ -n "$words" ]; then
    COMPREPLY=($(compgen -W "$words" -- "$current"))
  else
    COMPREPLY=($(compgen -f -- "$current"))
  fi
}}
complete -o filenames -o bashdefault -F _nas_kd nas-kd
"""


def completion(commands: Iterable[str], settings: Iterable[tuple[str, type[Settings]]]) -> str:
    """Return a script that a shell reads.

    Args:
        commands: names of all.
        settings: names of commands, between bars (``*`` is for the rest), and what their settings are declared in.
    """
    options = []
    values: dict[str, str] = {}
    for names, kind in settings:
        known = settings_of(kind)
        words = " ".join([*(f"--{name}" for name in known), *FLAGS])
        options.append(f'      {names}) words="{words}" ;;')
        for name, (owner, own) in known.items():
            hint = hint_of(owner, own)
            chosen = ("true", "false") if hint is bool else names_in(hint)
            if chosen:
                values[f"--{name}"] = " ".join(chosen)
    by_word = [f'      {option}) words="{words}" ;;' for option, words in values.items()]
    return SCRIPT.format(commands=" ".join(commands), options="\n".join(options), values="\n".join(by_word))
