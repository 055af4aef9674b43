"""Sampling in few steps with a gradient: deterministic DDIM (Song et al., arXiv 2010.02502, eq. 12 with sigma = 0).

    x0  = (z_t - sqrt(1 - a_t) e) / sqrt(a_t)          e: the noise that the model finds in z_t, under guidance
    z_s = sqrt(a_s) x0 + sqrt(1 - a_s) e               s: the next timestep; a: the scheduler's alphas_cumprod

The first timestep is the noisiest of all, and the others follow at equal distances ("trailing" in Lin et al., arXiv
2305.08891, table 2): diffusers' spacing for Stable Diffusion, "leading", would begin one step at t = 1, where next
to nothing of the noise is taken away.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.utils.checkpoint import checkpoint

from referee.contract import Latent
from referee.errors import OptionError

from .asking import guided
from .text import Told


@dataclass(frozen=True)
class FewSteps:
    """A `referee.contract.Denoise`.

    Args:
        unet: diffusers' UNet2DConditionModel, frozen.
        text: negative text and prompt, in the UNet's dtype.
        scheduler: diffusers' DDIMScheduler, its timesteps set; see `trailing`.
        timesteps: those, as numbers.
        guidance: see `referee_stable_diffusion.asking.guided`.
        factor: pixels per latent cell.
        thrifty: keep the latents between steps alone, and compute each step again for the gradient: memory then does
            not grow with the steps.
    """

    unet: Any
    text: Told
    scheduler: Any
    timesteps: tuple[int, ...]
    guidance: float
    factor: int
    thrifty: bool = False

    def __call__(self, noise: Latent) -> Latent:
        """Latents of standard normal noise, in its dtype."""
        z = noise
        for t in self.timesteps:
            z = self._again(z, t) if self.thrifty else self._step(z, t)
        return z

    def _again(self, z: Latent, t: int) -> Latent:
        found: Tensor = checkpoint(self._step, z, t, use_reentrant=False, preserve_rng_state=False)
        return found

    def _step(self, z: Latent, t: int) -> Latent:
        out = guided(self.unet, self.text, z, z.new_full((len(z),), t).long(), self.guidance, self.factor)
        found: Tensor = self.scheduler.step(out, t, z, return_dict=False)[0]
        return found


def trailing(scheduler: Any, steps: int) -> tuple[Any, tuple[int, ...]]:
    """A scheduler of the same noise levels with so many timesteps, and these.

    Raises:
        OptionError: there are not so many.
    """
    most = int(scheduler.config.num_train_timesteps)
    if not 1 <= steps <= most:
        raise OptionError(f"The prior cannot sample in {steps} steps: take 1 to {most}.")
    found = type(scheduler).from_config(scheduler.config, timestep_spacing="trailing")
    found.set_timesteps(steps)
    return found, tuple(found.timesteps.tolist())
