"""docs/troubleshooting.md tells the truth: what is typed there is typed here, and is answered as it says.

Messages that depend on the machine are held against the code that says them.
"""

from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path

import pytest
from pages.messages import GAP, messages, sources, template
from typer.testing import CliRunner

from referee.command.app import app
from referee.errors import RefereeError

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
FAMILIES = {family.__name__ for family in RefereeError.__subclasses__()}
ENOUGH = 20
"""Letters of its own that a message must have to be told by them."""


def entries() -> list[tuple[str, str, str]]:
    """(section, what is typed or "", what is answered), in order; files that the page has are "FILE name" entries."""
    found, section, typed = [], "", ""
    for part in re.finditer(r"^## ([^\n]+)$|^```(\w+)([^\n]*)\n(.*?)^```", TEXT, flags=re.MULTILINE | re.DOTALL):
        heading, language, about, body = part.groups()
        if heading:
            section = heading
        elif title := re.search('title="(.*)"', about):
            found.append((section, f"FILE {title[1]}", body))
        elif language == "sh":
            typed = body.strip()
        elif language == "text":
            found.append((section, typed, body.strip()))
            typed = ""
    return found


ENTRIES = [entry for entry in entries() if not entry[1].startswith("FILE ")]
TYPED = [entry for entry in ENTRIES if entry[1]]
QUOTED = [entry for entry in ENTRIES if not entry[1]]


def test_every_kind_of_error_is_told_and_provoked() -> None:
    assert {section for section, _, _ in TYPED} == FAMILIES
    assert len(QUOTED) > 4


@pytest.mark.parametrize(("section", "typed", "answer"), TYPED, ids=[typed for _, typed, _ in TYPED])
def test_what_is_typed_is_answered_so(
    section: str, typed: str, answer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    files = [(name.removeprefix("FILE "), text) for _, name, text in entries() if name.startswith("FILE ")]
    for name, text in files:
        Path(name).write_text(text)
    done = CliRunner().invoke(app, shlex.split(typed)[1:])
    assert type(done.exception).__name__ == section
    assert str(done.exception) == answer
    assert sorted(path.name for path in tmp_path.iterdir() if path.suffix != ".pyc" and path.is_file()) == sorted(
        name for name, _ in files
    )  # nothing was written


@pytest.mark.parametrize(("section", "answer"), [(section, answer) for section, _, answer in QUOTED])
def test_what_is_quoted_stands_in_the_code(section: str, answer: str) -> None:
    known = messages()[section] if section in FAMILIES else sentences()
    own = {text for text in known if len(text.replace(GAP, "").strip()) >= ENOUGH}
    assert any(re.fullmatch(".*?".join(map(re.escape, text.split(GAP))), answer, flags=re.DOTALL) for text in own)


def sentences() -> set[str]:
    """Every f-string of the sources, with gaps."""
    trees = (ast.parse(path.read_text(encoding="utf-8")) for path in sources())
    return {template(node) for tree in trees for node in ast.walk(tree) if isinstance(node, ast.JoinedStr)}


def test_every_way_out_named_in_prose_exists() -> None:
    """Options and keys between backticks in the last section."""
    from pages import everything

    known = "\n".join(everything().values())
    prose = TEXT.rpartition("## ")[2]
    for code in re.findall(r"`([^`]+)`", prose):
        for word in re.findall(r"--[a-z-]+|rules\.[a-z_]+|(?<=:)[a-z]+(?==)", code):
            assert word.removeprefix("rules.") in known, word
