"""Which files a pipeline folder must hold, told without loading any model.

diffusers writes a model's weights as one safetensors file, as several with an index ("shards"), or in half
precision under another name (the "variant" fp16); each component of the folder may differ in this.
"""

from __future__ import annotations

import json
from pathlib import Path

from referee.errors import WeightsError
from referee.weights import check_folder

from .options import Options

STEMS = {"unet": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model", "text_encoder": "model"}
"""The components with weights, and how their files' names begin."""
_MEND = (
    "Expected is a diffusers pipeline folder with safetensors weights, for example from "
    "`hf download stable-diffusion-v1-5/stable-diffusion-v1-5 --local-dir FOLDER`."
)
_MEND_VAE = "Expected is a diffusers VAE folder, for example from `hf download madebyollin/taesd --local-dir FOLDER`."


def check(options: Options) -> None:
    """Refuse options whose folders lack a file or hold one that is cut short.

    Raises:
        WeightsError: naming the file and what is wrong with it.
    """
    model = Path(options.model)
    plain = ["model_index.json", "scheduler/scheduler_config.json", "tokenizer/tokenizer_config.json"]
    if not (model / "tokenizer" / "tokenizer.json").is_file():
        # Without them transformers makes a tokenizer of no words, and says nothing.
        plain += ["tokenizer/vocab.json", "tokenizer/merges.txt"]
    check_folder(model, plain, mend=_MEND)
    for component in ("unet", "text_encoder") if options.vae else STEMS:
        _check_component(model / component, STEMS[component], _MEND)
    if options.vae:
        _check_component(Path(options.vae), STEMS["vae"], _MEND_VAE)


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
