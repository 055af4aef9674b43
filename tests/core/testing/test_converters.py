"""Every check of a converter can fail: one with one fault fails the check that looks for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import BaseModel, ConfigDict, Field

from referee.errors import OptionError, WeightsError
from referee.hooks import ConverterSpec
from referee.testing import CheckFailed, check_converter, converters
from referee.testing.checks import examine_converter


class Options(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    file: Path = Field(description="a line of numbers")
    scale: float = Field(1.0, description="what they are multiplied with")


def look(options: Options) -> None:
    if not options.file.is_file():
        raise WeightsError(f"There is no file {options.file}.")


def convert(options: Options, folder: Path) -> None:
    numbers = [options.scale * float(word) for word in options.file.read_text().split()]
    (folder / "deep").mkdir()
    (folder / "deep" / "numbers.txt").write_text(str(numbers))


@pytest.fixture
def line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A source, in a working directory of its own."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "line.txt").write_text("1 2 3")
    return tmp_path / "line.txt"


def also(more: Callable[[Options, Path], Any]) -> Callable[[Options, Path], None]:
    def converted(options: Options, folder: Path) -> None:
        convert(options, folder)
        more(options, folder)

    return converted


def count(options: Options, folder: Path) -> None:
    (folder / "n.txt").write_text(folder.name)


FAULTS: dict[str, tuple[str, str, Any, Any]] = {
    "looks late": ("refuses_what_is_not_there", "option 'file' may be a file that is not there", convert, None),
    "empty": ("fills_its_folder", "leaves its folder empty", lambda options, folder: None, look),
    "pickle": ("fills_its_folder", "x.pt is a pickle", also(lambda o, f: (f / "x.pt").touch()), look),
    "link": ("fills_its_folder", "is a link", also(lambda o, f: (f / "x").symlink_to(o.file)), look),
    "other": ("repeats_itself", "Made twice, n.txt differs", also(count), look),
    "source": ("leaves_the_rest_alone", "line.txt", also(lambda o, f: o.file.write_text("1 2 3 ")), look),
    "here": ("leaves_the_rest_alone", "working directory: log", also(lambda o, f: Path("log").touch()), look),
    "draws": ("leaves_the_rest_alone", "global generator", also(lambda o, f: torch.rand(1)), look),
    "raises": ("fills_its_folder", "It raised ZeroDivisionError", also(lambda o, f: 1 // 0), look),
}


def test_a_whole_converter_passes_and_leaves_no_folder(line: Path) -> None:
    spec = ConverterSpec("n", "", convert, Options, look)
    found = check_converter(spec, {"file": line}, skip=["imports_nothing_heavy"])
    assert [outcome.check for outcome in found] == [check.__name__ for check in converters.CHECKS]
    says = {outcome.check: outcome.says for outcome in found}
    assert says["fills_its_folder"] == "15 bytes in 1 file"
    assert says["refuses_what_is_not_there"] == "file"
    assert [path.name for path in line.parent.iterdir()] == ["line.txt"]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_converter_with_a_fault_is_caught(fault: str, line: Path) -> None:
    check, says, function, before = FAULTS[fault]
    spec = ConverterSpec("n", "", function, Options, before)
    found = {outcome.check: outcome for outcome in examine_converter(spec, {"file": line})}[check]
    assert (found.status, says in found.says) == ("failed", True), found


def test_the_door_raises_with_what_failed(line: Path) -> None:
    spec = ConverterSpec("n", "", lambda options, folder: None, Options)
    with pytest.raises(CheckFailed, match=r"(?s)refuses_what_is_not_there: .*\n\nfills_its_folder: It leaves"):
        check_converter(spec, {"file": line})


def test_the_door_refuses_wrong_options(line: Path) -> None:
    spec = ConverterSpec("n", "", convert, Options, look)
    with pytest.raises(OptionError, match="converter 'n': 'file' must be given: a line of numbers"):
        check_converter(spec, {})
    with pytest.raises(WeightsError, match="There is no file"):
        check_converter(spec, {"file": line.parent / "no"})
    with pytest.raises(OptionError, match="no check 'fills' to skip"):
        check_converter(spec, {"file": line}, skip=["fills"])
