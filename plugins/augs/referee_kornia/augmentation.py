"""The augmentation itself: affine, perspective, jitter, erasing, noise, in this order, in one batched pass.

The transforms A of Algorithm 1 in arXiv 2402.16305. All parameters are drawn and computed on the CPU (a few
numbers per view) and travel to the images' device in one copy; the images are then warped once, recoloured
once, painted and noised. Neither the global random state nor kornia's random modules are used: those would
need one call per view to give each its own generator.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Generator, Tensor

from referee.contract import Image
from referee.errors import OptionError

from .draws import Draws, draw, noise_like
from .geometry import homography, looking_back, warp
from .options import Options
from .photometry import colour_map, hue_angle, inside, recolour, rectangles, turn_hue

_SIZES = (9, 9, 12, 4, 1)


class KorniaAugmentation:
    """Random views of images; see `Options` for the ranges.

    Views have the images' size, dtype and device, and lie in [0, 1] but for the noise, which is not clipped.
    With everything off the images come back as they are.
    """

    def __init__(self, options: Options | None = None) -> None:
        self.options = options or Options()

    def __call__(self, x: Image, generators: Sequence[Generator]) -> Image:
        """One view per row of x; row b draws only from ``generators[b]``, a CPU generator.

        Raises:
            OptionError: not one generator per row.
        """
        if len(generators) != len(x):
            raise OptionError(f"{len(x)} images need {len(x)} generators, one each, not {len(generators)}.")
        if len(x) == 0:
            return x
        # Half precision cannot tell 224 pixel coordinates apart: compute at least in float32.
        work = x if x.dtype == torch.float64 else x.float()
        return self._apply(work, draw(generators), generators).to(x.dtype)

    def _apply(self, x: Image, draws: Draws, generators: Sequence[Generator]) -> Image:
        options, size = self.options, (x.shape[-2], x.shape[-1])
        back, matrix, offset, box, strength = _parameters(draws, options, *size).to(x).split(_SIZES, dim=1)
        if options.warps:
            x = warp(x, back.view(-1, 3, 3), options.padding)
        if options.recolours:
            x = recolour(x, matrix.view(-1, 3, 3), offset.view(-1, 3, 4))
        if options.turns_hue:
            x = turn_hue(x, hue_angle(draws, options))
        if options.erases:
            x = torch.where(inside(box, *size), options.erase_value, x)
        if options.adds_noise:
            x = torch.addcmul(x, noise_like(x, generators), strength[:, :, None, None])
        return x


def _parameters(draws: Draws, options: Options, height: int, width: int) -> Float[Tensor, "b 35"]:
    """Every number that the images' device needs, side by side, so that one copy brings them over."""
    matrix, offset = colour_map(draws, options)
    back = looking_back(homography(draws, options, height, width), height, width)
    strength = np.hypot(draws["noise"] * options.noise, options.noise_fixed)  # the sum of two noises is one noise
    parts = (back, matrix, offset, rectangles(draws, options, height, width), strength)
    return torch.from_numpy(np.concatenate([part.reshape(len(part), -1) for part in parts], axis=1))
