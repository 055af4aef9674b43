"""The contact sheet: a method's pictures of a suite, each under its prompt, framed green where the main column says
that it is right.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from referee.bench.about import Record
from referee.bench.contract import Column
from referee.bench.records import Evidence
from referee.errors import RunError
from referee.folder.run import open_picture
from referee.settings import MAX_SIDE

COLUMNS, CELL, RIM, LINE, LINES = 10, 96, 3, 11, 4
"""Pictures in a row; pixels of a picture, of its frame, of a line of its prompt; lines at most."""
MOST = 300
"""Pictures on a sheet: the first seeds, prompt by prompt."""
RIGHT, WRONG, LOST = "#2a9d4b", "#d7d7d7", "#eeeeee"


def sheet(evidence: Evidence, method: str, suite: str) -> Image.Image:
    """The page; pictures that are gone are blank."""
    key, column = next(iter(evidence.about.columns.items()))
    records = _in_turn(evidence.of(method, suite))[:MOST]
    high = LINES * LINE + CELL + 2 * RIM + 4
    wide = CELL + 2 * RIM + 2
    page = Image.new("RGB", (COLUMNS * wide, -(-len(records) // COLUMNS) * high), "white")
    pen = ImageDraw.Draw(page)
    for i, record in enumerate(records):
        x, y = i % COLUMNS * wide, i // COLUMNS * high
        for line, text in enumerate(wrapped(record.prompt, CELL + 2 * RIM)):
            pen.text((x + 1, y + line * LINE), text, "black", font_size=9)
        top = y + LINES * LINE
        right = is_right(record, key, column)
        pen.rectangle((x, top, x + wide - 3, top + CELL + 2 * RIM - 1), fill=RIGHT if right else WRONG)
        page.paste(_picture(evidence.pictures[record.key]), (x + RIM, top + RIM))
    return page


def is_right(record: Record, key: str, column: Column) -> bool:
    """Whether the main column has more than half of what it can have; of what is no proportion nothing is said."""
    score = record.scores.get(key)
    return column.proportion and score is not None and (score > 0.5) == (column.more is not False)


def _in_turn(records: Sequence[Record]) -> list[Record]:
    """Each prompt's first picture, then each one's second."""
    seen: Counter[int] = Counter()
    turns = []
    for record in records:  # by index and seed
        turns.append((seen[record.index], record.index, record))
        seen[record.index] += 1
    return [record for *_, record in sorted(turns, key=lambda turn: turn[:2])]


def wrapped(text: str, width: int) -> list[str]:
    """A prompt in lines that fit so many pixels, the last one cut where there are too many."""
    font = ImageFont.load_default(9)
    lines = [""]
    for word in text.encode("latin-1", "replace").decode("latin-1").split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines if len(lines) <= LINES else [*lines[: LINES - 1], f"{lines[LINES - 1]} ..."]


def _picture(path: Path) -> Image.Image:
    try:
        picture = open_picture(path, "WEBP" if path.suffix == ".webp" else "PNG", MAX_SIDE)
    except RunError:
        return Image.new("RGB", (CELL, CELL), LOST)
    picture.thumbnail((CELL, CELL), Image.Resampling.LANCZOS)
    scale = CELL / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    small = picture.resize(size, Image.Resampling.BICUBIC)
    page = Image.new("RGB", (CELL, CELL), LOST)
    page.paste(small, ((CELL - small.width) // 2, (CELL - small.height) // 2))
    return page
