"""A picture in a terminal: two pixels per character, the upper one as its colour, the lower one as its background."""

from __future__ import annotations

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
    high = max(round(image.height * width / image.width / 2) * 2, 2)
    how = Image.Resampling.NEAREST if image.width < width else Image.Resampling.BOX
    pixels = image.resize((width, min(high, 2 * width)), how).load()
    assert pixels is not None
    lines = [
        Text.assemble(*(("▀", _style(pixels[column, row], pixels[column, row + 1])) for column in range(width)))
        for row in range(0, min(high, 2 * width), 2)
    ]
    return Text("\n").join(lines)


def _style(upper: tuple[int, int, int], lower: tuple[int, int, int]) -> Style:
    return Style(color=Color.from_rgb(*upper), bgcolor=Color.from_rgb(*lower))
