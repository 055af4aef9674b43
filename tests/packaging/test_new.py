"""A project that `referee plugins new` writes: its tests pass as they are, it installs, and it is found."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from referee.command.scaffold import USAGE


@pytest.mark.parametrize("kind", USAGE)
def test_its_tests_pass_as_they_are(fresh: Callable[..., Any], kind: str, tmp_path: Path) -> None:
    environment = fresh(editable=True)
    folder = tmp_path / "mine"
    made = environment.run("-m", "referee", "plugins", "new", "my-part", "--kind", kind, "--out", folder)
    assert made.returncode == 0, made.stdout + made.stderr
    done = environment.run("-m", "pytest", "-q", "-p", "no:cacheprovider", cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout


def test_it_installs_and_is_found(fresh: Callable[..., Any], tmp_path: Path) -> None:
    environment = fresh(editable=True)
    folder = tmp_path / "mine"
    environment.run("-m", "referee", "plugins", "new", "my-part", "--out", folder)
    environment.install(folder)
    row = environment.plugins()["my-part"]
    assert (row["distribution"], row["version"], row["status"]) == ("referee-my-part", "0.1.0", "active")
    checked = environment.run("-m", "referee", "plugins", "check", "my-part:brightness=0.2", "--json")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert {found["status"] for found in json.loads(checked.stdout)} == {"ok", "skipped"}
    again = environment.run("-m", "referee", "plugins", "new", "my-part")
    assert again.returncode == 2
    assert "is taken by the installed plug-in referee-my-part" in again.stderr
