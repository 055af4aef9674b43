"""How the published models are built: their configurations, of which sizes and costs can be told without weights."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

from referee.errors import OptionError, nearest


def architecture(zoo: str) -> dict[str, dict[str, Any]]:
    """The configuration of each model of a zoo's prior.

    Args:
        zoo: "sd15", "sd21" or "sdxl".

    Returns:
        By role ("unet", "vae", "text_encoder", "text_encoder_2", "scheduler", "taesd" or "taesdxl"): what the library's
        class of the name ``_class_name`` takes (diffusers: ``from_config``; transformers' CLIP: ``CLIPTextConfig``).
        What the library has as its default anyway may be left out; a scheduler's class is free, so it has none.

    Raises:
        OptionError: there is no such zoo here.

    >>> architecture("sdxl")["unet"]["cross_attention_dim"]
    2048
    """
    known = {path.name.removesuffix(".json"): path for path in (files(__package__) / "configs").iterdir()}
    if zoo not in known:
        raise OptionError(f"No architecture is known for '{zoo}'. {nearest(zoo, known)}")
    found: dict[str, dict[str, Any]] = json.loads(known[zoo].read_text(encoding="utf-8"))
    return found
