"""What follows from a judge's verdicts: each picture's best step, its plateau, and reward hacking.

All of it is a function of the rows of metrics.jsonl, so that a run that goes on finds what the unbroken one found. Of
one picture, with the verdicts v1, v2, ... (a loss that is not finite is never the best):

    best      the first verdict of the least loss
    plateau   ``patience`` verdicts on end that are not below the least before them: the picture ends there
    hacking   at three verdicts on end the judge's loss is above its least by more than a quarter of what it had fallen
              from v1 to there, and by more than a fiftieth of |v1|, while the referees like the picture better than
              they did at the least

What the referees think at a verdict is each one's mean loss over the steps since the verdict before. They like it
better if the mean of (now - then) / (|now| + |then|), over those who were asked both times, is below 0: so nobody's
unit counts for more. A quarter and a fiftieth let a judge waver on its plateau, or have no opinion, and say nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf
from statistics import fmean
from typing import Any

ON_END, LOST, LEAST = 3, 1 / 4, 1 / 50


class Course:
    """One picture's way, as its judge sees it.

    Args:
        patience: verdicts on end without a better one after which it ends; None for no end.

    Attributes:
        first, least, last: losses of the judge; None where there was none, or none that is finite.
        best: steps after which the judge's loss was least; None before there is one.
        taken: steps after which the last verdict was given that counts.
        ended: steps after which it reached its plateau.
        hacked: steps after which reward hacking was found.
    """

    def __init__(self, patience: int | None = None) -> None:
        self.patience = patience
        self.first: float | None = None
        self.least: float | None = None
        self.last: float | None = None
        self.best: int | None = None
        self.taken: int | None = None
        self.ended: int | None = None
        self.hacked: int | None = None
        self._heard: dict[str, list[float]] = {}
        self._then: dict[str, float] = {}
        self._waited = self._suspect = 0

    @property
    def kept(self) -> int | None:
        """Steps after which its best picture was taken: without a finite verdict the last one."""
        return self.taken if self.best is None else self.best

    def listen(self, losses: Mapping[str, float | None]) -> None:
        """Take in what the referees say at a step."""
        for name, loss in losses.items():
            if loss is not None:
                self._heard.setdefault(name, []).append(loss)

    def verdict(self, taken: int, loss: float | None) -> bool:
        """Take in a verdict on the picture after so many steps; gives whether that is now the one to keep."""
        if self.ended is not None:
            return False
        now, self._heard = {name: fmean(losses) for name, losses in self._heard.items()}, {}
        self.taken, self.last = taken, loss
        if loss is not None and loss < (inf if self.least is None else self.least):
            self.first = loss if self.first is None else self.first
            self.best, self.least, self._then = taken, loss, now
            self._waited = self._suspect = 0
            return True
        self._waited += 1
        self._suspect = self._suspect + 1 if self._fell(loss) and like_better(now, self._then) else 0
        if self._suspect == ON_END and self.hacked is None:
            self.hacked = taken
        if self._waited == self.patience:
            self.ended = taken
        return self.best is None

    def _fell(self, loss: float | None) -> bool:
        if loss is None or self.first is None or self.least is None:
            return False
        return loss - self.least > max(LOST * (self.first - self.least), LEAST * abs(self.first))


def like_better(now: Mapping[str, float], then: Mapping[str, float]) -> bool:
    """Whether referees like a picture better than another, by their losses.

    >>> like_better({"clip": 0.6, "blip2": 3.1}, {"clip": 0.8, "blip2": 3.0}), like_better({}, {"clip": 0.8})
    (True, False)
    """
    changes = [
        (loss - then[name]) / ((abs(loss) + abs(then[name])) or 1.0) for name, loss in now.items() if name in then
    ]
    return bool(changes) and fmean(changes) < 0


class Verdicts:
    """The courses of all pictures of a run, fed with its rows one after another.

    Args:
        pictures: how many.
        patience: see `Course`.
    """

    def __init__(self, pictures: int, patience: int | None = None) -> None:
        self.courses = [Course(patience) for _ in range(pictures)]

    def add(self, row: Mapping[str, Any]) -> list[bool]:
        """Take in a step's row; gives for each picture whether it is now the one to keep."""
        said: Sequence[float | None] | None = row.get("judge")
        better = []
        for i, course in enumerate(self.courses):
            course.listen({name: losses[i] for name, losses in row["losses"].items()})
            better.append(said is not None and course.verdict(row["step"] + 1, said[i]))
        return better

    def hacked(self, taken: int) -> list[bool]:
        """For each picture, whether reward hacking was found right after so many steps."""
        return [course.hacked == taken for course in self.courses]

    @property
    def given(self) -> bool:
        """Whether there was a verdict."""
        return any(course.taken is not None for course in self.courses)

    @property
    def over(self) -> bool:
        """Whether all pictures ended."""
        return all(course.ended is not None for course in self.courses)
