"""CLIP's two measurements: how near a picture is to a text, and what colour a thing has. The model is loaded as the
plug-in `clip` loads it; the picture is prepared by open_clip itself.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import open_clip
import torch
from jaxtyping import Float
from PIL import Image as Pillow
from torch import Tensor
from torch.nn import functional

from referee_clip.load import load
from referee_compbench.boxes import Box
from referee_compbench.geneval import COLOUR_LINES, COLOURS
from referee_compbench.options import clip_options


class Similarity:
    """Looks at pictures with a CLIP.

    Args:
        model: of open_clip; it is frozen.
        tokenizer: of open_clip, for that model.
        device: torch's name.
    """

    def __init__(self, model: Any, tokenizer: Any, device: str) -> None:
        self.model = model.to(device).eval().requires_grad_(False)
        self._tokenizer = tokenizer
        self._device = device
        visual = model.visual
        config = open_clip.transform.PreprocessCfg(**{**visual.preprocess_cfg, "size": visual.image_size})
        self._prepare = open_clip.transform.image_transform_v2(config, is_train=False)
        self._colours: dict[str, Tensor] = {}

    @classmethod
    def load(cls, given: Path | str, device: str) -> Similarity:
        """From a folder, the hub's cache, or open_clip's own names.

        Raises:
            OptionError: open_clip knows no such name.
            WeightsError: it cannot be loaded.
        """
        return cls(*load(clip_options(given)), device)

    @torch.inference_mode()
    def cosine(self, picture: Pillow.Image, text: str) -> float:
        """Of picture and text as they are: not scaled, not cut off below 0."""
        return (self._see(picture) @ self._read([text])[0]).item()

    @torch.inference_mode()
    def colour(self, picture: Pillow.Image, box: Box, name: str) -> str:
        """That of a thing of a name: the one of `COLOURS` whose texts are nearest to the crop.

        GenEval paints what is not the thing grey first; OWL gives no mask, so here the whole box is looked at.
        """
        if name not in self._colours:
            texts = [[line.format(colour=colour, name=name) for line in COLOUR_LINES] for colour in COLOURS]
            means = torch.stack([self._read(lines).mean(dim=0) for lines in texts])
            self._colours[name] = functional.normalize(means, dim=-1)
        return COLOURS[int((self._colours[name] @ self._see(crop(picture, box))).argmax())]

    def _see(self, picture: Pillow.Image) -> Float[Tensor, " e"]:
        pixels: Tensor = self._prepare(picture.convert("RGB"))
        features: Tensor = self.model.encode_image(pixels[None].to(self._device), normalize=True)
        return features[0]

    def _read(self, texts: list[str]) -> Float[Tensor, "n e"]:
        features: Tensor = self.model.encode_text(self._tokenizer(texts).to(self._device), normalize=True)
        return features


def crop(picture: Pillow.Image, box: Box) -> Pillow.Image:
    """What is in a box: whole pixels, at least one."""
    x0, y0 = (min(round(low), side - 1) for low, side in zip(box[:2], picture.size, strict=True))
    x1, y1 = max(round(box.x1), x0 + 1), max(round(box.y1), y0 + 1)
    return picture.crop((x0, y0, x1, y1))
