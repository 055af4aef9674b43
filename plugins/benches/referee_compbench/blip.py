"""BLIP-VQA's P(yes) of each phrase, to the letter: T2I-CompBench, arXiv 2307.06350, section 4.1.

The model and its four traps ([ENC], no padding, epsilon, size) are those of `referee_grounding_vqa.vqa`. What is
different from that referee is how the picture is shown: by Pillow, in whole steps of 255, as the benchmark does; and
always in float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image as Pillow
from torch import Tensor

from referee_grounding_vqa.vqa import Vqa


class Answers:
    """Asks a BLIP-VQA.

    Args:
        vqa: the model; it is frozen.
        size: side of the square that a picture is resized to, whatever its shape; 0: the checkpoint's.
        device: torch's name.
    """

    def __init__(self, vqa: Vqa, size: int, device: str) -> None:
        self.vqa = vqa.to(device).eval().requires_grad_(False)
        self.size = size or vqa.image_size
        self._device = device

    @classmethod
    def load(cls, folder: Path, size: int, device: str) -> Answers:
        """From a transformers folder.

        Raises:
            WeightsError: it is no whole BLIP-VQA.
        """
        return cls(Vqa.load(folder), size, device)

    @torch.inference_mode()
    def __call__(self, picture: Pillow.Image, phrases: Sequence[str]) -> list[float]:
        """P(yes) / (P(yes) + P(no)) of each phrase, out of a softmax over all words; not rounded."""
        if not phrases:
            return []
        embeds = self.vqa.see(pixels(picture, self.size).to(self._device))
        answers = []
        for phrase in phrases:  # one by one: a question's score must not hang on its neighbours
            words = self.vqa.first_words(embeds, self.vqa.ask(phrase).to(self._device)).softmax(dim=1)
            yes, no = words[0, self.vqa.yes_id], words[0, self.vqa.no_id]
            answers.append((yes / (yes + no)).item())
        return answers


def pixels(picture: Pillow.Image, size: int) -> Float[Tensor, "1 3 S S"]:
    """A picture as a square in [0, 1], squeezed rather than cut, bicubic."""
    square = picture.convert("RGB").resize((size, size), Pillow.Resampling.BICUBIC)
    return torch.from_numpy(np.asarray(square).copy()).permute(2, 0, 1)[None].float() / 255
