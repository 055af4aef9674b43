"""Numbers from records. The prompt is the unit: a prompt's pictures are averaged first, and what is uncertain is which
prompts were asked, so errors and intervals are over prompts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean, stdev

import numpy as np

from referee.bench.about import Record
from referee.bench.contract import Column
from referee.bench.records import Evidence
from referee.errors import RunError

DRAWS = 4000
"""Of the bootstrap (Efron 1979): prompts drawn with replacement, so many times, always the same ones."""
LEVEL = 0.95
"""Share of the draws that lie in an interval, by percentiles."""
Z = NormalDist().inv_cdf((1 + LEVEL) / 2)
"""Standard errors on either side of a mean, where an interval is by formula."""
CHUNK = 250
"""Draws at a time: memory."""
EVEN = 1e-9
"""Two numbers that differ by less are a tie."""


@dataclass(frozen=True, slots=True)
class Cell:
    """A method's number in one column of a suite.

    Attributes:
        n: prompts that have it.
        mean: over prompts.
        error: standard error of the mean, over prompts; 0 of one.
        low, high: a 95 % interval of the mean, by bootstrap.
    """

    suite: str
    method: str
    column: str
    n: int
    mean: float
    error: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Difference:
    """Two methods on the same prompts, first minus second.

    Attributes:
        n: prompts that both have.
        first, second: the means over them.
        mean: of the differences, prompt by prompt.
        low, high: a 95 % interval of it, over prompts: `interval_of_shares` for proportions, else by bootstrap.
        wins, ties, losses: of the first method, in prompts; None where neither more nor less is better.
    """

    suite: str
    column: str
    n: int
    first: float
    second: float
    mean: float
    low: float
    high: float
    wins: int | None
    ties: int
    losses: int | None


def by_prompt(records: Sequence[Record], column: str) -> dict[int, float]:
    """A column's mean over seeds, by the prompt's index; prompts without it are left out."""
    values: dict[int, list[float]] = {}
    for record in records:
        if column in record.scores:
            values.setdefault(record.index, []).append(record.scores[column])
    return {index: fmean(found) for index, found in sorted(values.items())}


def cells(evidence: Evidence) -> list[Cell]:
    """All numbers, suite by suite, method by method; where no prompt has one there is none."""
    found = []
    for suite in evidence.about.suites:
        for method in evidence.about.methods:
            rows = evidence.of(method, suite)
            for column in evidence.about.columns:
                if values := list(by_prompt(rows, column).values()):
                    numbers = fmean(values), error(values), *interval(values)
                    found.append(Cell(suite, method, column, len(values), *numbers))
    return found


def error(values: Sequence[float]) -> float:
    """The standard error of a mean; 0 of one number, of which nothing is known.

    >>> error([0.0, 1.0, 0.0, 1.0])
    0.28867513459481287
    """
    return stdev(values) / len(values) ** 0.5 if len(values) > 1 else 0.0


def interval(values: Sequence[float]) -> tuple[float, float]:
    """A 95 % interval of the mean, by percentiles of the bootstrap; the same values give the same interval.

    >>> interval([2.0, 2.0])
    (2.0, 2.0)
    """
    given = np.asarray(values, float)
    draw = np.random.default_rng(0)
    means = np.concatenate(
        [given[draw.integers(len(given), size=(CHUNK, len(given)))].mean(1) for _ in range(DRAWS // CHUNK)]
    )
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def interval_of_shares(gaps: Sequence[float]) -> tuple[float, float]:
    """A 95 % interval of the mean difference of two shares, pair by pair: room for what was too rare to be seen.

    The bootstrap draws only what was seen, so that one loss and no win would be a sure loss. Here a = z^2 pairs that
    were never drawn are added, half of them won in full and half lost, as Agresti and Coull (1998) add to one share:

        N = n + a,  m = sum(gap) / N,  s^2 = (sum(gap^2) + a) / N - m^2,  interval = m -+ z s / sqrt(N)

    Of shares finer than right and wrong fewer are: a = z^2 times the mean square of the differences that are not 0.
    With nothing seen to differ it is -+ z^2 / (n + z^2). Of right and wrong, one more loss moves both of its ends down.

    Args:
        gaps: first less second, each in [-1, 1].

    >>> [round(end, 3) for end in interval_of_shares([0.0] * 40)]
    [-0.088, 0.088]
    >>> [round(end, 3) for end in interval_of_shares([-1.0] + [0.0] * 39)]
    [-0.121, 0.075]
    """
    seen = [gap**2 for gap in gaps if gap]
    added = Z**2 * (sum(seen) / len(seen) if seen else 1.0)
    n = len(gaps) + added
    mean = sum(gaps) / n
    half = Z * (((sum(seen) + added) / n - mean**2) / n) ** 0.5
    return max(mean - half, -1.0), min(mean + half, 1.0)


def compare(one: Evidence, first: str, other: Evidence, second: str) -> list[Difference]:
    """Two methods of one bench on the prompts that both have drawn; they may be of two folders.

    Raises:
        RunError: the benches differ, or the prompts of one place do, or no prompt was drawn by both.
    """
    _check_same_bench(one, other)
    found = [
        difference
        for suite in one.about.suites
        for key, column in one.about.columns.items()
        if (difference := _difference(one.of(first, suite), other.of(second, suite), suite, key, column))
    ]
    if not found:
        raise RunError(f"'{first}' and '{second}' have no prompt in common.")
    return found


def _check_same_bench(one: Evidence, other: Evidence) -> None:
    here, there = (each.about.model_copy(update={"methods": {}}) for each in (one, other))
    here.joined(there, "the first", "the second")
    prompts = {(record.suite, record.index): record for record in one.records}
    for record in other.records:
        mine = prompts.get((record.suite, record.index))
        if mine and mine.item != record.item:
            raise RunError(
                f"They cannot be compared: {record.suite} {record.index} is '{mine.prompt}' in the first and "
                f"'{record.prompt}' in the second."
            )


def _difference(
    mine: Sequence[Record], theirs: Sequence[Record], suite: str, key: str, column: Column
) -> Difference | None:
    here, there = by_prompt(mine, key), by_prompt(theirs, key)
    both = [index for index in here if index in there]
    if not both:
        return None
    gaps = [here[index] - there[index] for index in both]
    more, less = sum(gap > EVEN for gap in gaps), sum(gap < -EVEN for gap in gaps)
    won, lost = (more, less) if column.more else (less, more)
    return Difference(
        suite, key, len(both), fmean(here[i] for i in both), fmean(there[i] for i in both), fmean(gaps),
        *(interval_of_shares if column.proportion else interval)(gaps),
        None if column.more is None else won, len(gaps) - more - less, None if column.more is None else lost,
    )  # fmt: skip
