"""Resizing in torch, differentiable, to the numbers that Pillow gives: the way in which published models were shown
their pictures."""

from __future__ import annotations

from typing import Literal

import PIL
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from referee.contract import Image

Filter = Literal["bicubic", "bilinear"]


def resample(x: Image, height: int, width: int, how: Filter = "bicubic") -> Float[Tensor, "n 3 h w"]:
    """An image at another size, antialiased; within one of Pillow's 256 steps of what Pillow makes of it.

    Pillow resizes one side and then the other, and its bytes cut off in between what a bicubic filter overshoots; so
    does this, in the order of the Pillow that is installed. It does not round to bytes.

    Args:
        x: in [0, 1].
        height: in pixels.
        width: in pixels.
        how: the filter.
    """
    old_height, old_width = x.shape[-2:]
    between = (height, old_width) if _height_first(old_height, old_width, height, width) else (old_height, width)
    for size in (between, (height, width)):
        if tuple(x.shape[-2:]) != size:
            x = functional.interpolate(x, size=size, mode=how, align_corners=False, antialias=True).clamp(0, 1)
    return x


def _height_first(old_height: int, old_width: int, height: int, width: int) -> bool:
    """Always the width first up to Pillow 12; Pillow 13 spares itself work (found by trying, on all sorts of sizes)."""
    new = int(PIL.__version__.partition(".")[0]) >= 13
    return new and height < old_height and old_height - height > 2 * (old_width - width)
