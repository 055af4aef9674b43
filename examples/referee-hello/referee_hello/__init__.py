"""A referee that likes a colour. This file is read on every start of the command, so it imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PIL import ImageColor
from pydantic import BaseModel, ConfigDict, Field, field_validator

from referee.hooks import Place, Register, Spec, hookimpl

if TYPE_CHECKING:
    from referee.contract import Referee


class Options(BaseModel):
    """What is written after the colon in ``--referee hello:colour=teal,share=0.5``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    colour: str = Field(default="red", description="the colour it likes: a CSS name, or #rrggbb")
    share: float = Field(default=0.25, gt=0, le=1, description="of the picture that should have it, wherever it lies")

    @field_validator("colour")
    @classmethod
    def _is_a_colour(cls, colour: str) -> str:
        ImageColor.getrgb(colour)  # raises the ValueError that the person gets to read
        return colour


def _make(options: Options, place: Place) -> Referee:
    from .colour import ColourReferee  # torch: only now, when it is asked to play

    red, green, blue = (value / 255 for value in ImageColor.getrgb(options.colour)[:3])
    return ColourReferee((red, green, blue), options.share)


@hookimpl
def referee_referees(register: Register) -> None:
    register(Spec("hello", "likes a colour", _make, Options))
