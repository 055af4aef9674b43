"""Pipes, devices and holes under the names of files that are read: each is refused or passed over, and none is waited
for."""

from __future__ import annotations

import hashlib
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from referee.command.app import main
from referee.errors import OptionError, WeightsError
from referee.folder.record import hashes
from referee.layers import read_toml
from referee.pixels import from_pillow
from referee.plugins import Registry
from referee.settings import Settings
from referee.weights import check_safetensors

pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")


@pytest.fixture(autouse=True)
def _soon() -> Iterator[None]:
    """Who waits fails."""

    def ring(*_: object) -> None:
        raise AssertionError("it waits for a pipe, or reads a device")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(20)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def odd(folder: Path, suffix: str) -> list[Path]:
    """A pipe, a link to a device that never ends, a hole of 8 TB, a folder."""
    paths = [folder / f"{name}{suffix}" for name in ("pipe", "device", "hole", "folder")]
    os.mkfifo(paths[0])
    paths[1].symlink_to("/dev/zero")
    with paths[2].open("wb") as file:
        file.truncate(1 << 43)
    paths[3].mkdir()
    return paths


def test_weights_are_summed_up_of_plain_files_alone(tmp_path: Path) -> None:
    (tmp_path / "deeper").mkdir()
    odd(tmp_path, ".safetensors"), odd(tmp_path / "deeper", ".safetensors")
    (tmp_path / "blob").write_bytes(b"weights")
    (tmp_path / "linked.safetensors").symlink_to(tmp_path / "blob")  # as the hub's cache lays them
    prior = {"name": "toy", "options": {"model": str(tmp_path), "pipe": str(tmp_path / "pipe.safetensors")}}
    found = hashes(Settings(zoo=None, prior=prior), Registry())
    assert found == {"toy model linked.safetensors": hashlib.sha256(b"weights").hexdigest()}


def test_a_config_is_a_plain_file(tmp_path: Path) -> None:
    for path in odd(tmp_path, ".toml"):
        with pytest.raises(OptionError, match=r"is no plain file|at most 1,048,576 are read"):
            read_toml(path)


def test_a_picture_to_score_is_a_plain_file(tmp_path: Path) -> None:
    for path in odd(tmp_path, ".png"):
        with pytest.raises(OptionError, match=r"is no plain file|at most 268,435,456 are read"):
            from_pillow(path)


def test_weights_are_a_plain_file(tmp_path: Path) -> None:
    for path in odd(tmp_path, ".safetensors"):
        with pytest.raises(WeightsError, match="is not a whole safetensors file"):
            check_safetensors(path, mend="Fetch it again.")


@pytest.mark.parametrize("name", ["page.eps", "page.pdf", "picture.pcx"])
def test_no_other_program_is_handed_a_picture_to_score(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Pillow gives PostScript to Ghostscript, and has readers of a hundred formats that nobody scores."""
    if name.endswith("eps"):
        (tmp_path / name).write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n")
    else:
        Image.new("RGB", (8, 8), "red").save(tmp_path / name)
    monkeypatch.setattr(sys, "argv", ["referee", "score", str(tmp_path / name), "a red circle", "-r", "clip"])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    assert "cannot be read as a picture: it must be one of PNG, JPEG" in capsys.readouterr().err
