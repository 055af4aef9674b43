"""A picture to begin with: a run that starts from it, and changes it only where a mask lets it.

A `Canvas` is a prior at work on a picture; `referee.inversion.invert` takes it in a prior's place. With s = strength,
e = ENC(picture), M = mask and m = M on the latent's grid:

    z0 = sqrt(1 - s^2) e + s eps,  eps ~ N(0, I)       noised as img2img does (SDEdit, arXiv 2108.01073), and
    k  = round((1 - s) steps), ..., steps - 1          entered as late: s = 1 is an ordinary run, bit for bit
    x  = M DEC(z) + (1 - M) picture                    referees see what will be kept
    g  = m g;  after each step  z = m z + (1 - m) e    lengths and balance are of what may change alone

Where M is 0 the picture's own pixels stay, bit for bit. A cell of the latent is free (m = 1) if any of its pixels is: a
decoder paints wider than a cell, and what it paints outside of M is not taken.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from PIL import Image as Pillow
from torch import Generator, Tensor

from referee.contract import Encoder, Image, Latent, Prior, Progress, Prompt, Pull
from referee.errors import OptionError

Mask = Float[Tensor, "1 1 H W"]
"""1 where the picture may change, 0 where it stays, between the two a mixture."""


class Canvas:
    """A prior and the picture that its run begins with; itself a prior, whose images are that picture where it stays.

    Args:
        prior: owns the latent space; must be able to encode (`referee.contract.Encoder`).
        picture: (1, 3, H, W) in [0, 1], of the run's size, on the run's device; every seed begins with it.
        strength: how far the run may go from it, above 0 and at most 1: see `referee.rules.Rules.first_step`.
        mask: (1, 1, H, W) in [0, 1]; None to change all of it.

    Raises:
        OptionError: the prior cannot encode, the shapes do not fit, or the mask is empty.
    """

    def __init__(self, prior: Prior, picture: Image, *, strength: float = 1.0, mask: Mask | None = None) -> None:
        if not isinstance(prior, Encoder):
            raise OptionError(
                f"No run of a {type(prior).__name__} can begin with a picture, as it cannot encode one: it has no "
                "encode(x), see referee.contract.Encoder. Choose another prior, or leave the picture out."
            )
        shape = tuple(picture.shape)
        if len(shape) != 4 or shape[:2] != (1, 3):
            raise OptionError(f"A run begins with one picture, a tensor (1, 3, H, W) in [0, 1]; this one is {shape}.")
        if mask is not None and tuple(mask.shape) != (1, 1, *shape[2:]):
            raise OptionError(f"The mask is {tuple(mask.shape)}; for this picture it must be {(1, 1, *shape[2:])}.")
        if mask is not None and not bool((mask > 0).any()):
            raise OptionError("The mask is empty: nothing may change. It is 1 (white) where the picture may change.")
        self.prior, self.picture, self.strength, self.mask = prior, picture, strength, mask
        with torch.no_grad():
            self.latent = prior.encode(picture).float()
        if tuple(self.latent.shape[1:]) != prior.latent_shape(*shape[2:]) or not bool(self.latent.isfinite().all()):
            found = tuple(self.latent.shape)
            raise OptionError(f"A {type(prior).__name__} encodes the picture to {found}, which is no finite latent.")
        grid = tuple(self.latent.shape[-2:])
        self.cells = None if mask is None else F.adaptive_max_pool2d(mask, grid) > 0

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        """(c, h, w).

        Raises:
            OptionError: it is not the picture's size.
        """
        if (height, width) != tuple(self.picture.shape[2:]):
            high, wide = self.picture.shape[2:]
            raise OptionError(f"The run is of {height} x {width} pixels, the picture to begin with of {high} x {wide}.")
        return self.prior.latent_shape(height, width)

    def decode(self, z: Latent) -> Image:
        """The image of a latent, with the picture's own pixels outside of the mask; so is the image's gradient 0."""
        x = self.prior.decode(z)
        if self.mask is None:
            return x
        free, picture = self.mask > 0, self.picture.to(x)
        kept = torch.where(free, picture + self.mask.to(x) * (x - picture), picture)
        if kept.requires_grad:
            # A referee's gradient on the image, not only the one on the latent, is of what may change: see the module.
            kept.register_hook(lambda g: torch.where(free, g, 0.0))
        return kept

    def encode(self, x: Image) -> Latent:
        """The prior's."""
        assert isinstance(self.prior, Encoder)
        return self.prior.encode(x)

    def read(self, prompt: Prompt) -> Pull:
        """The prior's pull on the cells that may change; it looks at all of them."""
        pull_of = self.prior.read(prompt)

        def pull(z: Latent, progress: Progress, generators: Sequence[Generator]) -> Latent:
            return self.only(pull_of(z, progress, generators))

        return pull

    def start(self, noise: Latent) -> Latent:
        """z0, of standard normal noise (n, c, h, w)."""
        latent = self.latent.to(noise.device)
        return self.hold(math.sqrt(1 - self.strength**2) * latent + self.strength * noise)

    def hold(self, z: Latent) -> Latent:
        """z with the picture's own latent in the cells that stay."""
        return z if self.cells is None else torch.where(self.cells.to(z.device), z, self.latent.to(z))

    def only(self, g: Latent) -> Latent:
        """g on the cells that may change, and 0 on the others."""
        return g if self.cells is None else torch.where(self.cells.to(g.device), g, 0.0)


def canvas(
    prior: Prior, picture: Pillow.Image, mask: Pillow.Image | None, strength: float, device: torch.device | str
) -> Canvas:
    """A prior at work on a picture (RGB) with a mask (grey, white where it may change), both of the run's size.

    Raises:
        OptionError: see `Canvas`.
    """
    free = None if mask is None else _pixels(mask).to(device)
    return Canvas(prior, _pixels(picture).to(device), strength=strength, mask=free)


def _pixels(picture: Pillow.Image) -> Float[Tensor, "1 c H W"]:
    rows = np.array(picture)
    return torch.from_numpy(rows.reshape(*rows.shape[:2], -1)).permute(2, 0, 1)[None].float() / 255
