"""Score distillation: the gradient that pulls a latent towards what a diffusion model has learnt.

Poole et al., DreamFusion (arXiv 2209.14988), eq. 3 with w(t) = 2, in the unit of the released code of arXiv
2402.16305: its "loss" is ``sum(2 (eps_hat - eps) z) / (h w)``, so that w2 = 800 on a 64 x 64 latent moves it
by ``0.39 (eps_hat - eps)``. What came after it is in `referee_stable_diffusion.relatives`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from referee.contract import Latent, Progress
from referee.schedules import Schedule, constant

from .asking import answers, guided, to_epsilon
from .relatives import EARLY, Text, Weights, bridge, csd, nfsd
from .text import Told

PREDICTIONS = ("epsilon", "v_prediction", "sample")
"""What a diffusion model may have learnt to predict, in diffusers' words."""
Distil = Literal["sds", "csd", "nfsd", "bridge"]


@dataclass(frozen=True)
class Distillation:
    """A pull: call it with a latent. Everything that stays the same from step to step is computed beforehand.

    Args:
        unet: diffusers' UNet2DConditionModel, frozen.
        text: one row for each of `texts`, in the UNet's dtype.
        alphas_cumprod: of the scheduler, on the UNet's device, float32.
        prediction: one of `PREDICTIONS`.
        guidance: s in ``e_uncond + s (e_text - e_uncond)``; at 0 and 1 one of the two halves is not computed.
        t_min: least timestep, as a fraction of all.
        t_max: timesteps stay below this fraction.
        factor: pixels per latent cell; Stable Diffusion XL is told the picture's size.
        texts: what the rows of `text` are for. The first is the negative text, or the null text if there is none.
        distil: the pull's formula, "sds" or one of `referee_stable_diffusion.relatives`.
        since: fraction of the run before which it is sds, whatever `distil` says.
        share: csd's weight of the negative text, of that of the prompt.
    """

    unet: Any
    text: Told
    alphas_cumprod: Float[Tensor, " timesteps"]
    prediction: str
    guidance: Schedule
    t_min: Schedule
    t_max: Schedule
    factor: int = 8
    texts: tuple[Text, ...] = ("negative", "prompt")
    distil: Distil = "sds"
    since: float = 0.0
    share: Schedule = field(default_factory=lambda: constant(1))

    @torch.no_grad()
    def __call__(self, z: Latent, progress: Progress, generators: Sequence[Generator]) -> Latent:
        """``2 (eps_hat - eps) / (h w)``, or a relative's direction for the difference; float32, or z's float64.

        Row b draws timestep and noise from ``generators[b]`` (CPU): the same for every formula.
        """
        u, steps = progress.fraction, len(self.alphas_cumprod)
        low = round(self.t_min(u) * steps)
        t, eps = draw(z, generators, low, max(round(self.t_max(u) * steps), low + 1))
        z = z.to(torch.promote_types(z.dtype, torch.float32))
        alpha_bar = self.alphas_cumprod[t][:, None, None, None].to(z.dtype)
        alpha, sigma = alpha_bar.sqrt(), (1 - alpha_bar).sqrt()
        noisy = alpha * z + sigma * eps
        if self.distil == "sds" or u < self.since:
            out = guided(self.unet, self.text, noisy, t, self.guidance(u), self.factor)
            direction = to_epsilon(self.prediction, out, noisy, alpha, sigma) - eps
        else:
            direction = self._weighted(self._weights(u, t), noisy, t, alpha, sigma)
        return direction * (2 / (z.shape[-2] * z.shape[-1]))

    def _weights(self, u: float, t: Int[Tensor, " n"]) -> Weights:
        guidance = self.guidance(u)
        if self.distil == "nfsd":
            return nfsd(guidance, (t < EARLY * len(self.alphas_cumprod))[:, None, None, None])
        return bridge(guidance) if self.distil == "bridge" else csd(guidance, self.share(u))

    def _weighted(self, weights: Weights, noisy: Latent, t: Int[Tensor, " n"], alpha: Tensor, sigma: Tensor) -> Latent:
        """The sum of the noises that the UNet finds for each text; texts that weigh nothing are not asked for."""
        rows: dict[int, float | Tensor] = {}
        for text, weight in weights.items():
            row = self.texts.index(text) if text in self.texts else 0  # null, where there is no negative text
            rows[row] = rows.get(row, 0.0) + weight
        asked = [row for row, weight in rows.items() if torch.as_tensor(weight).any()]
        if not asked:
            return torch.zeros_like(noisy)
        outs = answers(self.unet, self.text.rows(asked), noisy, t, self.factor).chunk(len(asked))
        found = (to_epsilon(self.prediction, out, noisy, alpha, sigma) for out in outs)
        return sum((rows[row] * eps for row, eps in zip(asked, found, strict=True)), torch.zeros_like(noisy))


def draw(z: Latent, generators: Sequence[Generator], low: int, high: int) -> tuple[Int[Tensor, " n"], Latent]:
    """A timestep in [low, high) and a noise for each row, drawn on the CPU in this order."""
    t = [torch.randint(low, high, (), generator=g) for g in generators]
    eps = [torch.randn(z.shape[1:], generator=g, dtype=torch.float32) for g in generators]
    return torch.stack(t).to(z.device), torch.stack(eps).to(z.device)
