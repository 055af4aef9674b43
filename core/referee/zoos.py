"""What a zoo's checkpoints are to a run: which parts they are for, which of them are needed, whether they are whole.

Fetching is the zoo's own affair (`referee.hooks.ZooSpec.get`). What is looked at here needs no library and no network:
names, sizes, and, for `verify`, sha256, or where none is published the form.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import platformdirs

from referee.errors import OptionError, WeightsError, nearest
from referee.files import read_plain
from referee.hooks import Checkpoint, ZooFile
from referee.weights import check_safetensors

REFERENCE = "zoo:"
"""An option of this beginning stands for the folder of the zoo's checkpoint of that name: ``vae=zoo:taesd``."""


MAX_TEXT = 1 << 28
"""Bytes of a file that is no weights."""


def user_folder(name: str) -> Path:
    """Where things that a person made once are kept for all runs, for example ``~/.local/share/referee/NAME``."""
    return Path(platformdirs.user_data_path("referee", appauthor=False) / name)


def options_of(shelf: Sequence[Checkpoint], part: str) -> dict[str, Any]:
    """What the zoo sets for a part of this name."""
    return {key: value for checkpoint in shelf for key, value in checkpoint.options.get(part, {}).items()}


def resolve(shelf: Sequence[Checkpoint], options: Mapping[str, Any]) -> dict[str, Any]:
    """A part's options with each ``zoo:NAME`` replaced by that checkpoint's folder.

    Raises:
        OptionError: the zoo has no checkpoint of that name, or there is no zoo.
    """
    found = {}
    for key, value in options.items():
        if (name := _referred(value)) is not None:
            named = {checkpoint.name: checkpoint for checkpoint in shelf}
            if name not in named:
                raise OptionError(f"{key}={value}: this zoo has no '{name}'. {nearest(name, named)}")
            value = str(named[name].folder)
        found[key] = value
    return found


def needed(shelf: Sequence[Checkpoint], parts: Iterable[tuple[str, Mapping[str, Any]]]) -> list[Checkpoint]:
    """The checkpoints that a run reads: those that a part names, and those whose options stand for a part at the table.

    Args:
        shelf: the zoo's checkpoints.
        parts: by name, each with the options that the person (or the preset) set: a folder of one's own needs no zoo's.
    """
    parts = list(parts)
    named = {_referred(value) for _, options in parts for value in options.values()}
    return [
        checkpoint
        for checkpoint in shelf
        if checkpoint.name in named
        or any(key not in options for part, options in parts for key in checkpoint.options.get(part, {}))
    ]


def _referred(value: object) -> str | None:
    return value.removeprefix(REFERENCE) if isinstance(value, str) and value.startswith(REFERENCE) else None


def faults(checkpoint: Checkpoint) -> Iterator[tuple[ZooFile, str]]:
    """Each file that is missing, of another size than published, or cut short, and what is wrong. Reads no weights."""
    for file in checkpoint.files:
        path = checkpoint.folder / file.name
        try:
            size = path.stat().st_size if path.is_file() else None
        except OSError as error:
            yield file, error.strerror or str(error)
            continue
        if size is None:
            yield file, "is missing"
        elif file.size is not None and size != file.size:
            yield file, f"has {size:,} bytes and should have {file.size:,}"
        elif path.suffix == ".safetensors":
            try:
                check_safetensors(path, mend="")
            except WeightsError as error:
                yield file, str(error).partition(": ")[2].strip()


def require(checkpoint: Checkpoint) -> None:
    """Refuse a checkpoint that is not whole.

    Raises:
        WeightsError: naming the first file that is missing or cut, where it is published, its size, and what mends it.
    """
    found = list(faults(checkpoint))
    if not found:
        return
    file, fault = found[0]
    where = f"{file.name} of {checkpoint.source.partition('@')[0]}" if checkpoint.source else file.name
    size = f" ({amount(file.size)})" if file.size is not None else ""
    more = f", and {len(found) - 1} more{_in_all(f for f, _ in found)}" if len(found) > 1 else ""
    raise WeightsError(
        f"The zoo's {checkpoint.name} is not whole: {where}{size} {fault} in {checkpoint.folder}{more}. "
        f"{checkpoint.mend}"
    )


def _in_all(files: Iterable[ZooFile]) -> str:
    size = total(files)
    return f", {amount(size)} in all" if size else ""


def verify(checkpoint: Checkpoint, file: ZooFile) -> str:
    """What is wrong with one file, read as a whole; "" if nothing is. Without a published sha256 its form must do: that
    tells what is cut, empty or of another kind, and not whether it is what was published."""
    if fault := dict(faults(checkpoint)).get(file):
        return fault
    path = checkpoint.folder / file.name
    if not file.sha256:
        return _malformed(path)
    with path.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    return "" if found == file.sha256 else f"has sha256 {found} and should have {file.sha256}"


def _malformed(path: Path) -> str:
    """What is wrong with a file's form. Of weights `faults` has looked at all but whether there are any."""
    if path.suffix == ".safetensors":
        with path.open("rb") as stream:
            header = json.loads(stream.read(int.from_bytes(stream.read(8), "little")))
        return "" if header.keys() - {"__metadata__"} else "holds no tensors"
    try:
        text = read_plain(path, MAX_TEXT).decode("utf-8")
        content = json.loads(text) if path.suffix == ".json" else text.strip()
    except (OSError, ValueError, RecursionError) as error:
        return f"is not {'JSON' if path.suffix == '.json' else 'text'}: {error}"
    return "" if content else "is empty"


def total(files: Iterable[ZooFile]) -> int:
    """Bytes of all files whose size is known."""
    return sum(file.size or 0 for file in files)


def amount(size: int | None) -> str:
    """Bytes for people, in powers of 1000 as disks are sold.

    >>> amount(541), amount(9793292), amount(3438167540), amount(None)
    ('541 B', '9.8 MB', '3.44 GB', 'size unknown')
    """
    if size is None:
        return "size unknown"
    for unit, power, digits in (("GB", 9, 2), ("MB", 6, 1), ("kB", 3, 0)):
        if size >= 10**power:
            return f"{size / 10**power:.{digits}f} {unit}"
    return f"{size} B"
