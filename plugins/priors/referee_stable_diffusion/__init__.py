"""Stable Diffusion as a prior: the plug-in `stable-diffusion`. Importing it imports neither torch nor
diffusers.

It reads pipeline folders of diffusers (Stable Diffusion 1.x and 2.x, and anything of the same make), decodes
latents with their VAE or another one, pulls by score distillation (arXiv 2209.14988) and samples with DDIM.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from referee.hooks import Place, Register, Spec, hookimpl

from .files import check
from .options import Options, texts

if TYPE_CHECKING:
    from .prior import StableDiffusionPrior

__all__ = ["Options"]


def _make(options: Options, place: Place) -> StableDiffusionPrior:
    from .load import load  # torch, diffusers and transformers: only now

    return load(options, place)


def _words(options: Options) -> list[str]:
    return list(texts(options).values())


@hookimpl
def referee_priors(register: Register) -> None:
    register(Spec("stable-diffusion", "diffusers: VAE decode, score distillation", _make, Options, check, _words))
