"""How the published models are built: their configurations, of which sizes and costs can be told without weights."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

from referee.errors import OptionError, nearest

REFEREES = {
    "blip2": ("referee_blip2", "configs/vit-g.json", "config.json"),
    "clip": ("referee_hub", "referees/clip.json", "open_clip_config.json"),
    "blip-vqa": ("referee_hub", "referees/blip-vqa.json", "config.json"),
    "owlv2": ("referee_hub", "referees/owlv2.json", "config.json"),
}
"""Checkpoints that are a referee's: the package and file of its configuration, and the name that the referee wants."""


def outline(zoo: str, checkpoint: str) -> dict[str, str]:
    """The small files of a checkpoint, as text by name: enough to build its models without weights.

    >>> sorted(outline("sd15", "taesd"))
    ['config.json']
    """
    if checkpoint in REFEREES:
        package, path, name = REFEREES[checkpoint]
        return {name: (files(package) / path).read_text(encoding="utf-8")}
    roles = architecture(zoo)
    if checkpoint in roles:
        return {"config.json": json.dumps(roles[checkpoint])}
    kind = "StableDiffusionXLPipeline" if "text_encoder_2" in roles else "StableDiffusionPipeline"
    found: dict[str, Any] = {"model_index.json": {"_class_name": kind}}
    found["scheduler/scheduler_config.json"] = roles["scheduler"]
    for role in ("unet", "vae", "text_encoder", "text_encoder_2"):
        if role in roles:
            found[f"{role}/config.json"] = roles[role]
    return {name: json.dumps(content) for name, content in found.items()}


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
