"""What makes the command pleasant to type: examples that are taken as they stand, and the shell's Tab."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from referee.command.app import app, main

ROOT: Any = get_command(app)


def commands(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command, by the words that call it; converters are made by plug-ins, and are not looked into."""
    yield path, group
    for name, command in getattr(group, "commands", {}).items():
        yield from commands(command, (*path, name))


COMMANDS = dict(commands(ROOT))


def examples(command: Any) -> list[str]:
    text = re.sub(r"\[/?dim\]", "", f"{command.help or ''}\n{command.epilog or ''}").replace("Example: ", "")
    return [line.strip() for line in text.splitlines() if line.strip().startswith("referee ")]


def taken(words: list[str]) -> tuple[tuple[str, ...], dict[str, Any]]:
    """The command that words call, and what it is given; an error of usage if they make no sense. Runs nothing."""
    context, command, path = None, ROOT, ()
    while True:
        context = command.make_context(command.name, list(words), parent=context)
        left = [*context._protected_args, *context.args] if hasattr(command, "resolve_command") else []
        if not left:
            return path, context.params
        name, command, words = command.resolve_command(context, left)
        path = (*path, name)


@pytest.mark.parametrize("path", COMMANDS, ids=lambda path: " ".join(("referee", *path)))
def test_every_command_has_an_example_that_is_taken(path: tuple[str, ...]) -> None:
    found = examples(COMMANDS[path])
    assert found
    for line in found:
        called, _ = taken(shlex.split(line)[1:])
        assert called[: len(path)] == path, line


def test_an_example_that_makes_no_sense_would_be_seen() -> None:
    with pytest.raises(Exception, match="No such option"):
        taken(["generate", "red", "--refree", "clip"])


def tab(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], line: str) -> list[str]:
    """What the shell offers at the end of a line."""
    for name, value in (
        ("_REFEREE_COMPLETE", "complete_bash"), ("COMP_WORDS", line), ("COMP_CWORD", str(line.count(" "))),
    ):  # fmt: skip
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "argv", ["referee"])
    with pytest.raises(SystemExit) as end:
        main()
    assert not end.value.code
    caught = capsys.readouterr()
    assert caught.err == ""
    return caught.out.split()


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("referee gen", ["generate"]),
        ("referee re", ["resume", "report"]),
        ("referee generate --preview", ["--preview-every"]),
        ("referee generate red -r cl", ["clip"]),
        ("referee generate red --prior stable", ["stable-diffusion"]),
        ("referee generate red --zoo poc", ["pocket"]),
        ("referee zoo show poc", ["pocket"]),
        ("referee zoo ch", ["check"]),
        ("referee generate red -r nobody", []),
    ],
)
def test_the_shells_tab(
    line: str, offered: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tab(monkeypatch, capsys, line) == offered


@pytest.mark.skipif(not shutil.which("bash"), reason="no bash is installed")
def test_tab_in_a_real_bash(tmp_path: Path) -> None:
    """The script that `--show-completion` prints, taken in by bash, asks the command and offers what it says."""
    called = tmp_path / "referee"
    code = "import sys; sys.argv[0] = 'referee'; from referee.command.app import main; main()"
    called.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{code}" "$@"\n')
    called.chmod(0o755)
    script = """
        eval "$(_REFEREE_COMPLETE=source_bash referee)"
        how=$(complete -p referee); how=${how#*-F }; how=${how%% *}
        COMP_WORDS=(referee generate red -r cl) COMP_CWORD=4
        "$how" referee cl -r && echo "${COMPREPLY[@]}"
    """
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert (done.stdout.split(), done.stderr) == (["clip"], "")
