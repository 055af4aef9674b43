"""What the documents tell a person to type or to open is there."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from pages import everything

from referee.rules import Rules

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("**/*.md"), *(ROOT / "examples").glob("**/*.md")])
HELLO = ROOT / "examples" / "referee-hello"

documents = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())


def code(document: Path) -> list[str]:
    """Lines of code blocks, and what stands between backticks in a line."""
    text = document.read_text(encoding="utf-8")
    blocks = re.findall(r"^```.*?\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
    rest = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    return [line.strip() for block in blocks for line in block.splitlines()] + re.findall(r"`([^`\n]+)`", rest)


@documents
def test_make_targets_exist(document: Path) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    told = {found[1] for line in code(document) if (found := re.match(r"(?:\$ )?make ([a-z]+)", line))}
    assert told <= targets


@documents
def test_links_lead_somewhere(document: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)", document.read_text(encoding="utf-8"))
    local = [link for link in links if "://" not in link and not link.startswith("mailto:")]
    made = {(ROOT / "docs" / page).resolve() for page in [*everything(), "contributing.md"]}  # when the site is built
    assert not [link for link in local if not (path := document.parent / link).exists() and path.resolve() not in made]


@documents
def test_rules_are_called_by_their_names(document: Path) -> None:
    told = {name for line in code(document) for name in re.findall(r"\brules\.([a-z_]+)(?![a-z_.]*py)", line)}
    assert told - {"py", "stepz"} <= set(Rules.model_fields)  # stepz: how it is refused is told


@pytest.mark.parametrize("name", ["pyproject.toml", "referee_hello/__init__.py", "referee_hello/colour.py"])
def test_the_worked_example_is_the_real_one(name: str) -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert (HELLO / name).read_text(encoding="utf-8") in text


def test_the_check_of_every_change_runs_make_test() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert script.read_text(encoding="utf-8").rstrip().endswith("make test")


def test_no_page_names_a_place_on_the_machine_that_built_it() -> None:
    told = "\n".join(everything().values())
    assert str(Path(__file__).parents[2]) not in told
    assert str(Path.home()) not in told
