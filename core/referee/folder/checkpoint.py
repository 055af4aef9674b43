"""A run's checkpoint, in its folder until the run is finished.

    checkpoint.safetensors       where it stands (`referee.result.Standing`); its metadata: step and settings
    checkpoint-frame-STEP.png    the film's frames so far, each written once
    .lock                        held by the process that is at work on the run

A checkpoint speaks for the first ``step`` rows of metrics.jsonl, which are on the disk before it is. It is written
whole (to a temporary name, then renamed), so that whatever stops a run leaves this one or the one before. Like all of
a run it may come from a stranger: nothing in it is unpickled, and it is checked before it is used.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any

import filelock
import safetensors.torch
import torch
from PIL import Image
from torch import Tensor

from referee.errors import OutputError, RunError
from referee.folder.film import Frames
from referee.folder.record import write_whole
from referee.folder.run import open_picture, read_plain
from referee.result import Standing
from referee.settings import Settings
from referee.state import State, packed, unpacked

LOG = logging.getLogger("referee")
NAME, METRICS, LOCK = "checkpoint.safetensors", "metrics.jsonl", ".lock"
FRAME = "checkpoint-frame-{}.png"
FORMAT = "referee checkpoint 1"
SECONDS = 30.0
"""Between two checkpoints, if nobody says after how many steps."""
MAX_CHECKPOINT = 1 << 32
"""Bytes."""
MAX_FRAME = 1 << 14
"""Pixels: 64 pictures of 256 one below the other."""
MEND = "Remove it, and the run begins anew."


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Where a run stands, and the frames of its film so far; by default at its beginning."""

    standing: Standing = field(default_factory=Standing)
    frames: Frames = field(default_factory=dict)

    @property
    def k(self) -> int:
        """Steps done."""
        return self.standing.state.k if self.standing.state else 0


class Checkpoints:
    """Writes a run's rows as they come, and a checkpoint now and then.

    Args:
        folder: of the run.
        settings: `fingerprint` of the run.
        frames: those of its film, as they come.
        every: steps between two checkpoints; None for every half minute, 0 for none but when the run is stopped.
    """

    def __init__(self, folder: Path, settings: str, frames: Frames, every: int | None) -> None:
        self.folder, self.settings, self.frames, self.every = folder, settings, frames, every
        self.last: Standing | None = None
        self.written, self.due = 0, time.monotonic() + SECONDS

    def keep(self, standing: Standing, rows: Sequence[Mapping[str, Any]]) -> None:
        """Take in where the run stands after a step.

        Raises:
            OutputError: the disk is full, or the folder went away.
        """
        _append(self.folder / METRICS, json.dumps(rows[-1]) + "\n")
        self.last = standing
        assert standing.state is not None
        if standing.state.k % self.every == 0 if self.every else self.every is None and time.monotonic() > self.due:
            self.write()

    def write(self) -> int:
        """Write a checkpoint of the last step, if there is none yet; gives the steps done.

        Raises:
            OutputError: the disk is full, or the folder went away. The checkpoint before is as it was.
        """
        if self.last is None or self.last.state is None or (k := self.last.state.k) == self.written:
            return self.written
        begun = time.perf_counter()
        _append(self.folder / METRICS, "", sync=True)
        for at, pictures in self.frames.items():
            path = self.folder / FRAME.format(at)
            if at < k and not path.exists():
                write_whole(path, _stacked(pictures))
        write_whole(self.folder / NAME, encode(self.last, self.settings))
        self.written, self.due = k, time.monotonic() + SECONDS
        LOG.debug("checkpoint after step %s, in %.1f ms", k, 1000 * (time.perf_counter() - begun))
        return k


def fingerprint(prompt: str, settings: Settings) -> str:
    """A sum over all that decides what a run draws."""
    return sha256(json.dumps([prompt, decisive(settings)], sort_keys=True).encode()).hexdigest()


def decisive(settings: Settings) -> dict[str, Any]:
    """All that decides what a run draws, but the prompt: not device, micro-batch, patience and where files lie.

    What is as by default is left out: a setting that a later version adds leaves the sum of older runs as it was.
    """
    aside: dict[str, Any] = {
        "device": True, "rules": {"micro_batch"}, "referees": {"__all__": {"timeout", "offload"}},
        "judge": {"timeout", "offload"}, "init": {"image", "mask"},  # a file's own sum decides
    }  # fmt: skip
    said = settings.model_dump(mode="json", exclude=aside, exclude_defaults=True)
    return {name: value for name, value in said.items() if value != {}}


def encode(standing: Standing, settings: str) -> bytes:
    """A checkpoint as safetensors, without frames."""
    assert standing.state is not None
    tensors = {f"state/{name}": t for name, t in standing.state.to_tensors().items()}
    tensors |= packed("map", standing.maps)
    if standing.best is not None and standing.least is not None:
        tensors |= {"best": standing.best, "least": standing.least}
    if standing.kept is not None:
        tensors["kept"] = standing.kept
    alone = {name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}  # safetensors shares no memory
    about = {"format": FORMAT, "step": str(standing.state.k), "settings": settings, "sum": _sum(alone)}
    return bytes(safetensors.torch.save(alone, about))


def read(folder: Path, settings: str, seeds: int) -> Checkpoint:
    """The checkpoint of a folder; the beginning, if it has none.

    Args:
        settings: `fingerprint` of the run; "" for any.
        seeds: how many.

    Raises:
        RunError: it is broken, or of other settings.
    """
    path = folder / NAME
    if not os.path.lexists(path):
        return Checkpoint()
    content = read_plain(path, MAX_CHECKPOINT)
    try:
        tensors = safetensors.torch.load(content)
        about = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"]
        if about["format"] != FORMAT:
            raise ValueError(f"it says that it is '{about['format']}', not '{FORMAT}'")
        if about["sum"] != _sum(tensors):
            raise ValueError("it is damaged: its sum is another")
        standing = _standing(tensors, seeds)
    except Exception as error:  # for a stranger's file a decoder may raise anything
        raise RunError(f"{path} cannot be gone on from: {error}. {MEND}") from error
    if settings not in ("", about.get("settings")):
        raise RunError(f"{path} is of other settings or another prompt than run.toml has now. {MEND}")
    assert standing.state is not None
    return Checkpoint(standing, _frames(folder, standing.state.k, seeds))


def read_rows(folder: Path, count: int, first: int = 0) -> list[dict[str, Any]]:
    """The first rows of metrics.jsonl, for which a checkpoint speaks.

    Args:
        folder: of the run.
        count: steps done.
        first: step at which the run entered.

    Raises:
        RunError: there are fewer.
    """
    path = folder / METRICS
    lines = read_plain(path, MAX_CHECKPOINT).splitlines()[: count - first] if count else []
    try:
        rows = [json.loads(line) for line in lines]
        if [row["step"] for row in rows] != list(range(first, count)):
            raise ValueError(f"it does not have the {count - first} steps that {NAME} speaks for")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise RunError(f"{path}: {error}. Remove {folder / NAME}, and the run begins anew.") from error
    return rows


def clear(folder: Path) -> None:
    """Remove a run's checkpoint with its frames: it is finished."""
    for path in (folder / NAME, *folder.glob(FRAME.format("*"))):
        with suppress(OSError):
            path.unlink()


def tidy(folder: Path) -> None:
    """Remove what a killed process left half written. For who holds the lock."""
    for path in folder.glob(".*.tmp"):
        with suppress(OSError):
            path.unlink()


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a run's folder, which must be there, against other processes. If this one is killed, the system lets go.

    Raises:
        OutputError: another process is at work on it, or nothing can be written there.
    """
    lock = filelock.FileLock(folder / LOCK, timeout=0)
    try:
        lock.acquire()
    except filelock.Timeout as error:
        raise OutputError(f"Another process is at work on {folder}. Wait for its end, or stop it.") from error
    except NotImplementedError:
        LOG.warning("%s lies on a disk without locks: see to it that no second process works on it.", folder)
    except OSError as error:
        raise OutputError(f"{folder} cannot be written to: {error.strerror or error}.") from error
    try:
        yield
    finally:
        with suppress(OSError):
            (folder / LOCK).unlink()
        lock.release()


def _append(path: Path, text: str, *, sync: bool = False) -> None:
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(text)
            if sync:
                os.fsync(file.fileno())
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror or error}.") from error


def _sum(tensors: Mapping[str, Tensor]) -> str:
    found = sha256()
    for name, t in sorted(tensors.items()):
        found.update(f"{name} {t.dtype} {tuple(t.shape)}\n".encode())
        found.update(t.reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def _standing(tensors: Mapping[str, Tensor], seeds: int) -> Standing:
    state = State.from_tensors({name[6:]: t for name, t in tensors.items() if name.startswith("state/")})
    best, least = tensors.get("best"), tensors.get("least")
    if state.k < 1 or state.z.ndim != 4 or len(state.z) != seeds or (best is None) != (least is None):
        raise ValueError(f"it does not hold the latents of {seeds} pictures after a step")
    if best is not None and least is not None and (best.shape != state.z.shape or least.shape != (seeds,)):
        raise ValueError("its best latents are of another shape")
    kept = tensors.get("kept")
    if kept is not None and (kept.shape != state.z.shape or kept.dtype != torch.float32):
        raise ValueError("the judge's best latents are of another shape or type")
    return Standing(state, best, least, maps=unpacked("map", tensors), kept=kept)


def _stacked(pictures: Sequence[Image.Image]) -> bytes:
    wide, high = pictures[0].size
    sheet = Image.new("RGB", (wide, high * len(pictures)))
    for i, picture in enumerate(pictures):
        sheet.paste(picture, (0, i * high))
    buffer = BytesIO()
    sheet.save(buffer, "png", compress_level=1)
    return buffer.getvalue()


def _frames(folder: Path, k: int, seeds: int) -> dict[int, list[Image.Image]]:
    """Those before step k that are there, each one picture per seed."""
    frames = {}
    for path in folder.glob(FRAME.format("*")):
        number = path.stem.rpartition("-")[2]
        if number.isascii() and number.isdigit() and len(number) < 10 and int(number) < k:
            sheet = open_picture(path, "PNG", MAX_FRAME)
            if not (high := sheet.height // seeds):
                raise RunError(f"{path} is {sheet.height} pixels high: not {seeds} pictures.")
            frames[int(number)] = [sheet.crop((0, i * high, sheet.width, (i + 1) * high)) for i in range(seeds)]
    return dict(sorted(frames.items()))
