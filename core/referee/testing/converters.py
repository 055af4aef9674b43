"""Checks of a converter: it fills its folder and touches nothing else, twice alike, and looks before it loads."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from referee.errors import RefereeError
from referee.hooks import ConverterSpec
from referee.options import validate
from referee.testing.case import SHARED
from referee.testing.outcome import Check, CheckFailed, LeftOut
from referee.testing.probe import global_state
from referee.weights import PICKLES

NOWHERE = "no-such-file-anywhere"


class ConverterCase:
    """A converter with options, and an empty desk to work on. A conversion may take minutes: it is made twice in all.

    Attributes:
        spec, options: as checked.
        sources: what lies at the paths among the options.
    """

    def __init__(self, spec: ConverterSpec, options: Mapping[str, object], desk: Path) -> None:
        """RefereeError: the options are refused."""
        self.spec, self.desk = spec, desk
        self.options: BaseModel = validate(spec.options, options, f"converter '{spec.name}'")
        if spec.check:
            spec.check(self.options)
        self.sources = {name: path for name, path in paths(self.options) if path.exists()}
        self.before = self.around()
        self.state = global_state()
        self.drew = False

    def made(self, number: int) -> Path:
        """The folder of a conversion, the first or the second."""
        folder = self.desk / str(number)
        if not folder.exists():
            folder.mkdir()
            self.spec.convert(self.options, folder)
            self.drew |= global_state() != self.state
        return folder

    def around(self) -> tuple[dict[str, str], frozenset[str]]:
        """What a converter must leave as it is: its sources, the working directory."""
        found = {name: told for path in self.sources.values() for name, told in _marks(path)}
        return found, frozenset(entry.name for entry in os.scandir()) - {"__pycache__", ".pytest_cache"}


def paths(options: BaseModel) -> Iterator[tuple[str, Path]]:
    """The options that are paths, by name."""
    yield from (
        (name, value) for name in type(options).model_fields if isinstance(value := getattr(options, name), Path)
    )


def contents(folder: Path) -> dict[str, str]:
    """The hash of each file of a folder, by its relative path."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            with path.open("rb") as file:
                digest = sha256()
                while block := file.read(1 << 20):
                    digest.update(block)
            found[path.relative_to(folder).as_posix()] = digest.hexdigest()
    return found


def _marks(path: Path) -> Iterator[tuple[str, str]]:
    for each in (path, *(path.rglob("*") if path.is_dir() else ())):
        about = each.stat()
        yield str(each), f"{about.st_size} {about.st_mtime_ns}"


def refuses_what_is_not_there(case: ConverterCase) -> str:
    """A path that leads nowhere is refused by ``check``, before anything is loaded."""
    given = {name: getattr(case.options, name) for name in type(case.options).model_fields}
    tried = [name for name, _ in paths(case.options)]
    if not tried:
        raise LeftOut("none of its options is a Path")
    for name in tried:
        try:
            chosen: Any = case.spec.options.model_validate({**given, name: case.desk / NOWHERE})
            if case.spec.check:
                case.spec.check(chosen)
        except (RefereeError, ValidationError):
            continue
        raise CheckFailed(
            f"Its option '{name}' may be a file that is not there: that would be found out by a library, with a "
            "traceback, after minutes of loading. Look in the spec's check=, and raise a WeightsError that says what "
            "should lie there."
        )
    return ", ".join(tried)


def fills_its_folder(case: ConverterCase) -> str:
    """Plain files of its own, and no pickle among them."""
    folder = case.made(1)
    files = [path for path in folder.rglob("*") if not path.is_dir()]
    if not files:
        raise CheckFailed("It leaves its folder empty. Write what a part loads into the folder that it is handed.")
    for path in files:
        if path.is_symlink():
            raise CheckFailed(f"{path.name} is a link: the folder is to be moved and given away. Copy the file.")
        if path.suffix in PICKLES:
            raise CheckFailed(f"{path.name} is a pickle, which runs code when it is read. Write safetensors and JSON.")
    size = sum(path.stat().st_size for path in files)
    return f"{size:,} bytes in {len(files)} file{'s' * (len(files) > 1)}"


def repeats_itself(case: ConverterCase) -> None:
    """The same source and options make the same files, byte by byte."""
    first, second = contents(case.made(1)), contents(case.made(2))
    if first != second:
        other = min(name for name in {*first, *second} if first.get(name) != second.get(name))
        raise CheckFailed(
            f"Made twice, {other} differs: nobody could tell a good conversion by its hash. Usual reasons: a layer "
            "left at random numbers, a date or a path of this machine in a file, names in the order of a set."
        )


def leaves_the_rest_alone(case: ConverterCase) -> None:
    """Its sources and the working directory stay as they were, and so do the generators that belong to everybody."""
    case.made(1)
    marks, here = case.around()
    if changed := sorted(name for name in {*marks, *case.before[0]} if marks.get(name) != case.before[0].get(name)):
        raise CheckFailed(f"It changes what it is made of: {changed[0]}. Read it alone, and write into the folder.")
    if changed := sorted(here ^ case.before[1]):
        raise CheckFailed(f"It changes the working directory: {changed[0]}. Write into the folder that it is handed.")
    if case.drew:
        raise CheckFailed(
            "It seeds or draws from the global generator of torch, numpy or random. Use one of its own; and weights "
            "that are drawn and not read are a fault more often than not."
        )


CHECKS: tuple[Check, ...] = (
    *SHARED, refuses_what_is_not_there, fills_its_folder, repeats_itself, leaves_the_rest_alone,
)  # fmt: skip
