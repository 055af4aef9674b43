"""Schedules: pure functions of progress in [0, 1], written the same in Python, TOML and on the command line.

cosine(1, 0.5)    half a cosine from 1 to 0.5       (the paper's lr and w2)
linear(1, 0)      a straight line
constant(2), 2    always 2
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, PlainSerializer

from referee.errors import OptionError

Curve = Literal["constant", "linear", "cosine"]
_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"


@dataclass(frozen=True, slots=True)
class Schedule:
    """A value that changes from ``start`` to ``end`` as progress goes from 0 to 1.

    >>> cosine(800, 400)(0.5), linear(1, 0)(0.25), constant(2)(0.9)
    (600.0, 0.75, 2.0)
    """

    curve: Curve
    start: float
    end: float

    def __call__(self, progress: float) -> float:
        if self.curve == "constant":
            return self.start
        share = (1 - math.cos(math.pi * progress)) / 2 if self.curve == "cosine" else progress
        return self.start + (self.end - self.start) * share

    def __str__(self) -> str:
        if self.curve == "constant":
            return f"{self.start:g}"
        return f"{self.curve}({self.start:g}, {self.end:g})"

    @property
    def least(self) -> float:
        """The smallest value it takes."""
        return min(self.start, self.end)

    @property
    def most(self) -> float:
        """The largest value it takes."""
        return max(self.start, self.end)


def constant(value: float) -> Schedule:
    """Always the same."""
    return Schedule("constant", float(value), float(value))


def linear(start: float, end: float) -> Schedule:
    """A straight line from start to end."""
    return Schedule("linear", float(start), float(end))


def cosine(start: float, end: float) -> Schedule:
    """Half a cosine: level at both ends."""
    return Schedule("cosine", float(start), float(end))


def parse(text: str) -> Schedule:
    """Read a schedule as a person writes it.

    Raises:
        OptionError: pointing at the character that cannot be read.

    >>> parse("cosine(1, 0.5)") == cosine(1, 0.5), parse("2") == constant(2)
    (True, True)
    """
    if re.fullmatch(_NUMBER, text.strip()):
        return _finite(text, constant(float(text.strip())))  # strip knows blanks that float does not
    position = 0

    def take(pattern: str, expected: str) -> str:
        nonlocal position
        found = re.compile(rf"\s*({pattern})\s*").match(text, position)
        if not found:
            raise OptionError(
                f"Cannot read the schedule '{text}': expected {expected} at character {position + 1}.\n"
                f"  {text}\n  {' ' * position}^\n"
                "Write a number, constant(2), linear(1, 0) or cosine(1, 0.5)."
            )
        position = found.end()
        return found[1]

    curve = take("constant|linear|cosine", "a number, or constant, linear or cosine")
    take(r"\(", "'('")
    start = float(take(_NUMBER, "a number"))
    end = start
    if curve != "constant":
        take(",", "','")
        end = float(take(_NUMBER, "a number"))
    take(r"\)", "')'")
    take("$", "the end")
    return _finite(text, Schedule(curve, start, end))  # type: ignore[arg-type]  # the pattern admits these names alone


def _finite(text: str, schedule: Schedule) -> Schedule:
    if not (math.isfinite(schedule.start) and math.isfinite(schedule.end)):
        raise OptionError(f"The schedule '{text}' has a value that is not finite.")
    return schedule


def _validate(value: Any) -> Schedule:
    if isinstance(value, Schedule):
        return value
    if isinstance(value, str):
        try:
            return parse(value)
        except OptionError as error:
            raise ValueError(str(error)) from error
    if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
        return constant(value)
    raise ValueError(f"a schedule is a finite number or text such as cosine(1, 0.5), not {value!r}")


def _serialise(schedule: Schedule) -> float | str:
    return schedule.start if schedule.curve == "constant" else repr_exact(schedule)


def repr_exact(schedule: Schedule) -> str:
    """Text that `parse` reads back to the very same numbers."""
    if schedule.curve == "constant":
        return repr(schedule.start)
    return f"{schedule.curve}({schedule.start!r}, {schedule.end!r})"


ScheduleField = Annotated[Schedule, BeforeValidator(_validate), PlainSerializer(_serialise)]
"""A pydantic field that takes a Schedule, a number, or text."""
