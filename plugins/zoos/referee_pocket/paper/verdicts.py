"""What came of a claim: differences prompt by prompt, the 95 % intervals of their means, and a rule.

A part that says "more" holds if the whole interval lies above 0; it does not hold if the whole interval lies at or
below the margin, the smallest difference that counts. One that says "same" holds if the interval lies within the margin
either way, and does not hold if it lies beyond it. All else is not decided at this error, and so is what has too few
prompts. The interval of shares leaves room for what was too rare to be seen: with less than six prompts that differ no
share is more (see `referee.bench.statistics.interval_of_shares`); that of other numbers is by bootstrap over prompts.
Intervals are not widened for there being many of them: of forty comparisons of equals about two come out as different.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from statistics import fmean

from referee.bench.records import Evidence
from referee.bench.statistics import by_prompt, interval, interval_of_shares
from referee_pocket.paper.claims import Number, Part, Rule, Table, Verdict

LEAST = 20
"""Prompts below which nothing is decided: a bootstrap of few numbers is too sure of itself."""

Values = Callable[[Number], Mapping[int, float]]
"""A number by prompt, seeds averaged; empty if it was not measured."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A part of a claim, decided.

    Attributes:
        part: which.
        verdict: what came of it.
        n: prompts that both sides have.
        first, second: the means over them.
        mean, low, high: of first less second, prompt by prompt, with its interval; 0 if there is none.
    """

    part: Part
    verdict: Verdict
    n: int = 0
    first: float = 0.0
    second: float = 0.0
    mean: float = 0.0
    low: float = 0.0
    high: float = 0.0


def decide(low: float, high: float, rule: Rule, margin: float) -> Verdict:
    """The rule above, on an interval.

    >>> decide(0.02, 0.3, "more", 0.05), decide(-0.1, 0.05, "more", 0.05), decide(-0.1, 0.1, "more", 0.05)
    (<Verdict.HOLDS: 'holds'>, <Verdict.FAILS: 'does not hold'>, <Verdict.OPEN: 'not decided at this error'>)
    >>> decide(-0.02, 0.03, "same", 0.05), decide(0.06, 0.3, "same", 0.05), decide(-0.02, 0.1, "same", 0.05)
    (<Verdict.HOLDS: 'holds'>, <Verdict.FAILS: 'does not hold'>, <Verdict.OPEN: 'not decided at this error'>)
    """
    if rule == "more":
        return Verdict.HOLDS if low > 0 else Verdict.FAILS if high <= margin else Verdict.OPEN
    if -margin <= low and high <= margin:
        return Verdict.HOLDS
    return Verdict.FAILS if low > margin or high < -margin else Verdict.OPEN


def find(part: Part, values: Values, *, share: bool) -> Finding:
    """Decide one part.

    Args:
        part: what is said.
        values: the numbers.
        share: its numbers are proportions.
    """
    first, second = (values(side) if isinstance(side, Number) else side for side in (part.first, part.second))
    indices = [set(side) for side in (first, second) if isinstance(side, Mapping)]
    both = sorted(set.intersection(*indices))
    if not both:
        return Finding(part, Verdict.UNMEASURED)
    ones, others = ([side[i] if isinstance(side, Mapping) else side for i in both] for side in (first, second))
    gaps = [a - b for a, b in zip(ones, others, strict=True)]
    low, high = interval_of_shares(gaps) if share else interval(gaps)
    verdict = decide(low, high, part.rule, part.margin) if len(both) >= LEAST else Verdict.OPEN
    return Finding(part, verdict, len(both), fmean(ones), fmean(others), fmean(gaps), low, high)


def overall(findings: Iterable[Finding]) -> Verdict:
    """A table's verdict: that of its worst part, asides apart."""
    found = {finding.verdict for finding in findings if not finding.part.aside}
    for verdict in (Verdict.FAILS, Verdict.UNMEASURED, Verdict.OPEN, Verdict.HOLDS):
        if verdict in found:
            return verdict
    return Verdict.UNTESTABLE


def of_evidence(evidence: Evidence, prompts: Mapping[str, int] | None = None) -> Values:
    """The bench's numbers, of the first prompts of each suite: so many as ``prompts`` says, all where it is silent.

    So all rows of a table are of the same prompts, though another table has drawn more of some of them.
    """

    def values(number: Number) -> Mapping[int, float]:
        most = (prompts or {}).get(number.suite, sys.maxsize)
        found = by_prompt(evidence.of(number.method, number.suite), number.column)
        return {index: value for index, value in found.items() if index < most}

    return values


def judge(table: Table, values: Values, shares: Iterable[str] = ()) -> list[Finding]:
    """Decide all parts of a table, at its own margins; ``shares`` are the columns that are proportions."""
    proportions = set(shares)

    def share(part: Part) -> bool:
        return any(isinstance(side, Number) and side.column in proportions for side in (part.first, part.second))

    parts = [replace(part, margin=table.margin(part)) for part in table.parts]
    return [find(part, values, share=share(part)) for part in parts]
