"""Checks of checkpoint folders that need no model library: is the file there, and is all of it there?

The layout of a safetensors file (8 bytes of header length, a JSON header, the tensors) lets a truncated download be
told from a whole one in a millisecond, before anything is loaded.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from math import prod
from pathlib import Path
from typing import Any

from referee.errors import WeightsError
from referee.files import is_plain

PICKLES = (".bin", ".ckpt", ".pkl", ".pt", ".pth")
BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "U16": 16, "I16": 16, "F16": 16, "BF16": 16,
    "U32": 32, "I32": 32, "F32": 32, "U64": 64, "I64": 64, "F64": 64, "C64": 64,
}  # fmt: skip
"""The types of safetensors that torch reads, with their size."""
FAULTS = (
    ArithmeticError, AssertionError, AttributeError, EOFError, LookupError, OSError, RuntimeError, TypeError,
    ValueError,
)  # fmt: skip
"""What a model library may raise for a folder that is damaged: a missing key, a size of 0, a list for a table, a
word for a number. A loader turns these into WeightsError."""
MAX_HEADER = 100_000_000
"""Bytes; what safetensors itself allows."""


def check_folder(folder: str | Path, files: Iterable[str], *, mend: str) -> None:
    """Refuse a checkpoint folder that lacks one of the files or holds a cut one.

    Args:
        folder: the checkpoint folder.
        files: names that must be there, relative to the folder.
        mend: what the person should do, put at the end of the message.

    Raises:
        WeightsError: naming the file and what is wrong with it.
    """
    folder = Path(folder)
    if not _is(Path.is_dir, folder, mend):
        raise WeightsError(f"There is no folder {folder}. {mend}")
    for name in files:
        path = folder / name
        if not _is(Path.is_file, path, mend):
            raise WeightsError(f"{path} is missing{_pickled(path)}. {mend}")
        if path.suffix == ".safetensors":
            check_safetensors(path, mend=mend)


def _pickled(path: Path) -> str:
    """A hint, if weights were put beside in a form that may run code when it is read."""
    if path.suffix != ".safetensors" or not path.parent.is_dir():
        return ""
    found = sorted(other.name for other in path.parent.iterdir() if other.suffix in PICKLES)
    return f"; {found[0]} beside it is a pickle, which is never opened: fetch the safetensors file" if found else ""


def _is(question: Callable[[Path], bool], path: Path, mend: str) -> bool:
    try:
        return question(path)
    except OSError as error:  # a name too long, a folder that may not be looked into
        raise WeightsError(f"{path}: {error.strerror or error}. {mend}") from error


def check_safetensors(path: Path, *, mend: str) -> None:
    """Refuse a safetensors file whose length is not what its header says.

    Raises:
        WeightsError: the file is no safetensors file, or is cut short.
    """
    try:
        size = path.stat().st_size
        if not is_plain(path):
            raise ValueError("it is no plain file")
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= size - 8:
                raise ValueError("its header is longer than the file")
            if length > MAX_HEADER:
                raise ValueError(f"its header has {length:,} bytes")
            header = json.loads(file.read(length))
        entries = [entry for name, entry in header.items() if name != "__metadata__"]
        ends = [entry["data_offsets"][1] for entry in entries]
        if (expected := 8 + length + max(ends, default=0)) != size:
            raise ValueError(f"it has {size:,} bytes where its header promises {expected:,}")
        _check_tensors(entries)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        raise WeightsError(f"{path} is not a whole safetensors file: {error}. {mend}") from error


def check_loaded(folder: Path, kind: str, found: Mapping[str, Iterable[Any]], *, more: bool = False) -> None:
    """Refuse a model that transformers or diffusers filled up with random numbers, or of which they left something out.

    Args:
        folder: it was loaded from.
        kind: what it should be.
        found: the library's ``output_loading_info``.
        more: whether tensors that the model has not are refused, too; but for counts of positions, as old files hold.

    Raises:
        WeightsError: with the number of tensors, the first of them, and what mends it.
    """
    faults = {"missing_keys": "lack {} tensors of a", "mismatched_keys": "have {} tensors of another shape than a"}
    if more:
        faults["unexpected_keys"] = "have {} tensors too many for a"
    for which, fault in faults.items():
        told = (str(key[0] if isinstance(key, tuple) else key) for key in found.get(which, ()))
        if names := sorted(name for name in told if not name.endswith("position_ids")):
            raise WeightsError(
                f"The weights in {folder} {fault.format(len(names))} {kind}, first {names[0]}: they are not whole, or "
                "not of this config.json. Get both from one place."
            )


def _check_tensors(entries: Iterable[Any]) -> None:
    """What safetensors itself demands of a header, so that no library's own error comes out of a damaged one: the
    tensors lie one behind the other without a gap, each as long as its type and shape say."""
    at = 0
    for entry in sorted(entries, key=lambda entry: tuple(entry["data_offsets"])):
        start, end = entry["data_offsets"]
        if start != at or not all(type(side) is int and side >= 0 for side in (start, end, *entry["shape"])):
            raise ValueError("its tensors leave gaps or overlap")
        if 8 * (end - start) != BITS[entry["dtype"]] * prod(entry["shape"]):
            raise ValueError(f"a tensor of shape {entry['shape']} and type {entry['dtype']} has {end - start:,} bytes")
        at = end
