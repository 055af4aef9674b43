"""The prior: a latent space (`decode`, `encode`), a pull (`read`), samples (`sample`), and quick ones (`denoiser`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import torch
from torch import Generator, Tensor

from referee.contract import Denoise, Image, Latent, Prompt, Pull
from referee.errors import OptionError

from .clamp import clamp
from .distillation import Distillation
from .options import Options, put
from .relatives import Text
from .sampling import FewSteps, trailing
from .text import PairReader, TextReader, Told


@dataclass(frozen=True)
class StableDiffusionPrior:
    """The parts of a Stable Diffusion checkpoint, frozen, in the roles that the method gives them.

    ``z`` lives on the scale of the UNet's input (standard deviation about 1): the VAE's own scale and shift
    are undone in `decode` and applied in `encode`. Make one with `referee_stable_diffusion.load.load`.

    Args:
        vae: diffusers' AutoencoderKL or AutoencoderTiny.
        unet: diffusers' UNet2DConditionModel.
        scheduler: diffusers' DDIMScheduler with the checkpoint's noise schedule.
        text: the checkpoint's text encoder, or the two of Stable Diffusion XL.
        options: how to pull and sample.
    """

    vae: Any
    unet: Any
    scheduler: Any
    text: TextReader | PairReader
    options: Options

    @property
    def factor(self) -> int:
        """Pixels per latent cell, along a side."""
        return 1 << (len(self.vae.config.block_out_channels) - 1)

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        """(c, h, w) of the latent of an image of that many pixels.

        Raises:
            OptionError: a side is not a positive multiple of `factor`; names the nearest that are.
        """
        for name, side in (("height", height), ("width", width)):
            if side < self.factor or side % self.factor:
                below = max(side // self.factor, 1) * self.factor
                nearest = f"{below} or {below + self.factor}" if side > below else f"{below}"
                raise OptionError(f"The {name} {side} is not a multiple of {self.factor}: take {nearest}.")
        return int(self.vae.config.latent_channels), height // self.factor, width // self.factor

    def decode(self, z: Latent) -> Image:
        """The image of a latent, in [0, 1] and z's dtype, differentiable; saturated pixels: `clamp`."""
        scale, shift = self._scale
        decoded: Tensor = self.vae.decode((z / scale + shift).to(self.vae.dtype), return_dict=False)[0]
        return clamp(decoded.to(z.dtype).contiguous() / 2 + 0.5)

    def encode(self, x: Image) -> Latent:
        """The mean latent of an image in [0, 1]: no sampling, the same image gives the same latent."""
        scale, shift = self._scale
        encoded = self.vae.encode((x * 2 - 1).to(self.vae.dtype))
        mean = encoded.latents if hasattr(encoded, "latents") else encoded.latent_dist.mean
        return (cast(Tensor, mean).to(x.dtype) - shift) * scale

    def read(self, prompt: Prompt) -> Pull:
        """Encode the prompt, put into the template, and the texts beside it, once; the pull is `Distillation`."""
        options = self.options
        told: dict[Text, str] = {"negative": options.negative, "prompt": put(prompt.text, options.template)}
        if options.distil == "bridge":
            told["source"] = put(prompt.text, options.source)
        elif options.distil != "sds" and options.negative:
            told["null"] = ""
        return Distillation(
            unet=self.unet,
            text=self._embed(*told.values()),
            alphas_cumprod=self.scheduler.alphas_cumprod.to(self.unet.device, torch.float32),
            prediction=self.scheduler.config.prediction_type,
            guidance=options.cfg,
            t_min=options.t_min,
            t_max=options.t_max,
            factor=self.factor,
            texts=tuple(told),
            distil=options.distil,
            since=options.distil_from,
            share=options.negative_share,
        )

    @torch.no_grad()
    def sample(self, prompt: Prompt, height: int, width: int, generators: Sequence[Generator]) -> Image:
        """Plain samples of the prompt as it stands (no template), away from the negative text, one per CPU generator;
        diffusers' own loop.

        Raises:
            OptionError: the size does not fit; see `latent_shape`.
        """
        self.latent_shape(height, width)
        told, n = self._embed(self.options.negative, prompt.text), len(generators)
        embeds = {"negative_prompt_embeds": told.hidden[:1].expand(n, -1, -1)}
        embeds["prompt_embeds"] = told.hidden[1:].expand(n, -1, -1)
        if told.pooled is not None:
            embeds["negative_pooled_prompt_embeds"] = told.pooled[:1].expand(n, -1)
            embeds["pooled_prompt_embeds"] = told.pooled[1:].expand(n, -1)
        latents: Tensor = self._pipeline(
            **embeds,
            height=height,
            width=width,
            num_inference_steps=self.options.sample_steps,
            guidance_scale=self.options.sample_cfg,
            generator=list(generators),
            output_type="latent",  # decoded here: the VAE may have another dtype than the UNet
            return_dict=False,
        )[0]
        return self.decode(latents.float())

    def denoiser(self, prompt: Prompt, steps: int, guidance: float | None = None) -> Denoise:
        """DDIM in few steps, differentiable, of the prompt as it stands, away from the negative text, at the guidance
        of plain samples unless another is given. With `Options.recompute` its memory does not grow with the steps.

        Raises:
            OptionError: the model was not taught so many noise levels.
        """
        scheduler, timesteps = trailing(self.scheduler, steps)
        options = self.options
        strength = float(options.sample_cfg if guidance is None else guidance)
        text = self._embed(options.negative, prompt.text)
        return FewSteps(self.unet, text, scheduler, timesteps, strength, self.factor, options.recompute)

    def _embed(self, *texts: str) -> Told:
        """The texts, on the UNet's device and in its dtype."""
        return self.text(texts).to(next(self.unet.parameters()))

    @property
    def _scale(self) -> tuple[float, float]:
        config = self.vae.config
        return float(config.scaling_factor), float(getattr(config, "shift_factor", None) or 0.0)

    @cached_property
    def _pipeline(self) -> Any:
        # Slow to import, and most runs never sample.
        from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline

        parts = {"vae": self.vae, "unet": self.unet, "scheduler": self.scheduler}
        if isinstance(self.text, PairReader):
            one, two = self.text.first, self.text.second
            parts |= {"text_encoder": one.encoder, "tokenizer": one.tokenizer}
            parts |= {"text_encoder_2": two.encoder, "tokenizer_2": two.tokenizer}
            pipeline: Any = StableDiffusionXLPipeline(**parts, add_watermarker=False)
        else:
            parts |= {"text_encoder": self.text.encoder, "tokenizer": self.text.tokenizer}
            parts |= {"safety_checker": None, "feature_extractor": None}
            pipeline = StableDiffusionPipeline(**parts, requires_safety_checker=False)
        pipeline.set_progress_bar_config(disable=True)
        return pipeline
