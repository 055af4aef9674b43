"""Score distillation: the gradient that pulls a latent towards what a diffusion model has learnt.

Poole et al., DreamFusion (arXiv 2209.14988), eq. 3 with w(t) = 2, in the unit of the released code of arXiv
2402.16305: its "loss" is ``sum(2 (eps_hat - eps) z) / (h w)``, so that w2 = 800 on a 64 x 64 latent moves it
by ``0.39 (eps_hat - eps)``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from referee.contract import Latent, Progress
from referee.schedules import Schedule

from .text import Told

PREDICTIONS = ("epsilon", "v_prediction", "sample")
"""What a diffusion model may have learnt to predict, in diffusers' words."""


@dataclass(frozen=True)
class Distillation:
    """A pull: call it with a latent. Everything that stays the same from step to step is computed beforehand.

    Args:
        unet: diffusers' UNet2DConditionModel, frozen.
        text: the unconditional and the prompt's text, in the UNet's dtype.
        alphas_cumprod: of the scheduler, on the UNet's device, float32.
        prediction: one of `PREDICTIONS`.
        guidance: s in ``e_uncond + s (e_text - e_uncond)``; at 0 and 1 one of the two halves is not computed.
        t_min: least timestep, as a fraction of all.
        t_max: timesteps stay below this fraction.
        factor: pixels per latent cell; Stable Diffusion XL is told the picture's size.
    """

    unet: Any
    text: Told
    alphas_cumprod: Float[Tensor, " timesteps"]
    prediction: str
    guidance: Schedule
    t_min: Schedule
    t_max: Schedule
    factor: int = 8

    @torch.no_grad()
    def __call__(self, z: Latent, progress: Progress, generators: Sequence[Generator]) -> Latent:
        """``2 (eps_hat - eps) / (h w)``; row b draws timestep and noise from ``generators[b]`` (CPU)."""
        u, steps = progress.fraction, len(self.alphas_cumprod)
        low = round(self.t_min(u) * steps)
        t, eps = draw(z, generators, low, max(round(self.t_max(u) * steps), low + 1))
        alpha_bar = self.alphas_cumprod[t][:, None, None, None]
        alpha, sigma = alpha_bar.sqrt(), (1 - alpha_bar).sqrt()
        noisy = alpha * z.float() + sigma * eps
        eps_hat = to_epsilon(self.prediction, self._guided(noisy, t, self.guidance(u)), noisy, alpha, sigma)
        return (eps_hat - eps) * (2 / (z.shape[-2] * z.shape[-1]))

    def _guided(self, noisy: Latent, t: Int[Tensor, " n"], guidance: float) -> Latent:
        """The UNet's output under classifier-free guidance, float32; both halves in one call."""
        both = {0.0: slice(0, 1), 1.0: slice(1, 2)}.get(guidance, slice(0, 2))
        told, n = self.text.rows(both), len(noisy)
        k = len(told.hidden)
        out: Tensor = self.unet(
            noisy.to(told.hidden.dtype).repeat(k, 1, 1, 1),
            t.repeat(k),
            encoder_hidden_states=told.hidden.repeat_interleave(n, dim=0),
            return_dict=False,
            **self._added(told.pooled, noisy),
        )[0].float()
        if k == 1:
            return out
        plain, guided = out.chunk(2)
        return plain + guidance * (guided - plain)

    def _added(self, pooled: Float[Tensor, "k pooled"] | None, z: Latent) -> dict[str, Any]:
        """What Stable Diffusion XL is told beside the text: original size, crop and target size, in pixels; here of a
        picture that was neither resized nor cropped (arXiv 2307.01952, section 2.2)."""
        if pooled is None:
            return {}
        height, width = (side * self.factor for side in z.shape[-2:])
        sizes = torch.tensor([height, width, 0, 0, height, width], dtype=torch.float32, device=z.device)
        rows = len(pooled) * len(z)
        added = {"text_embeds": pooled.repeat_interleave(len(z), dim=0), "time_ids": sizes.expand(rows, -1)}
        return {"added_cond_kwargs": added}


def draw(z: Latent, generators: Sequence[Generator], low: int, high: int) -> tuple[Int[Tensor, " n"], Latent]:
    """A timestep in [low, high) and a noise for each row, drawn on the CPU in this order."""
    t = [torch.randint(low, high, (), generator=g) for g in generators]
    eps = [torch.randn(z.shape[1:], generator=g, dtype=torch.float32) for g in generators]
    return torch.stack(t).to(z.device), torch.stack(eps).to(z.device)


def to_epsilon(prediction: str, out: Latent, noisy: Latent, alpha: Tensor, sigma: Tensor) -> Latent:
    """The noise that a model's output stands for, where ``noisy = alpha x0 + sigma eps``.

    v is ``alpha eps - sigma x0`` (Salimans & Ho, arXiv 2202.00512). All are affine in the output, so that
    guidance before and after the conversion is the same.
    """
    if prediction == "v_prediction":
        return alpha * out + sigma * noisy
    if prediction == "sample":
        return (noisy - alpha * out) / sigma
    return out
