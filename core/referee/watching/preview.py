"""A picture in a terminal: as pixels where it can show them, else two pixels per character, as half blocks.

Which terminals have pixels (kitty's protocol, sixel) and how they take them, textual-image knows, which the extra
brings: pip install 'vlm-referee[terminal]'. Without it there are half blocks: the upper pixel as a character's colour,
the lower one as its background.
"""

from __future__ import annotations

import sys
from functools import cache
from typing import Any

import numpy as np
from jaxtyping import Float
from PIL import Image
from rich.color import Color
from rich.console import Console, RenderableType
from rich.style import Style
from rich.text import Text
from torch import Tensor

from referee.pixels import to_pillow

WIDTH = 32
"""Characters."""
SMALL = 256
"""Pixels: a smaller picture is enlarged, as every one of its pixels is seen."""


class Preview:
    """The picture of a moment, one after the other.

    Args:
        console: where they are shown.
    """

    def __init__(self, console: Console) -> None:
        self.kind = pixels() if console.file is sys.stdout else None
        self.shown: Any = None

    def show(self, x: Float[Tensor, "3 H W"]) -> RenderableType:
        """An image in [0, 1] in place of the one before."""
        if self.kind is None:
            return half_blocks(x)
        picture, before = to_pillow(x), self.shown
        scale = max(SMALL // max(picture.size), 1)
        picture = picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.NEAREST)
        self.shown = self.kind(picture, width=WIDTH, height="auto")
        if before is not None:
            before.cleanup()  # the terminal forgets it
        shown: RenderableType = self.shown
        return shown

    def close(self) -> None:
        """Have the terminal forget the last one."""
        if self.shown is not None:
            self.shown.cleanup()


@cache
def pixels() -> Any:
    """textual-image's picture for the terminal that this process has, which is asked; None if that has no pixels."""
    streams = (sys.__stdin__, sys.__stdout__)
    if not all(stream is not None and stream.isatty() for stream in streams):
        return None
    try:
        from textual_image import renderable  # it asks when it is imported
    except Exception:  # not installed; or whatever a terminal made of the question
        return None
    return renderable.Image if renderable.Image in (renderable.TGPImage, renderable.SixelImage) else None


def half_blocks(x: Float[Tensor, "3 H W"], width: int = WIDTH) -> Text:
    """An image in [0, 1] as lines of coloured half blocks, at its own proportions."""
    image = to_pillow(x)
    high = min(max(round(image.height * width / image.width / 2) * 2, 2), 2 * width)
    how = Image.Resampling.NEAREST if image.width < width else Image.Resampling.BOX
    rows = np.asarray(image.resize((width, high), how)).tolist()
    lines = [
        Text.assemble(*(("▀", Style(color=Color.from_rgb(*up), bgcolor=Color.from_rgb(*low))) for up, low in pair))
        for pair in (zip(rows[i], rows[i + 1], strict=True) for i in range(0, high, 2))
    ]
    return Text("\n").join(lines)
