"""Which files a pipeline folder must hold, told without loading any model.

diffusers writes a model's weights as one safetensors file, as several with an index ("shards"), or in half
precision under another name (the "variant" fp16); each component of the folder may differ in this.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from referee.errors import OptionError, WeightsError
from referee.weights import FAULTS, check_folder

from .options import Options, texts

STEMS = {
    "unet": "diffusion_pytorch_model",
    "vae": "diffusion_pytorch_model",
    "text_encoder": "model",
    "text_encoder_2": "model",
}
"""The components with weights, and how their files' names begin."""
ENCODERS = {
    "StableDiffusionPipeline": {"text_encoder": "CLIPTextModel"},
    "StableDiffusionXLPipeline": {"text_encoder": "CLIPTextModel", "text_encoder_2": "CLIPTextModelWithProjection"},
}
"""The pipelines that can be loaded, as model_index.json names them, with the classes of their text encoders."""
VAES = ("AutoencoderKL", "AutoencoderTiny")
_MEND = (
    "Expected is a diffusers pipeline folder with safetensors weights, for example from "
    "`hf download stable-diffusion-v1-5/stable-diffusion-v1-5 --local-dir FOLDER`."
)
_MEND_VAE = "Expected is a diffusers VAE folder, for example from `hf download madebyollin/taesd --local-dir FOLDER`."


def check(options: Options) -> None:
    """Refuse options whose folders lack a file, hold one that is cut short, or are another model than wanted; and
    texts that are longer than the model reads.

    Raises:
        WeightsError: naming the file and what is wrong with it.
        OptionError: naming the words that would be cut.
    """
    model = Path(options.model)
    check_folder(model, ["model_index.json", "scheduler/scheduler_config.json"], mend=_MEND)
    encoders = ENCODERS[pipeline(model)]
    for encoder, kind in encoders.items():
        _check_tokenizer(model / tokenizer(encoder))
        _check_component(model / encoder, STEMS[encoder], _MEND)
        _check_class(model / encoder, "architectures", kind)
    _check_component(model / "unet", STEMS["unet"], _MEND)
    _check_class(model / "unet", "_class_name", "UNet2DConditionModel")
    _check_component(vae_folder(options), STEMS["vae"], _MEND_VAE if options.vae else _MEND)
    _check_class(vae_folder(options), "_class_name", *VAES)
    for name, text in texts(options).items():
        for encoder in encoders:
            _check_length(name, text, model, encoder)


def pipeline(model: Path) -> str:
    """The class that a pipeline folder says it is of, one of `ENCODERS`.

    Raises:
        WeightsError: it is another, or says nothing.
    """
    kind = read_config(model / "model_index.json").get("_class_name")
    if kind not in ENCODERS:
        raise WeightsError(f"{model} holds a {kind}; known are {' and '.join(ENCODERS)}. {_MEND}")
    return str(kind)


def tokenizer(encoder: str) -> str:
    """The folder of a text encoder's tokenizer: "tokenizer_2" for "text_encoder_2"."""
    return encoder.replace("text_encoder", "tokenizer")


def open_tokenizer(folder: Path) -> Any:
    """transformers' CLIPTokenizer of a folder.

    Raises:
        WeightsError: it cannot be loaded.
    """
    from transformers import CLIPTokenizer  # slow to import: only where there is a text

    try:
        return CLIPTokenizer.from_pretrained(folder, local_files_only=True)
    except FAULTS as error:
        raise WeightsError(f"The tokenizer in {folder} cannot be loaded: {error}") from error


def vae_folder(options: Options) -> Path:
    """Where the VAE's config.json lies."""
    return Path(options.vae) if options.vae else Path(options.model) / "vae"


def variant(folder: Path, stem: str) -> str | None:
    """ "fp16" if the folder holds its weights only under that name, else None."""
    plain = (f"{stem}.safetensors", f"{stem}.safetensors.index.json")
    half = (f"{stem}.fp16.safetensors", f"{stem}.safetensors.index.fp16.json")
    found = any((folder / name).is_file() for name in half) and not any((folder / name).is_file() for name in plain)
    return "fp16" if found else None


def read_config(path: Path) -> dict[str, object]:
    """A component's configuration.

    Raises:
        WeightsError: the file is missing or no JSON object.
    """
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path} cannot be read: {error}. {_MEND}") from error
    if not isinstance(config, dict):
        raise WeightsError(f"{path} is not a configuration: it holds a {type(config).__name__}. {_MEND}")
    return config


def _check_tokenizer(folder: Path) -> None:
    plain = ["tokenizer_config.json"]
    if not (folder / "tokenizer.json").is_file():
        # Without them transformers makes a tokenizer of no words, and says nothing.
        plain += ["vocab.json", "merges.txt"]
    check_folder(folder, plain, mend=_MEND)


def _check_length(name: str, text: str, model: Path, encoder: str) -> None:
    """Words that are cut would be missed in silence: a prompt is warned of, an option is refused."""
    tokens = open_tokenizer(model / tokenizer(encoder))
    positions = read_config(model / encoder / "config.json").get("max_position_embeddings", tokens.model_max_length)
    length = min(int(tokens.model_max_length), int(str(positions)))
    ids = tokens(text, verbose=False).input_ids
    if len(ids) > length:
        cut = tokens.decode(ids[length - 1 : -1]).strip()
        raise OptionError(
            f"The prior's option {name} has {len(ids) - 2} tokens and {length - 2} are read: '{cut}' would be cut. "
            "Shorten it."
        )


def _check_class(folder: Path, key: str, *known: str) -> None:
    """Of a model: diffusers writes one ``_class_name``, transformers a list of ``architectures``."""
    found = read_config(folder / "config.json").get(key)
    names = found if isinstance(found, list) else [found]
    if not set(names) & set(known):
        said = ", ".join(str(name) for name in names)
        raise WeightsError(f"{folder} holds a {said}; known are {' and '.join(known)}. {_MEND}")


def _check_component(folder: Path, stem: str, mend: str) -> None:
    half = variant(folder, stem)
    index = f"{stem}.safetensors.index.{half}.json" if half else f"{stem}.safetensors.index.json"
    files = [f"{stem}.{half}.safetensors" if half else f"{stem}.safetensors"]
    if (folder / index).is_file():
        files = _shards(folder / index, mend)
    check_folder(folder, ["config.json", *files], mend=mend)


def _shards(index: Path, mend: str) -> list[str]:
    shards = read_config(index).get("weight_map")
    if not isinstance(shards, dict) or not shards:
        raise WeightsError(f"{index} lists no weights. {mend}")
    return sorted({str(name) for name in shards.values()})
