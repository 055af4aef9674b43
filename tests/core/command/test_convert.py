"""`referee convert`: a plug-in's converter as a command, and a folder that is written whole or not at all."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from referee.command.convert import new_folder
from referee.errors import OutputError
from referee.hooks import ConverterSpec

PLUGIN = '''
from pydantic import BaseModel, Field
from referee.errors import WeightsError
from referee.hooks import ConverterSpec, hookimpl


class Options(BaseModel, extra="forbid", frozen=True):
    """What it does."""

    do: str = Field("work", description="what it does")
    how_often: int = Field(1, ge=1, description="how often it does so")


def convert(options, folder):
    for i in range(options.how_often):
        (folder / "deep").mkdir(exist_ok=True)
        (folder / "deep" / f"{i}.txt").write_text("done")
    if options.do == "refuse":
        raise WeightsError("The file is of something else.")
    if options.do == "break":
        raise ZeroDivisionError("a bug")
    if options.do == "import":
        import no_such_library.deep
    if options.do == "full":
        raise OSError(28, "No space left on device")


@hookimpl
def referee_converters(register):
    register(ConverterSpec("mine", "mine to a folder", convert, Options))
'''


class Desk:
    """A folder to work in, with a plug-in in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "mine.py").write_text(PLUGIN)

    def __call__(self, *words: str, plugin: str = "mine.py") -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "referee", "convert", "--plugin", plugin, *words]
        return subprocess.run(command, cwd=self.folder, capture_output=True, text=True, check=False)

    def refuses(self, message: str, *words: str) -> None:
        """It ends with one sentence and exit code 2, and everything is as it was."""
        before = self.files()
        done = self(*words)
        assert (done.returncode, done.stdout) == (2, "")
        assert message in done.stderr
        *_, last = done.stderr.splitlines()
        named = last == "referee: This happened in the plug-in file mine.py, given by --plugin."
        assert done.stderr.count("\n") == 1 + named
        assert self.files() == before

    def files(self) -> list[str]:
        return sorted(str(p.relative_to(self.folder)) for p in self.folder.rglob("*") if "__pycache__" not in str(p))


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def test_the_documented_example_works(desk: Desk) -> None:
    assert ConverterSpec.__doc__
    code = ConverterSpec.__doc__.split("FILE``:\n\n")[1].split("\n    Args:")[0]
    (desk.folder / "sums.py").write_text(textwrap.dedent(code))
    (desk.folder / "line.txt").write_text("1 2 3")
    words = ("numbers", "--file", "line.txt", "--scale", "2", "--out", "there")
    done = desk(*words, plugin="sums.py")
    assert (done.returncode, done.stdout, done.stderr) == (0, "there\n", "")
    assert json.loads((desk.folder / "there" / "numbers.json").read_text()) == [2, 4, 6]
    done = desk("numbers", "--file", "nothing.txt", "--out", "elsewhere", plugin="sums.py")
    assert (done.returncode, done.stderr) == (2, "referee: There is no file nothing.txt.\n")


def test_help_lists_the_converters_and_their_options(desk: Desk) -> None:
    listed = desk("--help")
    assert listed.returncode == 0
    assert "mine to a folder" in listed.stdout
    options = desk("mine", "--help").stdout
    assert "--how-often" in options
    assert "how often it does so" in options
    assert "default: 1" in options
    assert "--out" in options


def test_a_folder_is_filled_then_named(desk: Desk) -> None:
    (desk.folder / "there").mkdir()  # an empty one is no hindrance
    before = desk.files()
    assert desk("mine", "--how-often", "2", "--out", "there").returncode == 0
    assert set(desk.files()) - set(before) == {"there/deep", "there/deep/0.txt", "there/deep/1.txt"}
    assert desk("mine", "--out", "new/folder").returncode == 0
    assert (desk.folder / "new" / "folder" / "deep" / "0.txt").read_text() == "done"


def test_what_is_refused_leaves_nothing(desk: Desk) -> None:
    desk.refuses("The file is of something else.", "mine", "--do", "refuse", "--out", "there")
    desk.refuses("how_often: Input should be a valid integer", "mine", "--how-often", "x", "--out", "there")
    desk.refuses("how_often: Input should be greater than", "mine", "--how-often", "0", "--out", "there")
    desk.refuses("no converter called 'mime'. Did you mean 'mine'?", "mime", "--out", "there")
    desk.refuses("no_such_library", "mine", "--do", "import", "--out", "there")
    desk.refuses("No space left on device", "mine", "--do", "full", "--out", "there")
    desk.refuses("mine.py: there is something already", "mine", "--out", "mine.py")
    desk.refuses("mine.py is a file", "mine", "--out", "mine.py/there")
    assert desk("mine").returncode == 2
    before = desk.files()
    assert desk("mine", "--do", "break", "--out", "there").returncode == 1
    assert desk.files() == before


def test_a_folder_that_holds_something_is_never_touched(desk: Desk) -> None:
    (desk.folder / "there").mkdir()
    (desk.folder / "there" / "precious").write_text("1")
    desk.refuses("there is something already", "mine", "--out", "there")


def test_a_folder_filled_by_another_meanwhile_is_never_touched(tmp_path: Path) -> None:
    out = tmp_path / "there"

    def fill() -> None:
        with new_folder(out) as folder:
            (folder / "mine").touch()
            out.mkdir()
            (out / "theirs").touch()

    with pytest.raises(OutputError, match="cannot be written"):
        fill()
    assert os.listdir(tmp_path) == ["there"]
    assert os.listdir(out) == ["theirs"]


def test_a_broken_converter_is_listed_and_harms_nobody(desk: Desk) -> None:
    text = PLUGIN.replace('register(ConverterSpec("mine"', 'register(1 / 0); register(ConverterSpec("mine"')
    (desk.folder / "mine.py").write_text(text)
    done = subprocess.run(
        [sys.executable, "-m", "referee", "plugins", "--plugin", "mine.py"],
        cwd=desk.folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "ZeroDivisionError" in done.stdout + done.stderr
    desk.refuses("mine.py failed to load: ZeroDivisionError", "mine", "--out", "there")


def test_two_of_one_name_are_listed_by_distribution_and_either_can_be_chosen(desk: Desk) -> None:
    (desk.folder / "yours.py").write_text(PLUGIN.replace("mine to a folder", "yours to a folder"))
    words = ("--plugin", "yours.py")
    listed = desk(*words, "--help", plugin="mine.py")
    assert listed.returncode == 0, listed.stderr
    assert "mine.py:mine" in listed.stdout
    assert "yours.py:mine" in listed.stdout
    assert desk(*words, "yours.py:mine", "--out", "there").returncode == 0
    done = desk(*words, "mine", "--out", "here")
    assert done.returncode == 2
    assert "Two plug-ins offer a converter called 'mine': say 'mine.py:mine' or 'yours.py:mine'" in done.stderr


def test_plugins_can_be_left_out(desk: Desk) -> None:
    listed = desk("-p", "no:blip2", "--help").stdout
    assert "mine to a folder" in listed
    told = "LAVIS' BLIP-2 files to a folder"
    assert told in desk("--help").stdout
    assert told not in listed
    assert told not in desk("--no-plugins", "--help").stdout
    desk.refuses("'blip2' is blocked: by --no-plugins", "--no-plugins", "blip2", "--out", "there")
    desk.refuses("write -p no:NAME", "-p", "blip2", "mine", "--out", "there")
