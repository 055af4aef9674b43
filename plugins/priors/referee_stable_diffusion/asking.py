"""What a diffusion model says of a noisy latent: asked with one text or more, under guidance, and as noise."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from referee.contract import Latent

from .text import Told


def guided(unet: Any, told: Told, noisy: Latent, t: Int[Tensor, " n"], guidance: float, factor: int) -> Latent:
    """The UNet's output under classifier-free guidance (Ho & Salimans, arXiv 2207.12598), in noisy's dtype.

    ``e_uncond + s (e_text - e_uncond)``; both halves in one call, and at 0 and 1 the one that counts alone.

    Args:
        unet: diffusers' UNet2DConditionModel.
        told: its first row is the unconditional half, its second the text; others are not looked at.
        noisy: latents with noise.
        t: timestep of each.
        guidance: s.
        factor: pixels per latent cell; see `answers`.
    """
    both = {0.0: [0], 1.0: [1]}.get(guidance, [0, 1])
    out = answers(unet, told.rows(both), noisy, t, factor)
    if len(both) == 1:
        return out
    plain, text = out.chunk(2)
    return plain + guidance * (text - plain)


def answers(unet: Any, told: Told, noisy: Latent, t: Int[Tensor, " n"], factor: int) -> Float[Tensor, "kn c h w"]:
    """The UNet's outputs when told each of k texts, one after the other, in one call and noisy's dtype.

    Args:
        factor: pixels per latent cell; Stable Diffusion XL is told the picture's size.
    """
    k, n = len(told.hidden), len(noisy)
    out: Tensor = unet(
        noisy.to(told.hidden.dtype).repeat(k, 1, 1, 1),
        t.repeat(k),
        encoder_hidden_states=told.hidden.repeat_interleave(n, dim=0),
        return_dict=False,
        **added(told.pooled, noisy, factor),
    )[0]
    return out.to(noisy.dtype)


def added(pooled: Float[Tensor, "k pooled"] | None, z: Latent, factor: int) -> dict[str, Any]:
    """What Stable Diffusion XL is told beside the text: original size, crop and target size, in pixels; here of a
    picture that was neither resized nor cropped (arXiv 2307.01952, section 2.2)."""
    if pooled is None:
        return {}
    height, width = (side * factor for side in z.shape[-2:])
    sizes = torch.tensor([height, width, 0, 0, height, width], dtype=torch.float32, device=z.device)
    rows = len(pooled) * len(z)
    told = {"text_embeds": pooled.repeat_interleave(len(z), dim=0), "time_ids": sizes.expand(rows, -1)}
    return {"added_cond_kwargs": told}


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
