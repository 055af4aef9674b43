"""Between pictures of people and tensors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image as Pillow
from PIL import ImageOps
from torch import Tensor

from referee.contract import Image
from referee.control.photo import flat, read_photo
from referee.errors import OptionError


def to_pillow(x: Float[Tensor, "3 H W"]) -> Pillow.Image:
    """One image in [0, 1] as 8-bit RGB."""
    return Pillow.fromarray((x.detach().float().clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy())


def from_pillow(image: str | Path | Pillow.Image) -> Image:
    """(1, 3, H, W) in [0, 1], the right way up, on white where it is transparent.

    Raises:
        OptionError: the file is missing, no picture, or too large.
    """
    try:
        upright = ImageOps.exif_transpose(image) if isinstance(image, Pillow.Image) else read_photo(image, "picture")[0]
        pixels = np.array(flat(upright))
    except OptionError:
        raise
    except Exception as error:  # for a stranger's file, opened elsewhere, a decoder may raise anything
        raise OptionError(f"{image} cannot be read as a picture: {error}.") from error
    return torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
