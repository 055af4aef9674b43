"""Toys that keep the contract and need no model: for doctests, for plug-in authors, for a first look.

The toy world: latents of 3 channels at half the image's side, decoded by smooth upsampling; the
toy referee likes a colour; the toy prior pulls towards grey.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from referee.contract import Denoise, Image, Latent, Loss, Losses, Progress, Prompt, Pull, Views
from referee.errors import OptionError, PromptError

COLOURS = {"red": (1.0, 0.0, 0.0), "green": (0.0, 1.0, 0.0), "blue": (0.0, 0.0, 1.0), "white": (1.0, 1.0, 1.0)}


class ToyPrior:
    """A prior without a model: latent (3, h/2, w/2), decoded by a sigmoid and bilinear upsampling by 2."""

    def __init__(self, strength: float = 1.0) -> None:
        self.strength = strength

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        """OptionError if a side is odd, or 0."""
        if height % 2 or width % 2 or height < 2 or width < 2:
            raise OptionError(f"{height} x {width} is no size for the toy prior: both must be even, and at least 2.")
        return 3, height // 2, width // 2

    def decode(self, z: Latent) -> Image:
        """Differentiable; in (0, 1)."""
        return F.interpolate(z.sigmoid(), scale_factor=2.0, mode="bilinear", align_corners=False)

    def encode(self, x: Image) -> Latent:
        """The inverse of `decode` but for the smoothing."""
        return F.avg_pool2d(x, 2).clamp(1e-3, 1 - 1e-3).logit()

    def read(self, prompt: Prompt) -> Pull:
        """Pulls to z = 0 (grey), with a little noise of each sample's own."""

        def pull(z: Latent, progress: Progress, generators: Sequence[Generator]) -> Latent:
            noise = torch.stack([torch.randn(z.shape[1:], generator=g, dtype=z.dtype) for g in generators])
            return self.strength * (z + 0.1 * noise.to(z.device))

        return pull

    def sample(self, prompt: Prompt, height: int, width: int, generators: Sequence[Generator]) -> Image:
        """Grey noise: what this prior takes for real."""
        shape = self.latent_shape(height, width)
        z = torch.stack([torch.randn(shape, generator=g) for g in generators])
        return self.decode(0.1 * z)

    def denoiser(self, prompt: Prompt, steps: int, guidance: float | None = None) -> Denoise:
        """What `sample` makes of noise, in any number of steps."""
        return lambda noise: 0.1 * noise


class ToyReferee:
    """Likes the first colour that the prompt names; the loss is the mean squared distance to it."""

    def __init__(self, input_size: int = 8) -> None:
        self.input_size = input_size

    def read(self, prompt: Prompt) -> Loss:
        """PromptError if no colour is named."""
        colour = next((COLOURS[word] for word in prompt.text.lower().split() if word in COLOURS), None)
        if colour is None:
            raise PromptError(f"The toy referee finds none of {', '.join(COLOURS)} in '{prompt.text}'.")
        target = torch.tensor(colour)[:, None, None]

        def loss(views: Views) -> Losses:
            return (views - target.to(views)).square().mean((1, 2, 3))

        return loss


class ToyAugmentation:
    """Adds noise, a shade of its own to each view."""

    def __init__(self, amount: float = 0.1) -> None:
        self.amount = amount

    def __call__(self, x: Image, generators: Sequence[Generator]) -> Views:
        shade: Tensor = torch.stack([torch.randn(3, 1, 1, generator=g) for g in generators])
        return x + self.amount * shade.to(x)
