"""A crash names the plug-in whose code is nearest to it, if it is not one of ours."""

from __future__ import annotations

import importlib
import sys
from importlib.metadata import EntryPoint, PathDistribution
from pathlib import Path
from typing import Any

import pytest

from referee.command.crash import blame, report
from referee.plugins import Registry

CODE = """
def fails(deeper=None):
    if deeper:
        deeper()
    raise KeyError("tokens")


def fails_for_another_reason():
    try:
        fails()
    except KeyError as error:
        raise RuntimeError("no words") from error
"""


def lay(folder: Path, name: str, distribution: str, monkeypatch: pytest.MonkeyPatch) -> tuple[EntryPoint, Any]:
    (folder / f"stranger_{name}.py").write_text(CODE)
    info = folder / f"{distribution}-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text(f"[referee]\n{name} = stranger_{name}\n")
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, f"stranger_{name}", raising=False)
    (entry,) = PathDistribution(info).entry_points
    return entry, importlib.import_module(f"stranger_{name}")


def error_of(call: Any) -> Exception:
    with pytest.raises(Exception) as caught:  # noqa: PT011
        call()
    return caught.value


def test_the_innermost_stranger_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outer, one = lay(tmp_path, "outer", "referee-outer", monkeypatch)
    inner, two = lay(tmp_path, "inner", "referee-inner", monkeypatch)
    said = blame(error_of(lambda: one.fails(two.fails)), [outer, inner])
    assert said == "This happened in the plug-in 'inner' (referee-inner 1.2). To go on without it: -p no:inner"
    assert "'outer' (referee-outer 1.2)" in blame(error_of(lambda: one.fails()), [outer, inner])


def test_a_cause_in_a_plugin_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry, module = lay(tmp_path, "stranger", "referee-stranger", monkeypatch)

    def wraps() -> None:
        try:
            module.fails_for_another_reason()
        except RuntimeError as error:
            raise ValueError("elsewhere") from error

    error = error_of(wraps).with_traceback(None)
    assert "-p no:stranger" in blame(error, [entry])


def test_our_own_and_nobodys_crashes_blame_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own, module = lay(tmp_path, "own", "vlm-referee", monkeypatch)
    assert blame(error_of(module.fails), [own]) == ""
    assert blame(error_of(lambda: 1 / 0)) == ""


def test_a_single_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from referee.hooks import Spec, hookimpl\n\n@hookimpl\ndef referee_step(step):\n    1 / 0\n"
    )
    registry = Registry()
    registry.add_file(tmp_path / "mine.py")
    error = error_of(lambda: registry.hook.referee_step(step=0))
    assert blame(error) == "This happened in the plug-in file mine.py, given by --plugin."


def test_the_report_has_the_traceback_and_then_the_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    entry, module = lay(tmp_path, "stranger", "referee-stranger", monkeypatch)
    assert entry.name == "stranger"  # found without being told, as the folder is on the path
    assert report(error_of(module.fails)) == 1
    said = capsys.readouterr().err
    assert "Traceback" in said
    assert said.rstrip().endswith("To go on without it: -p no:stranger")
