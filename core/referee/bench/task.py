"""What `referee bench` is asked to do: which items, by which methods, in which folder."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from referee.bench.about import About, Maker
from referee.bench.contract import Bench, Choosing, Item
from referee.bench.images import Gallery
from referee.bench.methods import Method
from referee.errors import OptionError, PluginError
from referee.folder import record as runs
from referee.plugins import Registry

STRIDE = 10_000
"""Between the seeds of one prompt's pictures: no two prompts of a suite share one, unless it has more prompts."""


@dataclass(frozen=True, slots=True)
class Shard:
    """Every ``of``-th item, from ``first``."""

    first: int = 0
    of: int = 1

    @property
    def slug(self) -> str:
        """As files are named."""
        return f"{self.first}-of-{self.of}"

    @classmethod
    def parse(cls, text: str) -> Shard:
        """``I/N``, from 0.

        Raises:
            OptionError: it is not.

        >>> Shard.parse("1/4").slug
        '1-of-4'
        """
        found = re.fullmatch("([0-9]{1,4})/([0-9]{1,4})", text)
        if not found or not int(found[1]) < int(found[2]):
            raise OptionError(f"--shard {text}: write I/N, for example 0/2 in one shell and 1/2 in another.")
        return cls(int(found[1]), int(found[2]))


@dataclass(frozen=True, slots=True)
class Task:
    """What is to be drawn and scored.

    Attributes:
        about: what is asked for; its methods are those of ``methods`` and ``galleries``.
        bench: scores.
        items: all of them, whatever the shard.
        methods: who draws.
        galleries: pictures that are there already.
        first: the seed of item 0's first picture.
        row: seeds that are the same for every item, one per picture; then ``first`` is not looked at.
        shard: which items are done here.
        out: the folder.
        registry: for the pictures' records.
    """

    about: About
    bench: Bench
    items: Sequence[Item]
    methods: Sequence[Method]
    out: Path
    registry: Registry
    galleries: Sequence[Gallery] = ()
    first: int = 0
    row: tuple[int, ...] = ()
    shard: Shard = field(default_factory=Shard)

    def mine(self) -> list[Item]:
        """The shard's items."""
        return [item for i, item in enumerate(self.items) if i % self.shard.of == self.shard.first]

    def wanted(self, method: str) -> list[Item]:
        """Those of them that a method draws."""
        bench = self.bench
        return [item for item in self.mine() if not isinstance(bench, Choosing) or bench.wants(method, item)]

    def seeds(self, item: Item) -> list[int]:
        """Those of its pictures: they hang on neither the number of items nor that of seeds."""
        if self.row:
            return list(self.row)
        return [self.first + item.index + STRIDE * k for k in range(self.about.seeds)]


def row_of(own: Sequence[int], first: int | None, count: int) -> tuple[int, ...]:
    """So many of a bench's own seeds, moved so that they begin at another; they count on where there are too few.

    >>> row_of(range(42, 52), None, 3), row_of(range(42, 44), 7, 3)
    ((42, 43, 44), (7, 8, 9))
    """
    by = 0 if first is None else first - own[0]
    seeds = [*own, *(own[-1] + 1 + k for k in range(count - len(own)))]
    return tuple(seed + by for seed in seeds[:count])


def describe(
    name: str, bench: Bench, options: BaseModel, items: Sequence[Item], makers: Mapping[str, Maker], *, seeds: int,
    device: str,
) -> About:  # fmt: skip
    """What is asked for, for the record.

    Raises:
        OptionError: the bench has no items, or two of one place.
    """
    places = [(item.suite, item.index) for item in items]
    if not places:
        raise OptionError(f"The bench '{name}' has no prompts. `referee plugins show {name}` tells its options.")
    if len(set(places)) < len(places):
        twice = next(place for i, place in enumerate(places) if place in places[:i])
        raise PluginError(f"The bench '{name}' has two items {twice[1]} in its suite '{twice[0]}'.")
    suites = {suite: sum(item.suite == suite for item in items) for suite in dict.fromkeys(i.suite for i in items)}
    if len({runs.slug(suite) for suite in suites}) < len(suites):
        raise PluginError(f"The bench '{name}' has suites whose names differ in marks alone: {', '.join(suites)}.")
    said = options.model_dump(mode="json")
    fields = type(options).model_fields
    paths = {
        key: value for key in fields if isinstance(value := getattr(options, key), Path)
    }  # each machine has its own
    aside = {*paths, *(key for key in fields if _selects(fields[key]))}
    return About(
        bench=name,
        options={key: value for key, value in said.items() if key not in aside},
        weights=runs.weights_of(name, {key: str(path.expanduser()) for key, path in paths.items()}),
        columns=dict(bench.columns),
        suites=suites,
        wants=_wants(bench, items, makers),
        seeds=seeds,
        methods=dict(makers),
        asked=said,
        device=device,
        libraries=runs.versions(),
    )


def _wants(bench: Bench, items: Sequence[Item], makers: Mapping[str, Maker]) -> dict[str, dict[str, int]]:
    """Of a bench that chooses, how many items of a suite each method draws; pictures that are there are of all."""
    if not isinstance(bench, Choosing):
        return {}
    found: dict[str, dict[str, int]] = {}
    for name, maker in makers.items():
        counts = found.setdefault(name, dict.fromkeys((item.suite for item in items), 0))
        for item in items:
            counts[item.suite] += maker.found or bench.wants(name, item)
    return found


def _selects(field: Any) -> bool:
    extra = field.json_schema_extra
    return isinstance(extra, dict) and bool(extra.get("selects"))
