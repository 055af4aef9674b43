"""From options to an open_clip model and its tokenizer; every weight must be in the file.

How open_clip 3 reads weights: ``.safetensors`` where there is one; else ``torch.load(weights_only=True)``, which
refuses pickled code and TorchScript archives and runs neither. Its other reader, ``load_openai_model``, opens archives
with ``torch.jit.load``: it is not used here, OpenAI's weights come from the hub as safetensors.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from textwrap import shorten
from typing import Any

import open_clip
import torch
from jaxtyping import Int
from safetensors import SafetensorError
from torch import Tensor

from referee import weights
from referee.errors import OptionError, WeightsError, nearest
from referee_clip.options import FOLDER, HUB, TOKENIZER, Options, source

FAULTS = (*weights.FAULTS, ImportError, UnpicklingError, SafetensorError)
"""What open_clip and the libraries below it raise for a file that is not there or not right."""
_MEND = "If it is the weights: they are not whole, or not of this open_clip_config.json. Get both from one place."


def load(options: Options) -> tuple[Any, Any]:
    """(model, tokenizer), float32 whatever is stored, on the CPU, in evaluation mode.

    Raises:
        OptionError: open_clip knows no such name, or no such weights for it.
        WeightsError: the folder or the download cannot be loaded.
    """
    name = source(options)
    if options.pretrained:
        _check_name(options)
    try:
        with _quiet():
            model = open_clip.create_model(name, options.pretrained or None, require_pretrained=True, weights_only=True)
            tokenizer = open_clip.get_tokenizer(name)
    except FAULTS as error:
        raise WeightsError(_explain(name, options, error)) from error
    return model.eval(), tokenizer


class NoTokenizer:
    """Stands for a tokenizer that is not on the disk, where only sizes are asked for.

    Args:
        length: of every text, in tokens.
    """

    def __init__(self, length: int) -> None:
        self.length = length

    def __call__(self, texts: Sequence[str]) -> Int[Tensor, "n length"]:
        """Ids of no meaning, but others for a text of another length."""
        return torch.tensor([len(text) for text in texts])[:, None].expand(-1, self.length)


def outline(options: Options) -> tuple[Any, Any]:
    """(model, tokenizer) as `load`, with weights of no meaning, of the configuration alone.

    Raises:
        OptionError: open_clip knows no such name, or no such weights for it.
        WeightsError: there is no configuration.
    """
    name = source(options)
    if options.pretrained:
        _check_name(options)
    try:
        with _quiet():
            model = open_clip.create_model(name, load_weights=False, pretrained_text=False)
            lacks = name.startswith(FOLDER) and not (Path(name.removeprefix(FOLDER)) / TOKENIZER[0]).is_file()
            own = (open_clip.get_model_config(name) or {}).get("text_cfg", {}).get("hf_tokenizer_name")
            tokenizer = NoTokenizer(model.context_length) if lacks or own else open_clip.get_tokenizer(name)
    except FAULTS as error:
        raise WeightsError(_explain(name, options, error)) from error
    return model.eval(), tokenizer


def empty(name: str) -> Any:
    """A model of open_clip's by name on the meta device: all sizes and no weights.

    >>> sum(parameter.numel() for parameter in empty("ViT-L-14").parameters())
    427616513
    """
    with torch.device("meta"), _quiet():
        return open_clip.create_model(name, load_weights=False, device="meta")


def _check_name(options: Options) -> None:
    if options.model not in (names := open_clip.list_models()):
        raise OptionError(f"open_clip has no model called '{options.model}'. {nearest(options.model, names)}")
    tags = open_clip.list_pretrained_tags_by_model(options.model)
    if options.pretrained not in tags:
        known = nearest(options.pretrained, tags)
        raise OptionError(f"open_clip has no weights '{options.pretrained}' for {options.model}. {known}")
    trained = open_clip.get_pretrained_cfg(options.model, options.pretrained).get("quick_gelu", False)
    if trained and not (open_clip.get_model_config(options.model) or {}).get("quick_gelu", False):
        raise OptionError(  # open_clip only warns
            f"The weights '{options.pretrained}' were trained with QuickGELU, which {options.model} does not have: all "
            f"numbers would be a little wrong. Say model={options.model}-quickgelu."
        )


def _explain(name: str, options: Options, error: Exception) -> str:
    """What went wrong and, for what comes from the hub, the command that fetches it."""
    why = str(error).strip()
    if isinstance(error, UnpicklingError):
        why = "it holds code or is cut short, and code in a checkpoint is never run"  # torch advises to run it
    repositories = _repositories(options)
    if not repositories:
        why = shorten(why, 300, placeholder=" ...").rstrip(".")  # torch lists all names, a line for each kind
        return f"open_clip cannot load {name}: {why}. {_MEND}"
    fetch = " && ".join(f"hf download {repository}" for repository in repositories)
    what, first = f"{name} {options.pretrained}".rstrip(), why.partition("\n")[0].rstrip(".")
    return f"open_clip cannot load {what}: {first}. Once, where there is a network: {fetch}"


def _repositories(options: Options) -> list[str]:
    """Where the hub has weights and tokenizer; none for a folder."""
    if options.model.startswith(HUB):
        return [options.model.removeprefix(HUB)]
    if not options.pretrained:
        return []
    weights = open_clip.get_pretrained_cfg(options.model, options.pretrained).get("hf_hub", "")
    words = (open_clip.get_model_config(options.model) or {}).get("text_cfg", {}).get("hf_tokenizer_name", "")
    return [name for name in ("/".join(weights.split("/")[:2]), words) if name]


@contextmanager
def _quiet() -> Iterator[None]:
    """open_clip logs through the root logger what it then raises."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        yield
    finally:
        logging.disable(before)
