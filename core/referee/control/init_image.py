"""The settings of a run that begins with a picture, [init] in TOML, and the files that they name.

Files are read, and refused, before any model loads. A run's record has their full paths and their sha256, and settings
that have a sum are refused when the file is another by now: a run is repeated, or gone on with, from the same picture.
"""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from typing import Self

from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, model_validator

from referee.control.photo import fitted, flat, read_photo
from referee.errors import OptionError

STRENGTH, STRENGTH_MASKED = 0.5, 1.0
"""If none is said: without a mask something of the picture should stay; with one, its own pixels do anyway."""
SUM = "^([0-9a-f]{64})?$"


class Init(BaseModel):
    """The picture that a run begins with, and what of it may change: see `referee.control.canvas`."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    image: str = Field(min_length=1, description="a picture file to begin with; scaled and cropped to the run's size")
    strength: float | None = Field(
        None,
        gt=0,
        le=1,
        description="how far to go from it: the share of the run that is played, and the deviation of the noise at its "
        "start; 1 keeps nothing; by default 0.5, with a mask 1",
    )
    mask: str | None = Field(
        None,
        min_length=1,
        description="a picture file of the same size: white may change, black stays as it is, grey is mixed",
    )
    image_sha256: str = Field(
        "", pattern=SUM, description="of the file, if another must be refused; a run's record has it"
    )
    mask_sha256: str = Field("", pattern=SUM, description="likewise")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.mask_sha256 and self.mask is None:
            raise ValueError("there is a mask_sha256 and no mask")
        return self

    @property
    def share(self) -> float:
        """The strength, or what it is if none is said."""
        if self.strength is not None:
            return self.strength
        return STRENGTH if self.mask is None else STRENGTH_MASKED


@dataclass(frozen=True, slots=True)
class Begun:
    """The files, read.

    Attributes:
        init: the settings, with the files' full paths and sums, and the strength.
        picture: RGB, of the run's size.
        mask: grey, of the run's size; white may change.
    """

    init: Init
    picture: Image.Image
    mask: Image.Image | None


def open_init(init: Init, height: int, width: int) -> Begun:
    """Read the files.

    Raises:
        OptionError: one is missing, no picture, too large, or another than its sum says; the mask is of another size
            than the picture, transparent, or has no white where the run's picture is.

    Warns:
        UserWarning: the picture is of another size than the run's.
    """
    said = {"image": "--init", "mask": "--mask"}
    paths = {name: path for name in said if (path := getattr(init, name)) is not None}
    paths = {name: os.path.abspath(os.path.expanduser(path)) for name, path in paths.items()}
    read = {name: read_photo(path, said[name]) for name, path in paths.items()}
    for name, (_, found) in read.items():
        if (wanted := getattr(init, f"{name}_sha256")) not in ("", found):
            raise OptionError(
                f"{said[name]}: {paths[name]} is not the file that it was: its sha256 is {found[:12]}..., and "
                f"{wanted[:12]}... was recorded. Put that one back; for a new run name the file with {said[name]}."
            )
    picture, mask = read["image"][0], read["mask"][0] if "mask" in read else None
    sums = {f"{name}_sha256": found for name, (_, found) in read.items()}
    whole = init.model_copy(update={**paths, **sums, "strength": init.share})
    return Begun(whole, *prepared(picture, mask, height, width))


def prepared(
    picture: Image.Image, mask: Image.Image | None, height: int, width: int
) -> tuple[Image.Image, Image.Image | None]:
    """Picture, RGB, and mask, grey, at the run's size.

    Raises:
        OptionError, UserWarning: see `open_init`.
    """
    if mask is not None:
        if mask.size != picture.size:
            raise OptionError(
                f"The mask has {mask.width} x {mask.height} pixels and the picture {picture.width} x {picture.height}: "
                "they must be of one size."
            )
        if mask.has_transparency_data and min(mask.convert("RGBA").getchannel("A").tobytes()) < 255:
            raise OptionError("The mask is transparent in places: paint white what may change and black what stays.")
    if picture.size != (width, height):
        warnings.warn(
            f"The picture to begin with has {picture.width} x {picture.height} pixels: it is scaled and cropped to the "
            f"run's {width} x {height}. --size {picture.height}x{picture.width} would keep it, where the prior can.",
            stacklevel=3,
        )
    small = None if mask is None else fitted(flat(mask).convert("L"), height, width)
    if small is not None and not any(small.tobytes()):
        raise OptionError("The mask is empty, all black where the run's picture is: paint white what may change.")
    return fitted(flat(picture), height, width), small
