"""The panel as a picture: each referee's loss, how far they agree and who pulls against whom over the run, and where on
the image each pulled at the last step that referees steered (the paper's figure 12). Drawn with Pillow alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import isfinite
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

WIDE, HIGH, GAP, CELL = 380, 130, 34, 128
MOST = 4
"""Pictures whose maps are shown."""
COLOURS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#17becf", "#8c564b", "#e377c2")

Curve = list[tuple[int, float]]
Chart = tuple[str, dict[str, Curve], tuple[float, float] | None]
"""Title, curves by name, lower and upper edge (None: those of the values)."""


def panel(
    history: Sequence[Mapping[str, Any]],
    pictures: Sequence[Image.Image] = (),
    maps: Mapping[str, npt.NDArray[np.float32]] | None = None,
) -> Image.Image:
    """The sheet.

    Args:
        history: a run's, as in ``metrics.jsonl``. Curves are means over the pictures; of steps at which one has no
            number there is a gap.
        pictures: what was drawn.
        maps: by name (n, H, W), not negative; each is shown from black at 0 to white at its own 99th percentile.
    """
    names = list(dict.fromkeys(name for row in history for name in row["losses"]))
    charts: list[Chart] = [(f"{name}: loss", {"": curve(history, "losses", name)}, None) for name in names]
    if verdicts := [(row["step"], mean) for row in history if (mean := average(row.get("judge"))) is not None]:
        charts.append(("judge: loss", {"": verdicts}, None))
    agreed = {"": [(row["step"], mean) for row in history if (mean := average(row["agreement"])) is not None]}
    charts.append(("agreement: 1 unanimous, 0 deadlock", agreed, (0.0, 1.0)))
    pairs = list(dict.fromkeys(pair for row in history for pair in row["cosines"] or ()))
    if pairs:
        lines = {pair: curve(history, "cosines", pair) for pair in pairs}
        charts.append(("cosine of each pair's gradients", lines, (-1.0, 1.0)))
    rows = min(len(pictures), MOST) if maps else 0
    top = (len(charts) + 1) // 2 * (HIGH + GAP)
    width = max(2 * (WIDE + GAP), (len(maps or ()) + 1) * (CELL + 4) + 4)
    sheet = Image.new("RGB", (width, top + (rows and 20 + rows * (CELL + 4))), "white")
    draw = ImageDraw.Draw(sheet)
    steps = max((row["step"] for row in history), default=0) or 1
    for i, (title, curves, limits) in enumerate(charts):
        plot(draw, (i % 2 * (WIDE + GAP) + GAP // 2, i // 2 * (HIGH + GAP) + 18), title, curves, steps, limits)
    for column, title in enumerate(("picture", *(maps or ())) if rows else ()):
        write(draw, (4 + column * (CELL + 4), top + 4), title)
        for row in range(rows):
            cell = pictures[row] if column == 0 else heat((maps or {})[title][row])
            sheet.paste(fit(cell), (4 + column * (CELL + 4), top + 20 + row * (CELL + 4)))
    return sheet


def curve(history: Sequence[Mapping[str, Any]], table: str, name: str) -> Curve:
    """The mean over pictures of a number, at the steps that have it."""
    found = ((row["step"], average((row[table] or {}).get(name))) for row in history)
    return [(k, mean) for k, mean in found if mean is not None]


def average(values: Sequence[float | None] | None) -> float | None:
    """Of those that are numbers, None if there are none.

    >>> average([1.0, None, 3.0]), average([None]), average(None)
    (2.0, None, None)
    """
    given = [value for value in values or () if value is not None and isfinite(value)]
    return sum(given) / len(given) if given else None


def plot(
    draw: ImageDraw.ImageDraw, at: tuple[int, int], title: str, curves: Mapping[str, Curve], steps: int,
    limits: tuple[float, float] | None,
) -> None:  # fmt: skip
    """One chart: a frame, its curves with their names, the values at its lower and upper edge."""
    left, top = at
    values = [value for line in curves.values() for _, value in line]
    low, high = limits or (min(values, default=0.0), max(values, default=1.0))
    span = (high - low) or 1.0
    draw.rectangle((left, top, left + WIDE, top + HIGH), outline="#bbbbbb")
    write(draw, (left, top - 14), title)
    if low < 0 < high:
        zero = top + HIGH * high / span
        draw.line((left, zero, left + WIDE, zero), fill="#dddddd")
    for i, (name, line) in enumerate(curves.items()):
        colour = COLOURS[i % len(COLOURS)]
        points = [(left + WIDE * k / steps, top + HIGH * (high - value) / span) for k, value in line]
        waits = [after - before for (before, _), (after, _) in pairwise(line)]
        for wait, (here, there) in zip(waits, pairwise(points), strict=True):
            if wait <= 2 * min(waits):  # a longer silence than usual is a gap
                draw.line((*here, *there), fill=colour, width=2)
        write(draw, (left + WIDE - 130, top + 2 + 12 * i), name, colour)
    write(draw, (left + 2, top + 1), f"{high:.3g}", "#777777")
    write(draw, (left + 2, top + HIGH - 12), f"{low:.3g}", "#777777")


def write(draw: ImageDraw.ImageDraw, at: tuple[float, float], text: str, colour: str = "black") -> None:
    """A short line; what Pillow's own small font lacks becomes a question mark."""
    draw.text(at, text[:40].encode("latin-1", "replace").decode("latin-1"), colour)


def heat(map: npt.NDArray[np.float32]) -> Image.Image:
    """A map (H, W) in colours: black, red, yellow, white."""
    finite = np.nan_to_num(map, nan=0.0, posinf=0.0, neginf=0.0)
    share = np.clip(finite / (np.percentile(finite, 99) or 1.0), 0.0, 1.0)
    ramp = np.stack([np.clip(3 * share - i, 0, 1) for i in range(3)], -1)
    return Image.fromarray((255 * ramp).round().astype(np.uint8))


def fit(picture: Image.Image) -> Image.Image:
    """A picture with its longer side at CELL pixels."""
    scale = CELL / max(picture.size)
    how = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS
    return picture.resize((max(1, round(picture.width * scale)), max(1, round(picture.height * scale))), how)
