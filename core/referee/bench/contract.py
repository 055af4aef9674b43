"""What a bench is: items to draw, methods that draw them, and a scorer of what was drawn.

A plug-in offers one by the hook `referee_benches`, as a `referee.hooks.Spec` whose factory returns a `Bench`. Its
module may import this file, which needs no torch. The core draws, writes, joins and shows, and knows no bench by name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from referee.contract import Image

Layer = Mapping[str, Any]
"""Settings as TOML gives them, over the preset of the zoo, `referee.settings`; and two more keys at the top: ``draw``,
how the picture is made, a name of `referee.bench.draws.DRAWS` or a table of ``name`` and ``options`` ("invert" if it is
not said); and ``preset``, the name of another preset."""

SELECTS: dict[str, Any] = {"selects": True}
"""For an option that says which items are run, and changes none of them nor how it is scored:
``Field(60, description="...", json_schema_extra=SELECTS)``. Runs that differ in it alone can be joined."""


@dataclass(frozen=True, slots=True)
class Column:
    """One number of a score.

    Attributes:
        title: what stands above it in a table.
        proportion: it lies in [0, 1], and is right or wrong or a share of that.
        more: more is better; None if neither is.
        families: of the models that it is measured with, as in `referee.hooks.Spec`: the number of a method whose
            referees are of one of them has a warning beside it.
        digits: behind the point, in a table.
        pooled: below the table stands the mean of the suites' means, in which each suite counts alike.
    """

    title: str
    proportion: bool = False
    more: bool | None = True
    families: tuple[str, ...] = ()
    digits: int = 2
    pooled: bool = False


@dataclass(frozen=True, slots=True)
class Item:
    """One prompt of a bench.

    Attributes:
        index: its place in its suite, from 0: with the suite, its name for ever.
        prompt: what is drawn.
        suite: the part of the bench that it belongs to; numbers are told suite by suite.
        data: what the scorer needs beside the prompt (phrases, a category); JSON can hold it.
    """

    index: int
    prompt: str
    suite: str
    data: Mapping[str, Any] = field(default_factory=dict)


@runtime_checkable
class Bench(Protocol):
    """Items, methods and a scorer. Making one reads files of text at most; its models load at the first `score`."""

    @property
    def columns(self) -> Mapping[str, Column]:
        """All that `score` may return, by key; the first is the main one."""

    def items(self) -> Sequence[Item]:
        """What is drawn, in order.

        Raises:
            OptionError: a file of prompts is missing, or none.
        """

    def methods(self) -> Mapping[str, Layer]:
        """The bench's own methods, by name (lower case, digits and dashes); ``--method`` adds more."""

    def score(self, image: Image, item: Item, seed: int) -> Mapping[str, float]:
        """The numbers of one picture, (1, 3, H, W) in [0, 1] on the CPU, as it was read back from its file.

        A column that does not apply to the item is left out. What is drawn at random (views) comes from the seed: the
        same picture, item and seed give the same numbers.
        """


@runtime_checkable
class Named(Protocol):
    """A bench that knows how others name the pictures of its items, for ``--images``."""

    def files(self, folder: Path, item: Item) -> Sequence[tuple[int, Path]]:
        """The item's pictures in a folder, by their numbers; none if there is none.

        A picture's number is read off its name, and no two of an item have one: it stands for the picture in the
        records, in place of a seed, so it must be the same whichever other pictures are there.
        """


@runtime_checkable
class Naming(Protocol):
    """A bench whose pictures get the names that its authors give them, so that their own evaluator can read them."""

    def name(self, item: Item, k: int, of: int) -> str:
        """Of an item's k-th picture of so many, from 0: below the method's folder, with slashes, without ending."""


@runtime_checkable
class Seeded(Protocol):
    """A bench whose authors say with which seeds, and how many."""

    @property
    def seeds(self) -> Sequence[int]:
        """Of each prompt's pictures, the same for every prompt. ``--seeds`` takes the first so many, ``--seed`` moves
        them."""


@runtime_checkable
class Choosing(Protocol):
    """A bench of which not every method draws every item."""

    def wants(self, method: str, item: Item) -> bool:
        """Whether a method draws an item; also asked of methods that are not the bench's own."""
