"""What a table of the paper is, as data: its rows and numbers, ours beside them, and what its claim hangs on.

A `Part` of a claim is a difference between two numbers on the same prompts, and what the paper says of it. Whether it
is so is decided in `referee_pocket.paper.verdicts`. This module needs no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

from referee.bench.contract import Layer

ATTRIBUTES, SPATIAL, COMPLEX = "attributes", "spatial", "complex"
"""The suites: two things; two things and where they lie; three things."""


class Verdict(StrEnum):
    """What came of a claim."""

    HOLDS = "holds"
    FAILS = "does not hold"
    OPEN = "not decided at this error"
    UNTESTABLE = "not testable here"
    UNMEASURED = "not measured yet"


Rule = Literal["more", "same"]
"""Of first less second: it is above 0, or it is nothing that counts."""


@dataclass(frozen=True, slots=True)
class Number:
    """A method's number: a column of the bench in a suite."""

    method: str
    column: str = "binding"
    suite: str = ATTRIBUTES


@dataclass(frozen=True, slots=True)
class Part:
    """One comparison that a claim hangs on.

    Attributes:
        says: in words, as a sentence without its full stop.
        first, second: compared prompt by prompt; one of them may be a number that stands for all prompts.
        rule: what is said of first less second.
        margin: the smallest difference that counts, in the column's unit; `Table.margin` makes it smaller where the
            paper's own difference is small. "more" fails if the difference is surely not above it, "same" holds if it
            is surely within it, either way.
        aside: told, but not part of the table's verdict.
    """

    says: str
    first: Number | float
    second: Number | float
    rule: Rule = "more"
    margin: float = 0.05
    aside: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """A line of a table.

    Attributes:
        title: as the paper has it, or ours if it has none.
        method: ours, a name of the bench's; "" if there is no counterpart.
        paper: the paper's numbers as printed, by heading.
        layer: how ours draws, over the pocket preset.
        why: what keeps a row from having a counterpart, or how ours differs.
        suites: those of the table's that it is drawn in; all if none is named.
    """

    title: str
    method: str
    paper: Mapping[str, str] = field(default_factory=dict)
    layer: Layer | None = None
    why: str = ""
    suites: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Beside:
    """A column of the paper, and the one of ours that stands beside it; None if we have none."""

    heading: str
    number: tuple[str, str] | None = (ATTRIBUTES, "binding")
    """(suite, column)"""
    unit: float = 1.0
    """What the paper's number is multiplied by to be in ours: 0.01 of a score out of 100."""


@dataclass(frozen=True, slots=True)
class Table:
    """A table or figure of the paper with its claim.

    Attributes:
        key: as typed, ``tables=4+9``.
        title: with the paper's number.
        claim: one sentence.
        prompts: how many of each suite its methods draw.
        rows, beside: its lines and columns.
        parts: all of them hold: it holds; one does not: it does not.
        units: how the paper's values became ours.
        untestable: why none, or some, of it can be tested here.
    """

    key: str
    title: str
    claim: str
    prompts: Mapping[str, int] = field(default_factory=dict)
    rows: tuple[Row, ...] = ()
    beside: tuple[Beside, ...] = ()
    parts: tuple[Part, ...] = ()
    units: str = ""
    untestable: str = ""

    @property
    def methods(self) -> dict[str, Layer]:
        """Its rows that are drawn here."""
        return {row.method: row.layer for row in self.rows if row.layer is not None}

    def difference(self, part: Part) -> float | None:
        """What the paper's own numbers say of a part, first less second, in our unit; None where it has none.

        Where ours stands for several of the paper's columns of a suite (all attributes right: colour, shape, texture),
        it is the smallest of theirs.
        """
        if not isinstance(part.first, Number) or not isinstance(part.second, Number):
            return None
        if (part.first.column, part.first.suite) != (part.second.column, part.second.suite):
            return None
        one, other = (self._row(side.method).paper for side in (part.first, part.second))
        near = [beside for beside in self.beside if beside.number and beside.number[0] == part.first.suite]
        own = [beside for beside in near if beside.number == (part.first.suite, part.first.column)]
        for candidates in (own, near):
            both = [beside for beside in candidates if beside.heading in one and beside.heading in other]
            if both:
                return min(beside.unit * (float(one[beside.heading]) - float(other[beside.heading])) for beside in both)
        return None

    def margin(self, part: Part) -> float:
        """The smallest difference that counts: of "more", at most half of what the paper itself found, where it did."""
        theirs = self.difference(part)
        return part.margin if theirs is None or part.rule != "more" else min(part.margin, theirs / 2)

    def _row(self, method: str) -> Row:
        return next((row for row in self.rows if row.method == method), Row("", method))

    def wants(self, method: str, suite: str) -> int:
        """How many of a suite's prompts a method draws for it."""
        mine = [row for row in self.rows if row.layer is not None and row.method == method]
        return max((self.prompts.get(suite, 0) for row in mine if suite in (row.suites or self.prompts)), default=0)
