"""Draws and scores what is not yet recorded, a picture at a time; whatever stops it, it goes on where it stood."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from io import BytesIO
from math import isfinite
from pathlib import Path
from typing import Any

from PIL import Image as Pillow

from referee.bench.about import Key, Record, digest_of
from referee.bench.contract import Item, Naming
from referee.bench.images import Gallery
from referee.bench.methods import Method
from referee.bench.records import Writer, is_evidence, read, writing
from referee.bench.task import Task
from referee.control.photo import flat, read_photo
from referee.errors import PluginError, RefereeError, RunError, out_of_memory, where
from referee.folder import record as runs
from referee.parts import Parts
from referee.pixels import from_pillow, to_pillow
from referee.prompt import Prompt

THUMBNAIL = 128
"""Pixels of the longer side of what is kept of pictures that were there already."""

Tell = Callable[[Record], object]


def run(task: Task, tell: Tell = lambda record: None, begin: Callable[[], object] = lambda: None) -> int:
    """Draw and score what is not yet recorded; gives how many pictures that were.

    Args:
        task: what.
        tell: called with each new record.
        begin: called when all that can be refused was refused, and files are written from now on.

    Raises:
        RunError: the folder holds records of other settings; says where they differ.
        RefereeError: a method or the scorer failed.
        KeyboardInterrupt: it was stopped.
    """
    done = _done(task)
    count = 0
    with writing(task.out, task.shard.slug, task.about) as writer:
        begin()
        for method in task.methods:
            for record in _drawn(task, method, done):
                _add(record, writer, tell)
                count += 1
        for gallery in task.galleries:
            for record in _scored(task, gallery, done):
                _add(record, writer, tell)
                count += 1
    return count


def _add(record: Record, writer: Writer, tell: Tell) -> None:
    writer.add(record)
    tell(record)


def check_out(task: Task) -> None:
    """What `run` would refuse the folder for; loads nothing and writes nothing.

    Raises:
        RunError: it holds records of other settings.
    """
    _done(task)


def _done(task: Task) -> Mapping[Key, Record]:
    if not is_evidence(task.out):
        try:
            taken = any(not path.name.startswith(".") for path in task.out.iterdir())
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise RunError(f"--out {task.out}: {error.strerror or error}. Choose another --out.") from error
        if taken:
            raise RunError(f"{task.out} holds something else than a bench's records. Choose another --out.")
        return {}
    found = read([task.out])
    about = found.about.binding({record.method for record in found.records})
    about.joined(task.about, str(task.out), "what is asked for now")
    items = {(item.suite, item.index): item for item in task.items}
    for record in found.records:
        item = items.get((record.suite, record.index))
        if item and digest_of(item) != record.item:
            raise RunError(
                f"{task.out} cannot be gone on with: {record.suite} {record.index} is '{record.prompt}' there and "
                f"'{item.prompt}' now{'' if item.prompt != record.prompt else ', with other data for the scorer'}. "
                "Choose another --out."
            )
    done = {record.key: record for record in found.records}
    for gallery in task.galleries:
        _check_pictures(task, gallery, done)
    return done


def _check_pictures(task: Task, gallery: Gallery, done: Mapping[Key, Record]) -> None:
    """RunError: a picture that was scored is another by now."""
    for shot in gallery.shots:
        before = done.get((gallery.name, shot.item.suite, shot.item.index, shot.seed))
        if before and before.digest != read_photo(shot.path, "--images")[1][:12]:
            raise RunError(
                f"{shot.path} is not the picture that {task.out} has scores of. Choose another --out, or say "
                "--images NAME=DIR with another name."
            )


def _drawn(task: Task, method: Method, done: Mapping[Key, Record]) -> Iterator[Record]:
    """A method's pictures: its models load once, and only if something is to be drawn."""
    items = task.wanted(method.name)
    wanted = [(item, k, task.seeds(item)[k]) for k in range(task.about.seeds) for item in items]
    parts: Parts | None = None
    description: dict[str, Any] = {}
    digest = method.maker.digest
    for item, k, seed in wanted:
        if (method.name, item.suite, item.index, seed) in done:
            continue
        if parts is None:
            parts = method.load()
            description = _description(task, method, parts.device)
        clock, cpu = time.perf_counter(), time.process_time()
        try:
            image = method.way.draw(parts, Prompt(item.prompt), seed, method.options)
        except RefereeError as error:
            raise type(error)(f"The method '{method.name}', {item.suite} {item.index}: {error}") from error
        seconds, cpu_seconds = time.perf_counter() - clock, time.process_time() - cpu
        name = picture_name(method.name, item, seed, "png")
        if isinstance(task.bench, Naming):
            name = f"pictures/{method.name}/{task.bench.name(item, k, task.about.seeds)}.png"
        about = {**description, "seeds": [seed], "run": {**description["run"], "prompt": item.prompt}}
        runs.write_picture(task.out / name, to_pillow(image[0]), about, seed)
        scores = score(task, item, seed, read_photo(task.out / name, "its picture")[0], task.out / name)
        yield Record(
            method=method.name, digest=digest, suite=item.suite, index=item.index, item=digest_of(item),
            prompt=item.prompt, seed=seed, scores=scores, cpu_seconds=round(cpu_seconds, 2), seconds=round(seconds, 2),
            picture=name,
        )  # fmt: skip


def _description(task: Task, method: Method, device: str) -> dict[str, Any]:
    """What a picture says of itself, less prompt and seed."""
    command = "generate" if method.way.referees else "sample"
    found = runs.describe("", method.plan.settings, task.registry, command=command, device=device)
    return {**found, "run": {**found["run"], "bench": {"method": method.name, "draw": method.maker.draw}}}


def _scored(task: Task, gallery: Gallery, done: Mapping[Key, Record]) -> Iterator[Record]:
    """Pictures that are there already; of each a small one is kept."""
    mine = {(item.suite, item.index) for item in task.mine()}
    for shot in gallery.shots:
        item = shot.item
        if (item.suite, item.index) not in mine or (gallery.name, item.suite, item.index, shot.seed) in done:
            continue
        picture, content = read_photo(shot.path, "--images")
        digest = content[:12]
        name = picture_name(gallery.name, item, shot.seed, "webp")
        scores = score(task, item, shot.seed, picture, shot.path)
        runs.write_whole(task.out / name, _thumbnail(picture))
        yield Record(
            method=gallery.name, digest=digest, suite=item.suite, index=item.index, item=digest_of(item),
            prompt=item.prompt, seed=shot.seed, scores=scores, picture=name,
        )  # fmt: skip


def _thumbnail(picture: Pillow.Image) -> bytes:
    buffer, small = BytesIO(), flat(picture)
    small.thumbnail((THUMBNAIL, THUMBNAIL), Pillow.Resampling.LANCZOS)
    small.save(buffer, "webp", quality=85)
    return buffer.getvalue()


def picture_name(method: str, item: Item, seed: int, kind: str) -> str:
    """Where a picture lies in the folder."""
    return f"pictures/{method}/{runs.slug(item.suite)}/{item.index:04}-{seed}.{kind}"


def score(task: Task, item: Item, seed: int, picture: Pillow.Image, path: Path) -> dict[str, float]:
    """The numbers of a picture, as it was read back from its file; what is not finite is left out, with a warning.

    Raises:
        PluginError: the scorer failed, or returned a column that it does not have.
    """
    name = task.about.bench
    try:
        found = task.bench.score(from_pillow(picture), item, seed)
        scores = {key: float(value) for key, value in found.items()}
    except RefereeError:
        raise
    except Exception as error:
        if out_of_memory(error):
            raise
        raise PluginError(f"The bench '{name}' could not score {path}: {where(error)}") from error
    if unknown := sorted(scores.keys() - task.about.columns.keys()):
        raise PluginError(f"The bench '{name}' scored '{unknown[0]}', which is none of its columns.")
    if broken := sorted(key for key, value in scores.items() if not isfinite(value)):
        warnings.warn(f"{path}: {', '.join(broken)} is no finite number, and is left out.", stacklevel=2)
    return {key: value for key, value in scores.items() if isfinite(value)}
