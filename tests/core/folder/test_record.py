"""What a run leaves behind: whole files or none, and enough in each to make it again."""

from __future__ import annotations

import hashlib
import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from referee.errors import OutputError
from referee.folder.record import (
    choose_folder,
    describe,
    hashes,
    slug,
    strip,
    write_metrics,
    write_picture,
    write_run,
    write_strip,
    write_whole,
)
from referee.plugins import Registry
from referee.settings import Settings


def test_a_file_is_written_whole_and_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "er" / "file.bin"
    write_whole(path, b"one")
    write_whole(path, b"two")
    assert path.read_bytes() == b"two"
    assert list(path.parent.iterdir()) == [path]


def test_who_reads_the_old_file_is_not_disturbed(tmp_path: Path) -> None:
    path = tmp_path / "file.bin"
    write_whole(path, b"old")
    with path.open("rb", buffering=0) as reader:
        write_whole(path, b"another")  # a new file under the old name, not new bytes in the old file
        assert reader.read() == b"old"


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()], ids=["full", "ctrl-c"])
def test_a_write_that_fails_leaves_the_old_file_and_no_other(
    error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file.bin"
    write_whole(path, b"old")

    def fail(descriptor: int) -> None:
        raise error

    monkeypatch.setattr("os.fsync", fail)  # the last thing before the new name: all bytes are in the temporary file
    with pytest.raises(OutputError if isinstance(error, OSError) else KeyboardInterrupt) as caught:
        write_whole(path, b"new")
    if isinstance(error, OSError):
        assert str(caught.value) == f"{path} cannot be written: No space left on device."
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_where_a_folder_should_be_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(OutputError, match=r"picture\.png cannot be written"):
        write_whole(tmp_path / "taken" / "picture.png", b"")
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


HOSTILE = [
    "../../etc/passwd",
    "/",
    "..",
    ".",
    "C:\\con",
    "a\0b",
    "\u202eevil",
    "日本",
    "-rf",
    "~",
    "$(reboot)",
    "a/./b",
]


@pytest.mark.parametrize("prompt", HOSTILE)
def test_prompts_are_data_and_never_paths(prompt: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = choose_folder(None, prompt, 0)
    assert folder.parent == Path("runs")
    assert folder.name[0].isalnum()


@given(st.text())
def test_slugs_are_short_and_plain(text: str) -> None:
    found = slug(text)
    assert 1 <= len(found) <= 60
    assert set(found) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
    assert found.strip("-") == found
    assert slug(found) == found


def test_slug_says_what_was_drawn() -> None:
    assert slug("A red circle, 2 blue squares!") == "a-red-circle-2-blue-squares"
    assert slug("日本") == "picture"
    assert len(slug("word " * 50)) == 59  # cut at 60, less the dash


def test_a_fresh_folder_is_chosen_and_not_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert choose_folder(None, "red", 3) == Path("runs/red-3")
    assert list(tmp_path.iterdir()) == []
    for expected in ("runs/red-3-2", "runs/red-3-3"):
        (tmp_path / choose_folder(None, "red", 3)).mkdir(parents=True)
        assert choose_folder(None, "red", 3) == Path(expected)
    assert choose_folder(tmp_path / "new" / "deeper", "red", 3) == tmp_path / "new" / "deeper"


def test_folders_that_are_refused(tmp_path: Path) -> None:
    for name in ("run.toml", "picture-3.png", "metrics.jsonl", "evolution.png"):
        (tmp_path / name).write_text("")
        with pytest.raises(OutputError, match=rf"holds another run \({name}\)"):
            choose_folder(tmp_path, "red", 0)
        (tmp_path / name).unlink()
    (tmp_path / "notes.txt").write_text("")
    assert choose_folder(tmp_path, "red", 0) == tmp_path
    with pytest.raises(OutputError, match="name too long"):
        choose_folder(tmp_path / ("a" * 300), "red", 0)
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(OutputError, match="file is a file, not a folder"):
            choose_folder(out, "red", 0)


def test_a_folder_that_cannot_be_written_to_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.access", lambda path, mode: path != tmp_path)  # root may write anywhere
    with pytest.raises(OutputError, match="cannot be written to"):
        choose_folder(tmp_path / "new", "red", 0)


PROMPT = 'a "red" Würfel 日本 😀'


def description() -> dict[str, Any]:
    return describe(PROMPT, Settings(zoo=None), Registry())


def test_a_picture_knows_how_it_was_made(tmp_path: Path) -> None:
    path = tmp_path / "picture-7.png"
    write_picture(path, Image.new("RGB", (4, 3), (250, 1, 2)), description(), 7)
    with Image.open(path) as picture:
        assert picture.getpixel((0, 0)) == (250, 1, 2)
        text = picture.text
    assert text["prompt"] == PROMPT
    assert text["seed"] == "7"
    assert tomllib.loads(text["settings"]) == description()
    assert text["Software"].startswith("referee")


def test_run_toml_says_what_else_shaped_the_run(tmp_path: Path) -> None:
    class Nothing:
        pass

    registry = Registry()
    registry.add(Nothing(), "mine", "referee-mine", "1.2")
    registry.plugins.append(type(registry.plugins[0])("gone", "d", "1", "blocked"))
    write_run(tmp_path, describe("red", Settings(), registry))
    run = tomllib.loads((tmp_path / "run.toml").read_text())["run"]
    assert run["prompt"] == "red"
    assert run["plugins"] == {"mine": "referee-mine 1.2"}
    assert {"torch", "vlm-referee"} <= set(run["libraries"])


def test_metrics_are_a_line_per_step(tmp_path: Path) -> None:
    history = [{"step": 0, "losses": {"a": [1.5]}}, {"step": 1, "losses": {}}]
    write_metrics(tmp_path, history)
    assert [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()] == history


def test_the_strip_shows_each_picture_at_its_place(tmp_path: Path) -> None:
    colours = {9: ["red", "blue"], 0: ["white", "black"]}
    frames = {k: [Image.new("RGB", (8, 8), colour) for colour in row] for k, row in colours.items()}
    sheet = strip(frames, ["seed 0", "seed 1"], cell=20)
    assert sheet.size == (70 + 2 * 22, 16 + 2 * 22)
    at = {
        (column, row): sheet.getpixel((70 + column * 22 + 10, 16 + row * 22 + 10))
        for column in (0, 1)
        for row in (0, 1)
    }
    assert at == {(0, 0): (255, 255, 255), (0, 1): (0, 0, 0), (1, 0): (255, 0, 0), (1, 1): (0, 0, 255)}
    write_strip(tmp_path / "evolution.png", sheet)
    with Image.open(tmp_path / "evolution.png") as read:
        assert read.size == sheet.size


def test_weights_in_a_folder_of_ones_own_are_summed_up(tmp_path: Path) -> None:
    """Those directly in it and one folder down, as diffusers lays them; a single file; nothing else, and no more."""
    (tmp_path / "unet").mkdir()
    for name in ("a.safetensors", "unet/a.safetensors", "config.json"):
        (tmp_path / name).write_bytes(name.encode())
    options = {"model": str(tmp_path), "head": str(tmp_path / "a.safetensors"), "word": "red", "none": "a\0b", "k": 3}
    prior = {"name": "there:toy", "options": options}

    def found() -> dict[str, str]:
        return hashes(Settings(zoo=None, prior=prior), Registry())

    one, other = (hashlib.sha256(name.encode()).hexdigest() for name in ("a.safetensors", "unet/a.safetensors"))
    assert found() == {
        "toy model a.safetensors": one, "toy model unet/a.safetensors": other, "toy head a.safetensors": one,
    }  # fmt: skip
    (tmp_path / "unet" / "a.safetensors").write_bytes(b"another")
    assert found()["toy model unet/a.safetensors"] != other
