"""Boxes that a detector found, and what two of them have to do with each other. No model library is needed.

Coordinates are pixels of the picture, or of whatever frame a rule wants them in; x runs to the right, y downwards.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

OVERLAP = 0.5
"""Share at which two boxes of one class are taken for one thing, see `distinct`."""


class Box(NamedTuple):
    """A rectangle, by its corners."""

    x0: float
    y0: float
    x1: float
    y1: float

    @property
    def width(self) -> float:
        """From left to right; never negative."""
        return max(self.x1 - self.x0, 0.0)

    @property
    def height(self) -> float:
        """From top to bottom; never negative."""
        return max(self.y1 - self.y0, 0.0)

    @property
    def centre(self) -> tuple[float, float]:
        """x and y of the middle."""
        return (self.x0 + self.x1) / 2, (self.y0 + self.y1) / 2

    def scaled(self, x: float, y: float) -> Box:
        """In a frame that is so many times as wide and as high."""
        return Box(self.x0 * x, self.y0 * y, self.x1 * x, self.y1 * y)


class Found(NamedTuple):
    """One thing that was found.

    Attributes:
        confidence: in [0, 1].
        box: where.
    """

    confidence: float
    box: Box


def iou(a: Box, b: Box) -> float:
    """Area that both cover over area that either covers; 0 for two boxes without area.

    >>> iou(Box(0, 0, 2, 2), Box(1, 0, 3, 2))
    0.3333333333333333
    """
    both = Box(max(a.x0, b.x0), max(a.y0, b.y0), min(a.x1, b.x1), min(a.y1, b.y1))
    shared = both.width * both.height
    either = a.width * a.height + b.width * b.height - shared
    return shared / either if either else 0.0


def distinct(found: Iterable[Found], overlap: float = OVERLAP) -> list[Found]:
    """The surest first, less those that overlap a surer one: OWL gives a box per patch, several to a thing."""
    kept: list[Found] = []
    for one in sorted(found, key=lambda each: -each.confidence):
        if all(iou(one.box, other.box) <= overlap for other in kept):
            kept.append(one)
    return kept


def surest(found: Sequence[Found], confidence: float) -> Found | None:
    """The one of highest confidence, if that is above a threshold."""
    best = max(found, key=lambda each: each.confidence, default=None)
    return best if best is not None and best.confidence > confidence else None
