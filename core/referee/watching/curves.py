"""Curves as SVG, for the report: a line per seed, their mean on top, nothing but text and numbers.

Colours and strokes come from the page's style sheet, so a curve follows it into the dark.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from math import floor, isfinite, log10

WIDE, HIGH = 360, 180
"""Units of the drawing; on the page it is as wide as there is room."""
LEFT, RIGHT, TOP, BOTTOM = 40, 6, 8, 24
MOST = 400
"""Points of a line."""
LIMIT = 1e30
"""What is larger is not drawn: it says that something broke, and would flatten the rest."""

Points = Mapping[int, Sequence[float | None]]
"""By step, one number per seed; None where there is none."""


@dataclass(frozen=True, slots=True)
class Curve:
    """One chart.

    Attributes:
        title: what is drawn, as text.
        note: half a line below the title.
        points: the numbers.
        limits: of the upright axis; by default those of the numbers.
    """

    title: str
    note: str
    points: Points
    limits: tuple[float, float] | None = None

    @property
    def last(self) -> str:
        """The mean at the last step that has one, for the title line."""
        means = _means(self.points)
        return number(means[max(means)]) if means else "–"


def number(value: float) -> str:
    """Three digits, as short as can be.

    >>> number(0.12345), number(12345.6), number(0.0), number(3.0)
    ('0.123', '1.23e+04', '0', '3')
    """
    return f"{value:.3g}"


def ticks(low: float, high: float, count: int = 4) -> list[float]:
    """Round numbers between two, about as many as asked for.

    >>> ticks(0.0, 1.0), ticks(0.13, 0.58)
    ([0.0, 0.25, 0.5, 0.75, 1.0], [0.2, 0.3, 0.4, 0.5])
    """
    span = high - low
    if not (isfinite(span) and span > 0):
        return [low]
    power = 10.0 ** floor(log10(span / count))
    step = next((m * power for m in (1, 2, 2.5, 5, 10) if span / (m * power) <= count + 0.5), 10 * power)
    first = -(-low // step)
    return [round((first + i) * step, 12) for i in range(count + 3) if (first + i) * step <= high + 1e-9 * span]


def svg(curve: Curve, steps: int) -> str:
    """A chart as SVG text. All words in it are escaped.

    Args:
        steps: the whole run's, at least 1: the lying axis goes from 0 to them.
    """
    points = _thin(curve.points)
    means = _means(points)
    lines = _lines(points) if len(next(iter(points.values()), ())) > 1 else []
    values = [value for line in [*lines, list(means.items())] for _, value in line] or [0.0, 1.0]
    low, high = curve.limits or (min(values), max(values))
    largest = max(abs(low), abs(high))
    if high - low < 1e-9 * max(largest, 1e-6):
        about = largest if largest > 1e-6 else 1.0
        low, high = low - about / 2, high + about / 2

    def x(step: float) -> float:
        return LEFT + (WIDE - LEFT - RIGHT) * min(step / steps, 1)

    def y(value: float) -> float:
        return TOP + (HIGH - TOP - BOTTOM) * (1 - (value - low) / (high - low))

    def path(line: Sequence[tuple[int, float]]) -> str:
        return "M" + "L".join(f"{x(step):.1f} {y(value):.1f}" for step, value in line)

    parts = [f'<svg viewBox="0 0 {WIDE} {HIGH}" role="img" aria-label="{escape(curve.title)} over the steps">']
    for tick in ticks(low, high):
        parts.append(f'<path class="rule" d="M{LEFT} {y(tick):.1f}H{WIDE - RIGHT}"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y(tick) + 4:.1f}" text-anchor="end">{number(tick)}</text>')
    for tick in dict.fromkeys((0, steps // 2, steps)):
        anchor = "end" if tick == steps else "start" if tick == 0 else "middle"
        parts.append(f'<text x="{x(tick):.1f}" y="{HIGH - 6}" text-anchor="{anchor}">{tick}</text>')
    parts += [f'<path class="seed" d="{path(line)}"/>' for line in lines if len(line) > 1]
    if len(means) > 1:
        parts.append(f'<path class="mean" d="{path(sorted(means.items()))}"/>')
    elif means:
        ((step, value),) = means.items()
        parts.append(f'<circle class="dot" cx="{x(step):.1f}" cy="{y(value):.1f}" r="3"/>')
    parts.append(f'<path class="now" data-from="{LEFT}" data-to="{WIDE - RIGHT}" d="M0 {TOP}V{HIGH - BOTTOM}"/></svg>')
    return "".join(parts)


def _thin(points: Points) -> Points:
    """As many steps as the drawing has room for, the last among them."""
    steps = sorted(points)
    every = -(-len(steps) // MOST) or 1
    return {step: points[step] for step in sorted({*steps[::every], *steps[-1:]})}


def _drawable(values: Sequence[float | None]) -> list[float]:
    return [v for v in values if v is not None and abs(v) < LIMIT]  # a NaN is below nothing


def _means(points: Points) -> dict[int, float]:
    found = {step: _drawable(values) for step, values in points.items()}
    return {step: sum(values) / len(values) for step, values in found.items() if values}


def _lines(points: Points) -> list[list[tuple[int, float]]]:
    """A line per seed, oldest step first, without its gaps."""
    count = max((len(values) for values in points.values()), default=0)
    return [
        [(step, v) for step, values in sorted(points.items()) for v in _drawable(values[i : i + 1])]
        for i in range(count)
    ]
