"""The plot: a column's mean per method with its 95 % interval over prompts, a panel per suite. SVG, text and numbers
alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from referee.bench.contract import Column
from referee.bench.records import Evidence
from referee.bench.statistics import Cell
from referee.watching.curves import number, ticks

ROW, WIDE, TOP, BOTTOM, GAP = 22, 320, 30, 22, 34
"""Units: a method's height, a panel's width, room above and below, and between the panels."""
LETTER = 7.2
"""Of a name, about."""
INK, DIM, RULE = "#1f4e79", "#555555", "#dddddd"


def svg(evidence: Evidence, found: Sequence[Cell], column: str) -> str:
    """The drawing, on white; panels side by side, methods from top to bottom as in the table. Words are escaped."""
    here = [one for one in found if one.column == column]
    suites = [suite for suite in evidence.about.suites if any(one.suite == suite for one in here)]
    methods = [method for method in evidence.about.methods if any(one.method == method for one in here)]
    low, high = limits(here, evidence.about.columns[column])
    title = evidence.about.columns[column].title
    left = 16 + LETTER * max((len(method) for method in methods), default=0)
    high_y = TOP + ROW * len(methods)
    width, height = left + len(suites) * (WIDE + GAP), high_y + BOTTOM
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height}" role="img" '
        f'font-family="sans-serif" font-size="12" aria-label="{escape(title)}">'
        f'<rect width="100%" height="100%" fill="#ffffff"/>'
    ]
    for row, method in enumerate(methods):
        y = TOP + ROW * (row + 0.5) + 4
        parts.append(f'<text x="{left - 10:.0f}" y="{y:.0f}" text-anchor="end">{escape(method)}</text>')
    for i, suite in enumerate(suites):
        x0 = left + i * (WIDE + GAP)
        whose = f"{suite}: " if len(suites) > 1 else ""
        parts.append(f'<text x="{x0:.0f}" y="16" font-weight="bold">{escape(whose + title)}</text>')

        def x(value: float, x0: float = x0) -> float:
            return x0 + WIDE * (value - low) / (high - low)

        for tick in ticks(low, high):
            parts.append(f'<path stroke="{RULE}" d="M{x(tick):.1f} {TOP}V{high_y}"/>')
            text = f'x="{x(tick):.1f}" y="{high_y + 15}" text-anchor="middle" fill="{DIM}"'
            parts.append(f"<text {text}>{number(tick)}</text>")
        for one in here:
            if one.suite == suite:
                y = TOP + ROW * (methods.index(one.method) + 0.5)
                said = f"{one.method}: {one.mean:.3f}, {one.low:.3f} to {one.high:.3f}, {one.n} prompts"
                bar = f"M{x(one.low):.1f} {y}H{x(one.high):.1f}M{x(one.low):.1f} {y - 4}v8M{x(one.high):.1f} {y - 4}v8"
                parts.append(
                    f'<g stroke="{INK}" fill="{INK}"><title>{escape(said)}</title><path d="{bar}"/>'
                    f'<circle cx="{x(one.mean):.1f}" cy="{y}" r="4"/></g>'
                )
    return "\n".join([*parts, "</svg>\n"])


def limits(found: Sequence[Cell], column: Column) -> tuple[float, float]:
    """Of the axis: 0 to 1 for a proportion, else what the intervals need."""
    if column.proportion:
        return 0.0, 1.0
    low, high = min((one.low for one in found), default=0.0), max((one.high for one in found), default=1.0)
    room = 0.05 * (high - low) or max(abs(low), 1.0) / 2
    return low - room, high + room
