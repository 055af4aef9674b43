"""What a bench leaves behind, and how it is read back and joined.

    OUT/
      about-I-of-N.json         what was asked of this shard: bench, columns, and how each method draws
      records-I-of-N.jsonl      a line per picture
      pictures/METHOD/SUITE/INDEX-SEED.png
      table.md, table.csv, plot.svg, sheet-METHOD-SUITE.png      see `table`, `plot`, `sheet`

A line is written after its picture, at once and whole; one that was cut off by a power cut is taken off when the run
goes on. All of it may come from a stranger: it is checked, and nothing in it is executed. Records are joined if they
are of one bench and each method that they share draws in one way; else it is said what differs.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, TypeVar

import filelock
from pydantic import BaseModel, ValidationError

from referee.bench.about import About, Key, Record
from referee.errors import OutputError, RunError
from referee.folder.record import write_whole
from referee.folder.run import read_plain
from referee.options import explain

MAX_ABOUT, MAX_RECORDS = 1 << 22, 1 << 29
"""Bytes of a file."""
M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Evidence:
    """Records of one bench, of one folder or several.

    Attributes:
        about: what was asked for, in all.
        records: each picture once.
        pictures: where they lie, by `Record.key`; a file may be gone.
    """

    about: About
    records: tuple[Record, ...]
    pictures: Mapping[Key, Path]

    def of(self, method: str, suite: str) -> list[Record]:
        """One row of a table, by index and seed."""
        found = [record for record in self.records if (record.method, record.suite) == (method, suite)]
        return sorted(found, key=lambda record: (record.index, record.seed))

    def only(self, methods: Sequence[str]) -> Evidence:
        """Some methods, in this order."""
        about = self.about.model_copy(update={"methods": {name: self.about.methods[name] for name in methods}})
        return replace(self, about=about, records=tuple(r for r in self.records if r.method in methods))


def is_evidence(folder: Path) -> bool:
    """Whether a bench wrote there."""
    return any(folder.glob("about-*.json"))


def read(folders: Sequence[Path]) -> Evidence:
    """All records of some folders, joined.

    Raises:
        RunError: no bench wrote there, a file is broken, or they do not agree.
    """
    about: About | None = None
    first = ""
    found: dict[Key, Record] = {}
    items: dict[tuple[str, int], Record] = {}
    pictures: dict[Key, Path] = {}
    for folder in folders:
        paths = sorted(folder.glob("about-*.json"))
        if not paths:
            raise RunError(f"No bench wrote in {folder}: it has no about-*.json. Is it the --out of `referee bench`?")
        for path in paths:
            one = _parsed(About, read_plain(path, MAX_ABOUT), str(path))
            about = one if about is None else about.joined(one, first, str(path))
            first = first or str(path)
        assert about is not None
        for path in sorted(folder.glob("records-*.jsonl")):
            for record in lines(path):
                _check(record, about, path, items)
                _take(record, found)
                pictures.setdefault(record.key, folder / record.picture)
    if about is None:
        raise RunError("There is nothing to read: name a folder that `referee bench` wrote.")
    return Evidence(about, tuple(found.values()), pictures)


def lines(path: Path) -> Iterator[Record]:
    """The records of a file; a last line that was cut off is left out.

    Raises:
        RunError: it is broken.
    """
    content = read_plain(path, MAX_RECORDS)
    for number, line in enumerate(content[: content.rfind(b"\n") + 1].splitlines(), 1):
        yield _parsed(Record, line, f"{path}, line {number}")


def _check(record: Record, about: About, path: Path, items: dict[tuple[str, int], Record]) -> None:
    """Refuse a record that is not of the methods or of the items that the others are of."""
    maker = about.methods.get(record.method)
    if maker is None:
        raise RunError(f"{path} has a picture of '{record.method}', of which no about-*.json says how it draws.")
    if not maker.found and record.digest != maker.digest:
        raise RunError(
            f"{path} has a picture of '{record.method}' with other settings ({record.digest}) than about-*.json says "
            f"({maker.digest})."
        )
    before = items.setdefault((record.suite, record.index), record)
    if before.item != record.item:
        raise RunError(
            f"They cannot be joined: {record.suite} {record.index} is '{before.prompt}' in one and '{record.prompt}' "
            f"in the other{'' if before.prompt != record.prompt else ', with other data for the scorer'}."
        )


def _take(record: Record, found: dict[Key, Record]) -> None:
    """Add a record to those found; the first of a picture counts."""
    before = found.setdefault(record.key, record)
    if before.digest != record.digest:
        raise RunError(
            f"They cannot be joined: {record.method}, {record.suite} {record.index}, seed {record.seed} was scored of "
            f"two different pictures ({before.digest} and {record.digest})."
        )


def _parsed(model: type[M], content: bytes, where: str) -> M:
    try:
        return model.model_validate_json(content)
    except ValidationError as error:
        raise RunError(f"{where}: {explain(error, model)}") from error
    except RecursionError as error:
        raise RunError(f"{where}: it is nested too deep.") from error


class Writer:
    """Adds records to a shard's file; see `writing`."""

    def __init__(self, folder: Path, file: IO[bytes]) -> None:
        self.folder, self._file = folder, file

    def add(self, record: Record) -> None:
        """Write a line, so that it is on the disk.

        Raises:
            OutputError: the disk is full.
        """
        try:
            self._file.write(record.model_dump_json(exclude_none=True).encode() + b"\n")
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise OutputError(f"{self._file.name} cannot be written: {error.strerror or error}.") from error


@contextmanager
def writing(folder: Path, shard: str, about: About) -> Iterator[Writer]:
    """Hold a shard's files against other processes; write what was asked for, and open the records to add some.

    Raises:
        OutputError: another process is at work on the shard, or the folder cannot be written to.
        RunError: the shard's files are broken, or not of these settings.
    """
    name, path = f"about-{shard}.json", folder / f"records-{shard}.jsonl"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(folder / f".lock-{shard}", timeout=0)
        lock.acquire()
    except filelock.Timeout as error:
        raise OutputError(f"Another process draws shard {shard} of {folder}. Wait for its end, or stop it.") from error
    except OSError as error:
        raise OutputError(f"{folder} cannot be written to: {error.strerror or error}.") from error
    try:
        if (folder / name).exists():
            before = _parsed(About, read_plain(folder / name, MAX_ABOUT), str(folder / name))
            drawn = {record.method for record in lines(path)} if path.exists() else set()
            about = before.binding(drawn).joined(about, str(folder / name), "what is asked for now")
        write_whole(folder / name, about.model_dump_json(indent=1).encode())
        with path.open("ab") as file:
            file.truncate(_whole(path))
            yield Writer(folder, file)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror or error}.") from error
    finally:
        lock.release()  # its file stays: who waits for a file that is gone holds nothing


def _whole(path: Path) -> int:
    """How many bytes of a file are whole lines."""
    content = read_plain(path, MAX_RECORDS)
    return content.rfind(b"\n") + 1
