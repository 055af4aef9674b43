"""The doctor: what it finds where all is well, and that what is broken ends with 1."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from referee.command import doctor
from referee.command.app import main


def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[object, str]:
    monkeypatch.setattr(sys, "argv", ["referee", "doctor", *words])
    with pytest.raises(SystemExit) as end:
        main()
    return end.value.code or 0, capsys.readouterr().out


def test_the_self_test_plays_and_the_loss_falls() -> None:
    (found,) = doctor.self_test()
    assert (found.about, found.status) == ("self-test", "ok")
    assert found.told.startswith("20 steps in ")


def test_a_loss_that_does_not_fall_is_broken() -> None:
    (found,) = doctor.self_test(steps=1)
    assert found.status == "broken"


def test_everything_is_looked_at() -> None:
    found = {finding.about: finding for finding in doctor.examine([])}
    for about in (
        "python",
        "torch",
        "pydantic",
        "device cpu",
        "plug-in clip",
        "zoo pocket",
        "disk",
        "memory",
        "self-test",
    ):
        assert about in found
    assert found["zoo pocket"].status == "ok"
    assert {f.status for f in found.values()} <= {"ok", "note"}
    assert found["plug-in blip2"].told.endswith("referee blip2, converter blip2")


def test_a_broken_plugin_is_told_and_ends_with_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(doctor, "_zoos", lambda files: iter(()))
    monkeypatch.setattr(doctor, "_libraries", lambda: iter([doctor.Finding("torch", "ok", "2")]))
    assert run(monkeypatch, capsys, "--json")[0] == 0
    (tmp_path / "bad.py").write_text("import nothing_of_that_name")
    code, out = run(monkeypatch, capsys, "--json", "--plugin", str(tmp_path / "bad.py"))
    said = json.loads(out)
    assert (code, said["broken"]) == (1, ["plug-ins"])
    (told,) = [f["told"] for f in said["findings"] if f["status"] == "broken"]
    assert "No module named 'nothing_of_that_name'" in told
    assert any(f["about"] == "self-test" for f in said["findings"])  # the rest is looked at all the same
    code, out = run(monkeypatch, capsys, "--plugin", str(tmp_path / "bad.py"))
    assert code == 1
    assert out.splitlines()[-1] == "Broken: plug-ins."
