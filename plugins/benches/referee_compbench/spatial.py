"""How two things lie to each other, by the rules of two benchmarks. Pure functions of boxes.

T2I-CompBench (Huang et al. 2023, arXiv 2307.06350, section 4.2; the constants are those of its published code): a soft
score of one picture from the surest box of each of two things. GenEval (Ghosh et al. 2023, arXiv 2310.11513, appendix):
the set of directions in which one box lies from the other.

Both were made for other detectors (UniDet, Mask2Former) than the one used here, so numbers are "-like".
"""

from __future__ import annotations

from math import hypot

from referee_compbench.boxes import Box, Found, iou

FRAME, LONGEST = 479, 480
"""Pixels of the shorter side at which CompBench's constants are meant, and the most that the longer may have."""
DISTANCE = 150
"""How near, in pixels of that frame, two centres must be, on one axis."""
OVERLAP = 0.1
"""Intersection over union up to which two things count as apart."""
LEAST = 0.5
"""Image scores below it become 0."""

RELATIONS = (
    "on side of", "next to", "near", "on the left of", "on the right of", "on the bottom of", "on the top of",
    "on top of",
)  # fmt: skip
"""In the order in which CompBench looks for them: the first that is part of the prompt is taken."""
NEAR = frozenset(RELATIONS[:3])
DIRECTIONS = {
    "on the left of": "left of", "on the right of": "right of", "on the bottom of": "below", "on the top of": "above",
    "on top of": "above",
}  # fmt: skip
"""What GenEval calls them; being near has no rule there."""
SHARE, HALF, STILL = 0.1, 0.5, 1e-3
"""GenEval: the share of both sizes that an offset must exceed; how far along an axis, of the whole offset, counts as a
direction; pixels below which nothing is left of an offset."""


def relation_in(prompt: str) -> str | None:
    """CompBench's relation of a prompt, by its very words; None if there is none.

    >>> relation_in("a girl on the top of a frog")
    'on the top of'
    """
    return next((words for words in RELATIONS if words in prompt), None)


def frame(height: int, width: int) -> tuple[float, float]:
    """How many times as wide and as high CompBench's frame is as a picture: the shorter side becomes 479 pixels, or
    what the longer's 480 leave of it.

    >>> [round(scale * 512) for scale in frame(512, 512)]
    [479, 479]
    """
    short, long = min(height, width), max(height, width)
    scale = min(FRAME / short, LONGEST / long)
    return scale, scale


def relation_score(relation: str | None, a: Box, b: Box) -> float:
    """CompBench's r, in [0, 1], of two boxes in its frame.

    Near needs only one axis on which the centres are near: two things in the same row are near however far apart. A
    direction holds if the centres lie apart mostly along its axis, and fades as the boxes overlap. "on top of" is no
    direction in the published code (only "on the top of" is): it scores 0 whatever the picture shows.
    """
    (ax, ay), (bx, by) = a.centre, b.centre
    dx, dy = bx - ax, by - ay
    if relation in NEAR:
        if abs(dx) < DISTANCE or abs(dy) < DISTANCE:
            return 1.0
        return DISTANCE / max(abs(dx), abs(dy))
    holds = {
        "on the left of": dx > 0 and abs(dx) > abs(dy),
        "on the right of": dx < 0 and abs(dx) > abs(dy),
        "on the top of": dy > 0 and abs(dy) > abs(dx),
        "on the bottom of": dy < 0 and abs(dy) > abs(dx),
    }
    if not holds.get(relation or "", False):
        return 0.0
    shared = iou(a, b)
    return 1.0 if shared < OVERLAP else OVERLAP / shared


def spatial_score(relation: str | None, a: Found | None, b: Found | None) -> float:
    """CompBench's 2D-spatial score of a picture, in [0, 1]: a quarter for each thing's confidence and a half for how
    they lie; but nothing below 0.5 remains, so one thing alone never scores.

    Args:
        relation: see `relation_in`.
        a: the first thing's surest box, in CompBench's frame; None if it was not found.
        b: the second's.
    """
    score = 0.25 * (a.confidence if a else 0.0) + 0.25 * (b.confidence if b else 0.0)
    if a and b:
        score += relation_score(relation, a.box, b.box) / 2
    return 0.0 if score < LEAST else score


def directions(a: Box, b: Box) -> frozenset[str]:
    """GenEval's: where a lies as seen from b; none, one or two of "left of", "right of", "above", "below".

    An offset counts only as far as it exceeds a tenth of both sizes on its axis.
    """
    (ax, ay), (bx, by) = a.centre, b.centre
    ox, oy = ax - bx, ay - by
    x = max(abs(ox) - SHARE * (a.width + b.width), 0.0) * (1 if ox > 0 else -1)
    y = max(abs(oy) - SHARE * (a.height + b.height), 0.0) * (1 if oy > 0 else -1)
    if abs(x) < STILL and abs(y) < STILL:
        return frozenset()
    whole = hypot(ox, oy)
    dx, dy = x / whole, y / whole
    named = {"left of": dx < -HALF, "right of": dx > HALF, "above": dy < -HALF, "below": dy > HALF}
    return frozenset(name for name, holds in named.items() if holds)


def position_score(relation: str | None, a: Found | None, b: Found | None) -> float | None:
    """GenEval's rule on CompBench's prompts: 1 if both are found and lie as said, else 0; None where it has no rule."""
    wanted = DIRECTIONS.get(relation or "")
    if wanted is None:
        return None
    return float(a is not None and b is not None and wanted in directions(a.box, b.box))
