"""From a diffusers pipeline folder to a prior: nothing is downloaded, nothing is left to be trained.

Every weight that a model has must be in its file. diffusers and transformers would only warn of a missing
one and draw it at random.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, AutoencoderTiny, DDIMScheduler, UNet2DConditionModel
from diffusers.utils import logging as diffusers_logging
from huggingface_hub.errors import StrictDataclassError
from torch.utils.checkpoint import checkpoint
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection
from transformers.utils import logging as transformers_logging

from referee.errors import WeightsError
from referee.hooks import Place
from referee.weights import FAULTS, check_loaded

from .distillation import PREDICTIONS
from .files import ENCODERS, STEMS, check, open_tokenizer, pipeline, read_config, tokenizer, vae_folder, variant
from .options import Options
from .prior import StableDiffusionPrior
from .text import NoTokenizer, PairReader, TextReader

SCALE = 0.18215
"""Of an AutoencoderKL whose configuration says none: Stable Diffusion 1's (diffusers' default)."""
CLASSES = {kind.__name__: kind for kind in (AutoencoderKL, AutoencoderTiny, CLIPTextModel, CLIPTextModelWithProjection)}


def load(options: Options, place: Place) -> StableDiffusionPrior:
    """Load a prior, frozen.

    UNet and text encoder compute in the place's dtype, and so does the VAE, unless that is float16 and its
    config says that float16 overflows in it (``force_upcast``): then it stays in float32.

    Raises:
        WeightsError: a file is missing, cut short, or not what its role needs; the parts do not fit each
        other.
    """
    if place.weights:
        check(options)
    model, dtype = Path(options.model), getattr(torch, place.dtype)
    with _quiet():
        prior = StableDiffusionPrior(
            # Channels last makes its decoder a fourth faster on a CPU; the UNet gains nothing.
            vae=_vae(vae_folder(options), dtype, place, options.recompute).to(
                place.device, memory_format=torch.channels_last
            ),
            unet=_model(UNet2DConditionModel, model / "unet", STEMS["unet"], dtype, place),
            scheduler=_scheduler(model / "scheduler" / "scheduler_config.json"),
            text=_text(model, dtype, place),
            options=options,
        )
    _check_fit(prior, options)
    return prior


def _vae(folder: Path, dtype: torch.dtype, place: Place, thrifty: bool) -> Any:
    config = read_config(folder / "config.json")
    kind = CLASSES[str(config["_class_name"])]
    if dtype == torch.float16 and config.get("force_upcast", kind is AutoencoderKL):
        dtype = torch.float32
    vae = _model(kind, folder, STEMS["vae"], dtype, place)
    if thrifty:
        vae.enable_gradient_checkpointing(partial(checkpoint, use_reentrant=False, preserve_rng_state=False))
    return vae


def _text(model: Path, dtype: torch.dtype, place: Place) -> TextReader | PairReader:
    encoders = ENCODERS[pipeline(model)]
    readers = [_reader(model, encoder, CLASSES[kind], dtype, place) for encoder, kind in encoders.items()]
    if len(readers) == 1:
        return readers[0]
    zero = read_config(model / "model_index.json").get("force_zeros_for_empty_prompt", True)
    return PairReader(readers[0], readers[1], bool(zero))


def _reader(model: Path, encoder: str, kind: Any, dtype: torch.dtype, place: Place) -> TextReader:
    network = _model(kind, model / encoder, STEMS[encoder], dtype, place)
    folder = model / tokenizer(encoder)
    if not place.weights and not (folder / "tokenizer_config.json").is_file():
        return TextReader(NoTokenizer(), network)
    tokens = open_tokenizer(folder)
    words, known = len(tokens), int(network.config.vocab_size)
    if words > known:
        raise WeightsError(f"The tokenizer in {folder} has {words} tokens, its text encoder knows {known}.")
    return TextReader(tokens, network)


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


def _model(kind: Any, folder: Path, stem: str, dtype: torch.dtype, place: Place) -> Any:
    of_transformers = kind in (CLIPTextModel, CLIPTextModelWithProjection)
    if not place.weights:
        config = read_config(folder / "config.json")
        empty = kind(CLIPTextConfig.from_dict(config)) if of_transformers else kind.from_config(config)
        return empty.to(place.device, dtype).requires_grad_(False).eval()
    name = "dtype" if of_transformers else "torch_dtype"
    settings: dict[str, Any] = {name: dtype, "variant": variant(folder, stem), "output_loading_info": True}
    settings["ignore_mismatched_sizes"] = True  # told below, by name
    if not of_transformers:
        settings["low_cpu_mem_usage"] = False  # needs accelerate, which is no dependency
    try:
        model, info = kind.from_pretrained(folder, local_files_only=True, use_safetensors=True, **settings)
    except (*FAULTS, StrictDataclassError) as error:
        raise WeightsError(f"The {kind.__name__} in {folder} cannot be loaded: {error}") from error
    check_loaded(folder, kind.__name__, info)
    return model.to(place.device).requires_grad_(False).eval()


def _check_fit(prior: StableDiffusionPrior, options: Options) -> None:
    unet, vae = prior.unet.config, prior.vae.config
    channels, wanted = int(vae.latent_channels), int(unet.in_channels)
    if channels != wanted:
        raise WeightsError(
            f"The VAE in {vae_folder(options)} has {channels} latent channels, "
            f"the UNet in {options.model} wants {wanted}."
        )
    _check_latents(prior, options)
    two = isinstance(prior.text, PairReader)
    readers = [prior.text.first, prior.text.second] if isinstance(prior.text, PairReader) else [prior.text]
    width, wanted = sum(int(reader.encoder.config.hidden_size) for reader in readers), int(unet.cross_attention_dim)
    if width != wanted:
        raise WeightsError(f"The text encoder in {options.model} has width {width}, its UNet wants {wanted}.")
    if (unet.addition_embed_type == "text_time") != two:
        raise WeightsError(
            f"The UNet in {options.model} is {'not ' if two else ''}one of Stable Diffusion XL, "
            f"its model_index.json says {pipeline(Path(options.model))}."
        )
    if two:
        pooled, sizes = int(readers[1].encoder.config.projection_dim), 6 * int(unet.addition_time_embed_dim)
        if (wanted := int(unet.projection_class_embeddings_input_dim)) != pooled + sizes:
            raise WeightsError(
                f"The second text encoder in {options.model} pools to {pooled}, its UNet wants {wanted - sizes}."
            )


def _check_latents(prior: StableDiffusionPrior, options: Options) -> None:
    """Latents of another scale decode to pictures of another world. A tiny VAE in place of a whole one has no scale of
    its own, and cannot be told from its like."""
    vae, own = prior.vae.config, Path(options.model) / "vae" / "config.json"
    if getattr(vae, "latents_mean", None) is not None:
        raise WeightsError(f"The VAE in {vae_folder(options)} has a mean for each latent channel: not known here.")
    if not options.vae or not own.is_file():
        return
    config = read_config(own)
    if config.get("_class_name") != type(prior.vae).__name__:
        return
    scale = config.get("scaling_factor", SCALE if isinstance(prior.vae, AutoencoderKL) else 1.0)
    if scale != vae.scaling_factor:
        raise WeightsError(
            f"The VAE in {options.vae} scales its latents by {vae.scaling_factor}, the one that {options.model} was "
            f"trained with by {scale}: they are of different latent spaces. Take one for the same model."
        )


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
