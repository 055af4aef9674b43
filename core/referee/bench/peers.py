"""Two peers of inversion: the best of many plain samples, and the noise of a few-step sampler, optimised.

Both ask the same referees for the same things and end in one picture, so that a bench can set them beside a run at
equal compute, see `referee.bench.compute`. Here are their options; the work is in `referee.bench.best_of` and
`referee.bench.noise`, which need torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    from referee.contract import Image
    from referee.parts import Parts
    from referee.prompt import Prompt

COUNTS = {"best-of": "n", "noise": "iterations"}
"""The option by which a way's cost grows, by the way's name in `referee.bench.draws.DRAWS`."""


class BestOf(BaseModel):
    """Of the best of n samples."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    n: int = Field(16, ge=1, description="plain samples of the prior, of which one is taken")
    views: int = Field(0, ge=0, description="augmented views of each by which it is judged; 0: the plain picture")


class Noise(BaseModel):
    """Of optimised noise; the defaults are ReNO's, for latents of 4 x 64 x 64."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    steps: int = Field(1, ge=1, description="model calls of the sampler")
    iterations: int = Field(50, ge=1, description="noises that are tried, one after the other; the best is taken")
    lr: float = Field(5.0, gt=0, description="learning rate of the noise")
    clip: float = Field(0.1, gt=0, description="the gradient is made no longer than this")
    regularisation: float = Field(0.01, ge=0, description="weight of the noise's length being that of noise")
    views: int | None = Field(
        None, ge=0, description="augmented views per referee and iteration; 0: the plain picture; else the run's"
    )
    cfg: float | None = Field(None, ge=0, description="the sampler's guidance; if not given, that of plain samples")


def best_of(parts: Parts, prompt: Prompt, seed: int, options: BestOf) -> Image:
    """Of n plain samples, the one that the referees like best."""
    from referee.bench.best_of import pick

    return pick(parts, prompt, seed, options)


def noise(parts: Parts, prompt: Prompt, seed: int, options: Noise) -> Image:
    """A sample in few steps, of the noise that the referees like best."""
    from referee.bench.noise import optimise

    return optimise(parts, prompt, seed, options)
