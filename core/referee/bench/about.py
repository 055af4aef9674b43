"""What is written of a bench, as data: what was asked for, how each method draws, and a record per picture.

All of it may come from a stranger: it is checked when it is read.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from hashlib import sha256
from pathlib import PurePosixPath
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from referee.bench.contract import Column, Item
from referee.errors import RunError
from referee.plugins import NAME

IMAGES = "images"
"""The way of drawing of pictures that were there already."""
MAX_SHOWN = 8
"""Differences that are told."""

Text = Annotated[str, Field(max_length=1000)]
Name = Annotated[str, Field(max_length=100, pattern=f"^{NAME.pattern}$")]
Number = Annotated[float, Field(allow_inf_nan=False)]
Key = tuple[str, str, int, int]
"""Method, suite, index, seed: one picture."""


class Maker(BaseModel):
    """How a method's pictures come about: all that decides what they show, and no seed.

    Two are the same method if their digests are equal; what is not in the digest (families) is for the table's notes.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    draw: dict[str, Any] = Field(description="the way of drawing by name, with its options")
    settings: dict[str, Any] = Field(default_factory=dict, description="complete, as a run's record has them")
    weights: dict[Text, Text] = Field(default_factory=dict, description="sha256 by file")
    families: tuple[Text, ...] = Field((), description="of the referees that steer it")

    @property
    def found(self) -> bool:
        """The pictures were there already: each has a digest of its own."""
        return self.draw.get("name") == IMAGES

    @property
    def decisive(self) -> dict[str, Any]:
        """What the digest is of."""
        return {"draw": self.draw, "settings": self.settings, "weights": self.weights}

    @property
    def digest(self) -> str:
        """Twelve digits that stand for all of it."""
        return digest(self.decisive)


class About(BaseModel):
    """What was asked for: a file per shard; joined, of all shards."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    bench: Name
    options: dict[Text, Any] = Field(default_factory=dict, description="those that decide how an item is scored")
    weights: dict[Text, Text] = Field(default_factory=dict, description="of the scorer: sha256 by file")
    columns: dict[Text, Column] = Field(min_length=1)
    suites: dict[Text, int] = Field(description="how many items each has")
    wants: dict[Name, dict[Text, int]] = Field(
        default_factory=dict, description="how many of them a method draws, where the bench chooses"
    )
    seeds: int = Field(1, ge=1, description="pictures of an item")
    methods: dict[Name, Maker] = Field(default_factory=dict)
    asked: dict[Text, Any] = Field(default_factory=dict, description="all options, for the reader")
    device: Text = ""
    libraries: dict[Text, Text] = Field(default_factory=dict)

    @property
    def decisive(self) -> dict[str, Any]:
        """What must agree where records are joined, but for the methods."""
        columns = self.model_dump(mode="json", include={"columns"})["columns"]
        return {"bench": self.bench, "options": self.options, "weights": self.weights, "columns": columns}

    def count(self, method: str, suite: str) -> int:
        """How many items of a suite a method draws."""
        return self.wants.get(method, {}).get(suite, self.suites[suite])

    def binding(self, drawn: Collection[str]) -> About:
        """The same, less the methods that were asked for and drew nothing: they may be mended."""
        return self.model_copy(update={"methods": {name: one for name, one in self.methods.items() if name in drawn}})

    def joined(self, other: About, here: str, there: str) -> About:
        """Both.

        Raises:
            RunError: they do not agree; says where.
        """
        _same(self.decisive, other.decisive, "the benches", here, there)
        for name in [name for name in self.methods if name in other.methods]:
            _same(self.methods[name].decisive, other.methods[name].decisive, f"the methods '{name}'", here, there)
        wants = {name: _most(self.wants.get(name, {}), other.wants.get(name, {})) for name in self.wants | other.wants}
        devices = dict.fromkeys([self.device, other.device])
        return self.model_copy(
            update={
                "suites": _most(self.suites, other.suites), "wants": wants,
                "seeds": max(self.seeds, other.seeds), "methods": self.methods | other.methods,
                "device": ", ".join(name for name in devices if name),
            }
        )  # fmt: skip


class Record(BaseModel):
    """One picture, scored: a line of the file."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    method: Name
    digest: Text = Field(description="of the method, or of the picture if it was there already")
    suite: Text
    index: int = Field(ge=0)
    item: Text = Field(description="a digest of the item, its data included")
    prompt: Text
    seed: int
    scores: dict[Text, Number]
    cpu_seconds: Number | None = Field(None, description="to draw it, of all threads")
    seconds: Number | None = Field(None, description="to draw it, by the clock")
    picture: Text = Field("", description="a file of the folder")

    @field_validator("picture")
    @classmethod
    def _inside(cls, name: str) -> str:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or "\\" in name:
            raise ValueError("it must lie in the folder")
        return name

    @property
    def key(self) -> Key:
        """Which picture it is."""
        return self.method, self.suite, self.index, self.seed


def digest(said: Any) -> str:
    """Twelve hexadecimal digits of what JSON can hold."""
    return sha256(json.dumps(said, sort_keys=True, default=str).encode()).hexdigest()[:12]


def digest_of(item: Item) -> str:
    """What stands for an item: its prompt and its data."""
    return digest([item.prompt, item.data])


def _most(one: Mapping[str, int], other: Mapping[str, int]) -> dict[str, int]:
    return {name: max(one.get(name, 0), other.get(name, 0)) for name in {**one, **other}}


def differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Where two tables differ, each as ``a.b: 1 and 2``.

    >>> differences({"rules": {"steps": 80, "tail": 1}}, {"rules": {"steps": 300, "tail": 1}})
    ['rules.steps: 80 and 300']
    """
    here, there = dict(_flat(one)), dict(_flat(other))
    lacking = "nothing"
    return [
        f"{name}: {here.get(name, lacking)} and {there.get(name, lacking)}"
        for name in dict.fromkeys([*here, *there])
        if here.get(name, lacking) != there.get(name, lacking)
    ]


def _flat(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    inner: Sequence[tuple[Any, Any]] = ()
    if isinstance(value, Mapping):
        inner = list(value.items())
    elif isinstance(value, (list, tuple)):
        inner = list(enumerate(value))
    if not inner:
        yield path, json.dumps(value, default=str)
    for name, one in inner:
        yield from _flat(one, f"{path}.{name}" if path else str(name))


def _same(one: Mapping[str, Any], other: Mapping[str, Any], whose: str, here: str, there: str) -> None:
    if found := differences(json.loads(json.dumps(one, default=str)), json.loads(json.dumps(other, default=str))):
        more = f"; and {len(found) - MAX_SHOWN} more" if len(found) > MAX_SHOWN else ""
        raise RunError(
            f"{here} and {there} cannot be joined, as {whose} are not the same: {'; '.join(found[:MAX_SHOWN])}{more}. "
            "Another --out keeps them apart, another name tells two methods apart."
        )
