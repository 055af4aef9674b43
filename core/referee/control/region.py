"""A part of the picture, as a person writes it: ``x0,y0,x1,y1`` from the upper left corner, in pixels or per cent.

A referee that has one sees that part alone, padded to a square with the pixels at its rim, so that a circle in it is a
circle to the referee as well.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BeforeValidator, PlainSerializer

from referee.errors import OptionError

if TYPE_CHECKING:
    from referee.contract import Image

LEAST = 8
"""Pixels a side: in less there is nothing to see."""
_NUMBER = r"[0-9]{1,9}(?:\.[0-9]{1,9})?"
_NAMES = ("x0", "y0", "x1", "y1")


@dataclass(frozen=True, slots=True)
class Region:
    """Left, top, right and bottom edge; each a number of pixels, or a share of the picture's side if so marked.

    Attributes:
        edges: four numbers.
        shares: of each, whether it is per cent of the side.
    """

    edges: tuple[float, float, float, float]
    shares: tuple[bool, bool, bool, bool] = (False, False, False, False)

    def __str__(self) -> str:
        return ",".join(f"{edge:.12g}{'%' * share}" for edge, share in zip(self.edges, self.shares, strict=True))

    def box(self, height: int, width: int) -> tuple[int, int, int, int]:
        """(x0, y0, x1, y1) in whole pixels of a picture of that size.

        Raises:
            OptionError: it is empty, too small, or not inside of the picture.

        >>> parse("50%, 0, 100%, 32").box(64, 96)
        (48, 0, 96, 32)
        """
        sides = (width, height, width, height)
        exact = [e * side / 100 if share else e for e, share, side in zip(self.edges, self.shares, sides, strict=True)]
        x0, y0, x1, y1 = (round(edge) for edge in exact)
        if x1 > width or y1 > height:
            raise OptionError(f"The region {self} is not inside of the picture, which is 0,0,{width},{height}.")
        if x1 - x0 < LEAST or y1 - y0 < LEAST:
            raise OptionError(
                f"The region {self} is {x1 - x0} pixels wide and {y1 - y0} high: x0,y0 is its upper left corner, "
                f"x1,y1 its lower right one, and each side at least {LEAST} pixels."
            )
        return x0, y0, x1, y1

    def crop(self, x: Image) -> Image:
        """That part of each picture, (n, 3, S, S), padded to a square with the pixels at its rim; differentiable.

        Raises:
            OptionError: see `box`.
        """
        x0, y0, x1, y1 = self.box(*x.shape[-2:])
        part = x[..., y0:y1, x0:x1]
        for axis, missing in ((-1, y1 - y0 - x1 + x0), (-2, x1 - x0 - y1 + y0)):
            if missing > 0:
                part = _padded(part, axis, missing // 2, missing - missing // 2)
        return part


def _padded(x: Image, axis: int, before: int, after: int) -> Image:
    """By copies of the first and last row; not F.pad, whose backward pass adds up in no fixed order on a GPU."""
    import torch

    rims = []
    for at, count in ((0, before), (x.shape[axis] - 1, after)):
        shape = list(x.shape)
        shape[axis] = count
        rims.append(x.narrow(axis, at, 1).expand(shape))
    return torch.cat([rims[0], x, rims[1]], axis)


def parse(text: str) -> Region:
    """Read a region.

    Raises:
        OptionError: pointing at the character that cannot be read.

    >>> str(parse("0, 0, 50%, 64"))
    '0,0,50%,64'
    """
    region, position = _read(text)
    if position < len(text):
        raise _unread(text, position, "the end")
    return region


def parse_prompted(text: str) -> tuple[Region, str]:
    """Read ``x0,y0,x1,y1: prompt``.

    Raises:
        OptionError: pointing at the character that cannot be read; or it has no prompt.

    >>> parse_prompted("0,0,32,64: a red circle")[1]
    'a red circle'
    """
    region, position = _read(text)
    if text[position : position + 1] != ":":
        raise _unread(text, position, "':' and what is to be there")
    if not (prompt := text[position + 1 :].strip()):
        raise _unread(text, len(text), "what is to be there")
    return region, prompt


def _read(text: str) -> tuple[Region, int]:
    position, edges, shares = 0, [], []
    for i, name in enumerate(_NAMES):
        found = re.compile(rf"\s*({_NUMBER})\s*(%?)\s*").match(text, position)
        if not found:
            raise _unread(text, position + len(text[position:]) - len(text[position:].lstrip()), f"a number, {name}")
        edges.append(float(found[1]))
        shares.append(bool(found[2]))
        position = found.end()
        if i < 3:
            if text[position : position + 1] != ",":
                raise _unread(text, position, f"',' and {_NAMES[i + 1]}")
            position += 1
    x0, y0, x1, y1 = edges
    return Region((x0, y0, x1, y1), (shares[0], shares[1], shares[2], shares[3])), position


def _unread(text: str, position: int, expected: str) -> OptionError:
    return OptionError(
        f"Cannot read the region '{text}': expected {expected} at character {position + 1}.\n"
        f"  {text}\n  {' ' * position}^\n"
        "Write x0,y0,x1,y1 in pixels from the upper left corner, or in per cent: 0,0,50%,100% is the left half."
    )


def _validate(value: Any) -> Region:
    if isinstance(value, Region):
        return value
    if isinstance(value, (list, tuple)):
        value = ",".join(str(edge) for edge in value)
    if not isinstance(value, str):
        raise ValueError(f"a region is text such as 0,0,50%,100%, not {value!r}")
    try:
        return parse(value)
    except OptionError as error:
        raise ValueError(str(error)) from error


RegionField = Annotated[Region, BeforeValidator(_validate), PlainSerializer(str)]
"""A pydantic field that takes a Region, text, or a list of four."""
