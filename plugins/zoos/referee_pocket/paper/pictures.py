"""The page's figures: a table's pictures side by side, how pictures come about, where each pulls, views by loss."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import torch
from jaxtyping import Float
from PIL import Image as Pillow
from PIL import ImageDraw
from torch import Tensor

from referee.bench.records import Evidence
from referee.bench.sheet import wrapped
from referee.contract import Latent, Prompt
from referee.errors import RunError
from referee.folder.run import open_picture
from referee.gradients import ViewPlan, resize
from referee.parts import Parts
from referee.pixels import to_pillow
from referee.settings import MAX_SIDE
from referee_pocket.paper.claims import Table
from referee_pocket.paper.film import Film

CELL, LINE, LINES, GAP = 88, 11, 4, 3
"""Pixels of a picture's side and of a line of text; lines of a caption; pixels between pictures."""
ACROSS = 8
"""Pictures in a row."""
LABEL = 104
"""Pixels of a row's name."""
QUALITY = 82
VIEWS = 32
"""Of which every fourth is shown."""

Row = tuple[str, Sequence[Pillow.Image | None]]
"""A row's name, and its pictures; None leaves a place free."""


def encode(picture: Pillow.Image) -> bytes:
    """As WebP."""
    buffer = BytesIO()
    picture.save(buffer, "webp", quality=QUALITY, method=6)
    return buffer.getvalue()


def grid(rows: Sequence[Row], captions: Sequence[str]) -> Pillow.Image:
    """Rows of pictures with their names, under one caption per column."""
    top = LINES * LINE + GAP if any(captions) else GAP
    wide = LABEL + (CELL + GAP) * max(len(pictures) for _, pictures in rows)
    page = Pillow.new("RGB", (wide, top + (CELL + GAP) * len(rows)), "white")
    pen = ImageDraw.Draw(page)
    for column, caption in enumerate(captions):
        for line, text in enumerate(wrapped(caption, CELL)):
            pen.text((LABEL + column * (CELL + GAP), line * LINE), text, "black", font_size=9)
    for row, (name, pictures) in enumerate(rows):
        y = top + row * (CELL + GAP)
        for line, text in enumerate(wrapped(name, LABEL - 4)):
            pen.text((0, y + CELL // 2 - LINE + line * LINE), text, "black", font_size=9)
        for column, picture in enumerate(pictures):
            if picture is not None:
                small = picture.convert("RGB").resize((CELL, CELL), Pillow.Resampling.BICUBIC)
                page.paste(small, (LABEL + column * (CELL + GAP), y))
    return page


def side_by_side(evidence: Evidence, table: Table) -> Pillow.Image | None:
    """A table's methods on the first prompts of its first suite; None if there are not two to compare."""
    suite = next(iter(table.prompts))
    drawn = {row.method: evidence.of(row.method, suite) for row in table.rows if row.method}
    prompts = {r.index: r.prompt for records in drawn.values() for r in records if r.index < ACROSS}
    first = {(r.method, r.index): r for records in drawn.values() for r in reversed(records)}
    rows: list[Row] = []
    for row in table.rows:
        shown = [first.get((row.method, index)) for index in sorted(prompts)]
        if any(shown):
            rows.append((row.title, [_opened(evidence.pictures[one.key]) if one else None for one in shown]))
    return grid(rows, [prompts[index] for index in sorted(prompts)]) if len(rows) > 1 else None


def _opened(path: Path) -> Pillow.Image | None:
    """None if it is gone: records may come alone."""
    try:
        return open_picture(path, "PNG", MAX_SIDE)
    except RunError:
        return None


def evolution(films: Sequence[tuple[str, Film]], parts: Parts) -> Pillow.Image:
    """How pictures come about: a row per film, from noise to the end."""
    rows = [(f"{name}: {film.header.prompt}", _decoded(film.latents, parts)) for name, film in films]
    return grid(rows, [f"{mark:.0%}" for mark in films[0][1].header.marks])


def pulls(films: Sequence[Film], parts: Parts) -> Pillow.Image:
    """Each film's last picture, and below it where referee and prior pull: white is most."""
    names = list(films[0].maps)
    rows: list[Row] = [("the picture", [_decoded(film.latents[-1:], parts)[0] for film in films])]
    rows += [(name, [_map(film.maps[name]) if name in film.maps else None for film in films]) for name in names]
    return grid(rows, [film.header.prompt for film in films])


def by_loss(film: Film, parts: Parts, views: int = VIEWS) -> Pillow.Image:
    """Views of a film's last picture, from the lowest to the highest loss of the first referee."""
    seat, seed = parts.seats[0], film.header.seed
    plan = ViewPlan([seed], 10**6, views, views, parts.augmentation)
    with torch.no_grad():
        image = resize(parts.prior.decode(film.latents[-1:]), seat.referee.input_size)
        seen = plan.views(image, plan.portions()[0])
        losses = seat.referee.read(Prompt(film.header.prompt))(seen)
    order = losses.argsort()[torch.linspace(0, views - 1, ACROSS).round().long()]
    shown = [to_pillow(seen[i].clamp(0, 1)) for i in order]
    return grid([(film.header.prompt, shown)], [f"loss {losses[i]:.2f}" for i in order])


def _decoded(latents: Latent, parts: Parts) -> list[Pillow.Image]:
    with torch.no_grad():
        return [to_pillow(x) for x in parts.prior.decode(latents)]


def _map(found: Float[Tensor, "H W"]) -> Pillow.Image:
    """Roots, so that what is weak is seen."""
    shown = (found / found.max().clamp_min(torch.finfo(found.dtype).tiny)).clamp(0, 1).sqrt()
    return to_pillow(shown.expand(3, -1, -1))
