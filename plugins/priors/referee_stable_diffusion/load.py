"""From a diffusers pipeline folder to a prior: nothing is downloaded, nothing is left to be trained.

Every weight that a model has must be in its file. diffusers and transformers would only warn of a missing
one and draw it at random.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, AutoencoderTiny, DDIMScheduler, UNet2DConditionModel
from diffusers.utils import logging as diffusers_logging
from transformers import CLIPTextModel, CLIPTokenizer
from transformers.utils import logging as transformers_logging

from referee.errors import WeightsError
from referee.hooks import Place

from .distillation import PREDICTIONS
from .files import STEMS, check, read_config, vae_folder, variant
from .options import Options
from .prior import StableDiffusionPrior
from .text import TextReader

VAES = {"AutoencoderKL": AutoencoderKL, "AutoencoderTiny": AutoencoderTiny}


def load(options: Options, place: Place) -> StableDiffusionPrior:
    """Load a prior, frozen.

    UNet and text encoder compute in the place's dtype, and so does the VAE, unless that is float16 and its
    config says that float16 overflows in it (``force_upcast``): then it stays in float32.

    Raises:
        WeightsError: a file is missing, cut short, or not what its role needs; the parts do not fit each
        other.
    """
    check(options)
    model, dtype = Path(options.model), getattr(torch, place.dtype)
    with _quiet():
        prior = StableDiffusionPrior(
            # Channels last makes its decoder a fourth faster on a CPU; the UNet gains nothing.
            vae=_vae(vae_folder(options), dtype).to(place.device, memory_format=torch.channels_last),
            unet=_model(UNet2DConditionModel, model / "unet", STEMS["unet"], dtype).to(place.device),
            scheduler=_scheduler(model / "scheduler" / "scheduler_config.json"),
            text=_text(model, dtype, place.device),
            options=options,
        )
    _check_fit(prior, options)
    return prior


def _vae(folder: Path, dtype: torch.dtype) -> Any:
    config = read_config(folder / "config.json")
    kind = VAES.get(str(config.get("_class_name")))
    if kind is None:
        raise WeightsError(f"{folder} holds a {config.get('_class_name')}; known are {' and '.join(VAES)}.")
    if dtype == torch.float16 and config.get("force_upcast", kind is AutoencoderKL):
        dtype = torch.float32
    return _model(kind, folder, STEMS["vae"], dtype)


def _text(model: Path, dtype: torch.dtype, device: str) -> TextReader:
    encoder = _model(CLIPTextModel, model / "text_encoder", STEMS["text_encoder"], dtype).to(device)
    try:
        tokenizer = CLIPTokenizer.from_pretrained(model / "tokenizer", local_files_only=True)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise WeightsError(f"The tokenizer in {model / 'tokenizer'} cannot be loaded: {error}") from error
    return TextReader(tokenizer, encoder)


def _scheduler(path: Path) -> Any:
    """DDIM with the checkpoint's noise schedule, whatever scheduler the checkpoint names for itself."""
    config = read_config(path)
    if "beta_schedule" not in config and config.get("trained_betas") is None:
        name = config.get("_class_name")
        raise WeightsError(f"{path} ({name}) has no beta_schedule: not a model that can be distilled here.")
    prediction = config.get("prediction_type", "epsilon")
    if prediction not in PREDICTIONS:
        raise WeightsError(f"{path} asks for prediction_type {prediction}; known are {', '.join(PREDICTIONS)}.")
    # Both are what StableDiffusionPipeline would set, but with a deprecation warning.
    return DDIMScheduler.from_config(config, clip_sample=False, steps_offset=1)


def _model(kind: Any, folder: Path, stem: str, dtype: torch.dtype) -> Any:
    name = "dtype" if kind is CLIPTextModel else "torch_dtype"
    settings: dict[str, Any] = {name: dtype, "variant": variant(folder, stem), "output_loading_info": True}
    if kind is not CLIPTextModel:
        settings["low_cpu_mem_usage"] = False  # needs accelerate, which is no dependency
    try:
        model, info = kind.from_pretrained(folder, local_files_only=True, use_safetensors=True, **settings)
    except (OSError, ValueError, RuntimeError, TypeError, KeyError) as error:
        raise WeightsError(f"The {kind.__name__} in {folder} cannot be loaded: {error}") from error
    if missing := sorted(info["missing_keys"]):
        raise WeightsError(f"{folder} lacks {len(missing)} weights of its {kind.__name__}, first {missing[0]}.")
    return model.requires_grad_(False).eval()


def _check_fit(prior: StableDiffusionPrior, options: Options) -> None:
    words, known = len(prior.text.tokenizer), int(prior.text.encoder.config.vocab_size)
    if words > known:
        raise WeightsError(f"The tokenizer in {options.model} has {words} tokens, its text encoder knows {known}.")
    channels, wanted = int(prior.vae.config.latent_channels), int(prior.unet.config.in_channels)
    if channels != wanted:
        raise WeightsError(
            f"The VAE in {vae_folder(options)} has {channels} latent channels, "
            f"the UNet in {options.model} wants {wanted}."
        )
    width, wanted = int(prior.text.encoder.config.hidden_size), int(prior.unet.config.cross_attention_dim)
    if width != wanted:
        raise WeightsError(f"The text encoder in {options.model} has width {width}, its UNet wants {wanted}.")


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars and no advice while loading; what matters is checked here and raised."""
    before = diffusers_logging.get_verbosity(), transformers_logging.get_verbosity()
    bars = transformers_logging.is_progress_bar_enabled()
    diffusers_logging.set_verbosity_error()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        diffusers_logging.set_verbosity(before[0])
        transformers_logging.set_verbosity(before[1])
        if bars:
            transformers_logging.enable_progress_bar()
