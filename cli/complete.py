"""Print a completion script for bash or zsh: made from the commands' own parsers."""

from __future__ import annotations

import argparse

EXAMPLES = """\
examples:
  eval "$(haneul complete bash)"
  haneul complete zsh > ~/.zfunc/_haneul
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=["bash", "zsh"], help="whose completion")


def run(options: argparse.Namespace) -> int:
    print(script(options.shell))
    return 0


def words() -> dict[str, list[str]]:
    """For every command the words that may follow it: options, choices, actions."""
    from cli.main import COMMANDS, command_parser

    return {name: sorted(set(_words(command_parser(name)))) for name in COMMANDS}


def _words(parser: argparse.ArgumentParser) -> list[str]:
    found: list[str] = []
    for action in parser._actions:
        found += [option for option in action.option_strings if option.startswith("--")]
        if isinstance(action, argparse._SubParsersAction):
            for name, inner in action.choices.items():
                found += [name, *_words(inner)]
        elif action.choices:
            found += [str(choice) for choice in action.choices]
    return found


def script(shell: str) -> str:
    table = words()
    cases = "\n".join(f"        {name}) words='{' '.join(follow)}' ;;" for name, follow in table.items())
    commands = " ".join(table)
    if shell == "bash":
        return f"""\
_haneul() {{
    local current=${{COMP_WORDS[COMP_CWORD]}} words
    case ${{COMP_CWORD}}:${{COMP_WORDS[1]}} in 1:*) words='{commands}' ;; *) case ${{COMP_WORDS[1]}} in
{cases}
    esac ;; esac
    COMPREPLY=($(compgen -W "$words" -- "$current"))
}}
complete -o default -F _haneul haneul"""
    return f"""\
#compdef haneul
_haneul() {{
    local words_here
    if (( CURRENT == 2 )); then compadd -- {commands}; return; fi
    case $words[2] in
{cases.replace("words=", "words_here=")}
    esac
    compadd -- ${{=words_here}}
    _files
}}
compdef _haneul haneul"""
