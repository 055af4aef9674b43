"""A picture in a terminal: two pixels per character, the upper one as its colour, the lower one as its background."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from PIL import Image
from rich.color import Color
from rich.style import Style
from rich.text import Text
from torch import Tensor

from referee.play import to_pillow

WIDTH = 32
"""Characters."""


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
