"""Pictures that are there already: which item each belongs to, what is missing, what cannot be read."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from referee.bench.contract import Bench, Item, Named
from referee.control.photo import read_photo
from referee.errors import OptionError, RunError
from referee.folder.record import slug
from referee.plugins import NAME

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
NUMBERED = re.compile(r"([0-9]{1,9})(?:[-_]([0-9]{1,12}))?")
"""``INDEX`` or ``INDEX-SEED``, as this program names its own."""
MAX_SHOWN = 20
"""Files that are listed."""


@dataclass(frozen=True, slots=True)
class Shot:
    """One picture of an item; the seed is that in its name, or the number that the bench reads there."""

    item: Item
    seed: int
    path: Path


@dataclass(frozen=True, slots=True)
class Gallery:
    """A folder of pictures.

    Attributes:
        name: what it is called in the table.
        folder: where it is.
        shots: what can be scored, item by item.
        missing: items that lack pictures, in words.
        broken: files that are no pictures, in words.
        strays: pictures that belong to no item.
    """

    name: str
    folder: Path
    shots: tuple[Shot, ...]
    missing: tuple[str, ...] = ()
    broken: tuple[str, ...] = ()
    strays: tuple[Path, ...] = ()

    @property
    def whole(self) -> bool:
        """Whether each item has its pictures."""
        return not self.missing and not self.broken

    @property
    def most(self) -> int:
        """Pictures of the item that has most."""
        counts: dict[tuple[str, int], int] = {}
        for shot in self.shots:
            place = (shot.item.suite, shot.item.index)
            counts[place] = counts.get(place, 0) + 1
        return max(counts.values(), default=0)


def open_gallery(text: str, bench: Bench, items: Sequence[Item], seeds: int | None, *, partial: bool) -> Gallery:
    """A folder's pictures, by the bench's own naming or as ``[SUITE/]INDEX[-SEED].png``.

    Args:
        text: ``DIR``, or ``NAME=DIR``.
        bench: may know how others name them, see `referee.bench.contract.Named`.
        items: all of them.
        seeds: pictures that each item should have; None for as many as the item that has most.
        partial: some may be missing or broken.

    Raises:
        OptionError: there is no such folder, or no name for it.
        RunError: some are missing or broken, and are listed; or two have one number.
    """
    name, folder = _named(text)
    found = _by_item(bench, folder, items)
    wanted = seeds or max((len(shots) for shots in found.values()), default=0) or 1
    shots, missing, broken = [], [], []
    for item in items:
        mine = found[item.suite, item.index][:wanted]
        _check_numbers(mine)
        if len(mine) < wanted:
            lacks = "no picture" if not mine else f"{len(mine)} of {wanted} pictures"
            missing.append(f"{item.suite} {item.index} '{item.prompt}': {lacks}")
        for shot in mine:
            try:
                read_photo(shot.path, "--images")
                shots.append(shot)
            except OptionError as error:
                broken.append(str(error))
    used = {shot.path for of in found.values() for shot in of}
    strays = tuple(path for path in _pictures(folder.rglob("*")) if path not in used)
    gallery = Gallery(name, folder, tuple(shots), tuple(missing), tuple(broken), strays)
    if not shots or not (gallery.whole or partial):
        raise RunError(told(gallery, len(items), partial))
    return gallery


def told(gallery: Gallery, items: int, partial: bool) -> str:
    """What is wrong with a gallery, listed."""
    listed = [*gallery.missing, *gallery.broken]
    lines = [*listed[:MAX_SHOWN], *([f"and {len(listed) - MAX_SHOWN} more"] if len(listed) > MAX_SHOWN else [])]
    if gallery.strays:
        names = ", ".join(path.name for path in gallery.strays[:3])
        lines.append(f"{len(gallery.strays)} pictures belong to no item, for example {names}")
    mend = "" if partial or not gallery.shots else "\n--partial scores the rest, and the table says how much that is."
    return (
        f"{gallery.folder}: {len(gallery.missing)} of {items} items lack pictures, {len(gallery.broken)} files cannot "
        f"be read.\n  " + "\n  ".join(lines) + mend
    )


def _named(text: str) -> tuple[str, Path]:
    folder, name = Path(text), ""
    before, equals, after = text.partition("=")
    if equals and NAME.fullmatch(before) and not folder.is_dir():
        name, folder = before, Path(after)
    if not folder.is_dir():
        raise OptionError(f"--images {text}: there is no such folder.")
    return name or slug(folder.resolve().name), folder


def _by_item(bench: Bench, folder: Path, items: Sequence[Item]) -> dict[tuple[str, int], list[Shot]]:
    if isinstance(bench, Named):
        return {
            (item.suite, item.index): [Shot(item, k, path) for k, path in sorted(bench.files(folder, item))]
            for item in items
        }
    suites = dict.fromkeys(item.suite for item in items)
    homes = {suite: folder / slug(suite) for suite in suites}
    if len(suites) == 1 and not homes[items[0].suite].is_dir():
        homes = dict.fromkeys(suites, folder)
    named = {suite: _numbered(home) for suite, home in homes.items()}
    return {
        (item.suite, item.index): [
            Shot(item, seed, path) for seed, path in sorted(named[item.suite].get(item.index, []))
        ]
        for item in items
    }


def _check_numbers(shots: Sequence[Shot]) -> None:
    """RunError: two pictures of an item have one number."""
    for one, other in pairwise(shots):  # in order
        if one.seed == other.seed:
            raise RunError(f"{one.path} and {other.path} are both picture {one.seed} of '{one.item.prompt}'.")


def _numbered(home: Path) -> dict[int, list[tuple[int, Path]]]:
    """The pictures of a folder by their number: seed and file."""
    found: dict[int, list[tuple[int, Path]]] = {}
    for path in _pictures(home.glob("*")):
        if match := NUMBERED.fullmatch(path.stem):
            found.setdefault(int(match[1]), []).append((int(match[2] or 0), path))
    return found


def _pictures(paths: Iterable[Path]) -> list[Path]:
    return sorted(path for path in paths if path.suffix.lower() in SUFFIXES and path.is_file())
