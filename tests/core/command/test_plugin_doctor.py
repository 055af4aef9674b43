"""`referee plugins doctor`: what is broken is told with its mend and ends with 1; what is odd is a note."""

from __future__ import annotations

import importlib.metadata
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from referee.command import plugin_doctor
from referee.command.app import main
from referee.command.doctor import Finding
from referee.plugins import discover

GOOD = """
from pydantic import BaseModel, ConfigDict
from referee.hooks import Spec, hookimpl

class Options(BaseModel):
    model_config = ConfigDict(frozen=True)
    colour: str = "red"

@hookimpl
def referee_referees(register):
    register(Spec("{name}", "", lambda options, place: None, Options))
"""


class Shelf:
    """Distributions laid down as pip does it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def lay(self, name: str, code: str, *needs: str) -> None:
        (self.folder / f"doctored_{name}.py").write_text(code)
        info = self.folder / f"{name}-1.2.dist-info"
        info.mkdir()
        lines = [
            "Metadata-Version: 2.1",
            f"Name: {name}",
            "Version: 1.2",
            *(f"Requires-Dist: {need}" for need in needs),
        ]
        (info / "METADATA").write_text("\n".join(lines) + "\n")
        (info / "entry_points.txt").write_text(f"[referee]\n{name} = doctored_{name}\n")

    def findings(self, **asked: object) -> list[Finding]:
        distributions = importlib.metadata.distributions(path=[str(self.folder)])
        found = [entry for each in distributions for entry in each.entry_points if entry.group == "referee"]
        registry = discover(found=found, environment={}, **asked)  # type: ignore[arg-type]
        return list(plugin_doctor.examine(registry, found))

    def about(self, name: str, status: str, **asked: object) -> list[str]:
        return [f.told for f in self.findings(**asked) if (f.about, f.status) == (name, status)]


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shelf]:
    monkeypatch.syspath_prepend(str(tmp_path))
    yield Shelf(tmp_path)
    for name in [name for name in sys.modules if name.startswith("doctored_")]:
        del sys.modules[name]


def test_options_that_help_nobody_are_noted(shelf: Shelf) -> None:
    shelf.lay("plain", GOOD.replace("{name}", "plain"))
    assert shelf.about("plug-in plain", "ok") == ["plain 1.2: referee plain"]
    assert shelf.about("needs of plain", "ok") == ["all met"]
    bare, loose = shelf.about("referee plain", "note")
    assert bare == "nothing says what colour means: `referee plugins show plain`"
    assert "a misspelt option would do nothing" in loose


def test_what_fails_is_broken_with_its_mend(shelf: Shelf) -> None:
    shelf.lay("lacking", "import no_such_library.deep")
    shelf.lay("torn", "1 / 0")
    (told,) = shelf.about("plug-in lacking", "broken")
    assert told.endswith("Try: pip install no_such_library, or leave it out: -p no:lacking")
    (told,) = shelf.about("plug-in torn", "broken")
    assert told == "ZeroDivisionError: division by zero. Try: pip install --upgrade torn, or leave it out: -p no:torn"
    assert shelf.about("plug-in torn", "note", block=["torn"]) == ["blocked by -p no:torn"]
    shelf.lay("newer", "REFEREE_API = 1000")
    (told,) = shelf.about("plug-in newer", "broken")
    assert told.endswith("pip install --upgrade vlm-referee should mend it. Or: -p no:newer")
    assert told.count("pip install") == 1


def test_unmet_needs_are_broken_and_those_of_extras_and_other_systems_are_not(shelf: Shelf) -> None:
    others = ('nothing-at-all; extra == "all"', 'nothing-at-all; python_version < "3"')
    shelf.lay("needy", "", "pluggy>=1", "pluggy>=1000", "no-such-thing>=2", *others)
    (told,) = shelf.about("needs of needy", "broken")
    version = importlib.metadata.version("pluggy")
    assert told == (
        f"pluggy>=1000 (here is {version}), no-such-thing>=2 (not installed). Try: pip install --upgrade needy"
    )


def test_a_slow_start_is_noted(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    shelf.lay("heavy", "import numpy")
    (told,) = shelf.about("plug-in heavy", "note")
    assert "imports numpy" in told
    shelf.lay("light", "")
    assert shelf.about("plug-in light", "note") == []
    monkeypatch.setattr(plugin_doctor, "SLOW", -1.0)
    (told,) = shelf.about("plug-in light", "note")
    assert told.startswith("slow: doctored_light takes 0.0 s whenever the command starts;")


def test_options_that_cannot_be_pickled_are_noted(shelf: Shelf) -> None:
    shelf.lay("locked", GOOD.replace("{name}", "locked").replace('str = "red"', "object = lambda: 1"))
    (told,) = shelf.about("plug-in locked", "note")
    assert told.startswith("the options of referee 'locked' cannot be pickled for another process: ")


def test_two_of_one_name_are_noted(shelf: Shelf) -> None:
    for name in ("one", "two"):
        shelf.lay(name, GOOD.replace("{name}", "same"))
    (told,) = shelf.about("referee same", "note")[-1:]
    assert told == "two plug-ins offer it: say one:same or two:same, or leave one out by -p no:NAME"


def test_the_command_ends_with_1_if_something_is_broken(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*words: str) -> tuple[object, str]:
        monkeypatch.setattr(sys, "argv", ["referee", "plugins", "doctor", *words])
        with pytest.raises(SystemExit) as end:
            main()
        return end.value.code or 0, capsys.readouterr().out

    monkeypatch.setattr(plugin_doctor, "_start", lambda about, module: iter(()))  # tested above, and slow
    code, out = run()
    assert (code, "✗" in out) == (0, False)  # our own plug-ins are whole
    assert "✓ needs of vlm-referee" in out
    shelf.lay("torn", "1 / 0")
    code, out = run()
    assert (code, out.splitlines()[-1]) == (1, "Broken: plug-in torn.")
    code, out = run("--json")
    assert (code, json.loads(out)["broken"]) == (1, ["plug-in torn"])
    assert run("-p", "no:torn")[0] == 0
