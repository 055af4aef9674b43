"""The two networks of BLIP-2's first stage, with weights from a folder, random, or none at all.

``configs/vit-g.json`` holds the sizes of the published checkpoint (Li et al. 2023, "BLIP-2": EVA-CLIP's ViT-g/14
without its last block, a Q-Former of BERT-base's size with 32 queries), as transformers' ``config.json`` spells them.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import Blip2Config, Blip2ForImageTextRetrieval
from transformers.utils import logging

from referee.errors import WeightsError
from referee.weights import FAULTS, check_loaded
from referee_blip2.head import CaptionHead

Attention = Literal["sdpa", "eager"]
CONFIGS = Path(__file__).parent / "configs"


def published(name: str = "vit-g") -> Blip2Config:
    """The configuration of a published checkpoint, by its file in ``configs``."""
    return Blip2Config.from_dict(json.loads((CONFIGS / f"{name}.json").read_text(encoding="utf-8")))


def build(config: Any, attention: Attention = "sdpa") -> tuple[Any, CaptionHead]:
    """(network, caption head) of these sizes, with transformers' random weights."""
    config = copy.deepcopy(config)
    config.qformer_config.use_qformer_text_input = True
    network = Blip2ForImageTextRetrieval._from_config(config, attn_implementation=attention)
    return network, CaptionHead(config.qformer_config.hidden_size, config.qformer_config.vocab_size)


def empty(config: Any, attention: Attention = "sdpa") -> tuple[Any, CaptionHead]:
    """`build` on the meta device: all sizes and no weights, in a moment, whatever the size.

    >>> network, head = empty(published())
    >>> sum(p.numel() for p in network.parameters()), sum(p.numel() for p in head.parameters())
    (1172032258, 622651)
    """
    with torch.device("meta"):
        return build(config, attention)


def read_config(folder: Path) -> Any:
    """The configuration in a folder of transformers'.

    Raises:
        WeightsError: it is missing, or none of a BLIP-2.
    """
    try:
        return Blip2Config.from_dict(json.loads((folder / "config.json").read_text(encoding="utf-8")))
    except (*FAULTS, StrictDataclassError) as error:
        raise WeightsError(f"{folder / 'config.json'} is no configuration of a BLIP-2: {error}") from error


def load_network(folder: Path, attention: Attention = "sdpa") -> Any:
    """The network in a folder of transformers', in float32 whatever it is stored in.

    Raises:
        WeightsError: tensors are missing, too many or of the wrong size, or a file cannot be read.
    """
    try:
        config = Blip2Config.from_pretrained(folder, local_files_only=True)
        config.qformer_config.use_qformer_text_input = True  # older configs spell it qformer_text_input
        with quiet():
            network, found = Blip2ForImageTextRetrieval.from_pretrained(
                folder, config=config, dtype=torch.float32, attn_implementation=attention, use_safetensors=True,
                local_files_only=True, output_loading_info=True, ignore_mismatched_sizes=True,
            )  # fmt: skip
    except (*FAULTS, StrictDataclassError) as error:
        raise WeightsError(f"The BLIP-2 in {folder} cannot be loaded: {error}") from error
    check_loaded(folder, "BLIP-2 of the first stage", found, more=True)
    return network


@contextmanager
def quiet() -> Iterator[None]:
    """No progress bars and no advice from transformers; what matters is checked here and raised."""
    shown, before = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)
        if shown:
            logging.enable_progress_bar()
