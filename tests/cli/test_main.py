"""The command line: help with examples, one-line failures, completion that fits the parsers."""

from __future__ import annotations

import argparse
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli import complete, main


def haneul(*arguments: str, state: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            sys.executable,
            "-W",
            "ignore",
            "-m",
            "cli.main",
            arguments[0],
            "--state",
            str(state),
            *arguments[1:],
        ],
        capture_output=True,
        text=True,
        check=False,
    )


def test_without_a_command_it_shows_all_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main([]) == 2
    shown = capsys.readouterr().out
    assert all(f"\n  {name} " in shown for name in main.COMMANDS)


@pytest.mark.parametrize("name", main.COMMANDS)
def test_every_command_has_help_with_examples(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main.main([name, "--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert "examples:" in shown
    assert f"haneul {name}" in shown.partition("examples:")[2]


def parsers() -> Iterator[argparse.ArgumentParser]:
    """Every parser that answers --help: of the commands, and of their subcommands."""
    waiting = [main.command_parser(name) for name in main.COMMANDS]
    while waiting:
        parser = waiting.pop()
        yield parser
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                waiting += action.choices.values()


@pytest.mark.parametrize("parser", list(parsers()), ids=lambda parser: parser.prog.replace(" ", "-"))
def test_help_explains_each_word_and_shows_examples_that_can_be_typed(
    parser: argparse.ArgumentParser,
) -> None:
    unexplained = [action.dest for action in parser._actions if not (action.help or action.choices)]
    assert unexplained == []
    shown = parser.format_help().partition("examples:\n")[2]
    lines = [line.partition("   ")[0] for line in shown.replace("\\\n", "").splitlines() if line.strip()]
    typed = [shlex.split(line.strip(" ")) for line in re.findall(r"haneul [^)|>\"\n]*", "\n".join(lines))]
    assert typed, "no examples"
    for _haneul, command, *words in typed:
        main.command_parser(command).parse_args(words)


@pytest.mark.parametrize("command", ["env", "status", "demo", "db check", "cell list", "logs", "serve all"])
def test_without_a_cloud_one_line_says_what_to_do(command: str, tmp_path: Path) -> None:
    done = haneul(*command.split(), state=tmp_path / "none")
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 1
    assert done.stderr.startswith(f"haneul {command.split()[0]}: there is no ")


def test_down_twice_is_harmless(tmp_path: Path) -> None:
    for _ in range(2):
        done = haneul("down", state=tmp_path)
        assert (done.returncode, done.stdout) == (0, "nothing ran\n")


def test_forget_keeps_disks_of_servers_unless_forced(tmp_path: Path) -> None:
    disk = tmp_path / "instances" / "7a1b0c52-0000-4000-8000-000000000001" / "disk"
    disk.parent.mkdir(parents=True)
    disk.write_text("precious")
    done = haneul("down", "--forget", state=tmp_path)
    assert done.returncode == 1
    assert "1 servers have disks" in done.stderr
    assert disk.read_text() == "precious"
    assert haneul("down", "--forget", "--force", state=tmp_path).returncode == 0
    assert not tmp_path.exists()


def test_completion_knows_every_command_and_option() -> None:
    words = complete.words()
    assert set(words) == set(main.COMMANDS)
    assert {"upgrade", "check", "--config-file"} <= set(words["db"])
    assert {"list", "create", "--database"} <= set(words["cell"])


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
def test_the_bash_completion_completes() -> None:
    program = (
        f"{complete.script('bash')}\n"
        'COMP_WORDS=(haneul db up); COMP_CWORD=2; _haneul; echo "${COMPREPLY[@]}"\n'
        'COMP_WORDS=(haneul do); COMP_CWORD=1; _haneul; echo "${COMPREPLY[@]}"\n'
    )
    done = subprocess.run(["bash", "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == ["upgrade", "down doctor"]


@pytest.mark.skipif(shutil.which("zsh") is None, reason="zsh is not installed")
def test_the_zsh_completion_completes() -> None:
    """With compadd, zsh's own way to offer words, replaced by one that prints them."""
    program = (
        "compdef() { :; }; _files() { :; }; compadd() { shift; print -r -- $@; }\n"
        f"{complete.script('zsh')}\n"
        "words=(haneul db u); CURRENT=3; _haneul\nwords=(haneul d); CURRENT=2; _haneul\n"
    )
    done = subprocess.run(["zsh", "-f", "-c", program], capture_output=True, text=True, check=True)
    first, second = done.stdout.splitlines()
    assert {"upgrade", "check", "--config-file"} <= set(first.split())
    assert second.split() == list(main.COMMANDS)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("nonsense://x", "URL can't be used"),
        ("nonsense", "URL can't be used"),
        ("mysql+pymysql://haneul:SECRET@127.0.0.1:9/cell2", "does not answer"),
    ],
)
def test_a_wrong_database_is_said_in_one_line(url: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "haneul.conf").write_text(f"[database]\nconnection = sqlite:///{tmp_path}/global.sqlite\n")
    ended = haneul("cell", "create", "cell2", "--database", url, state=tmp_path)
    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    assert line.startswith("haneul cell: ") and said in line and "SECRET" not in line
