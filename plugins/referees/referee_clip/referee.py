"""CLIP as a referee: how far an image's embedding is from the prompt's (Radford et al., arXiv 2103.00020).

SigLIP (Zhai et al., arXiv 2303.15343) is one of open_clip's models and is judged by the same cosine: its learnt bias
and scale would say how sure it is, but grow or shrink the gradient only.

Frozen; the prompt is encoded once. It reads prompts much like bags of words: better as a second opinion
than as the only one.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from referee.contract import Image, Loss, Losses, Prompt, Views
from referee.errors import WeightsError
from referee.hooks import Place
from referee.precision import autocast
from referee_clip.preprocess import Framing


class ClipReferee:
    """A `referee.contract.Referee`.

    Args:
        model: of open_clip, with the normalisation in ``visual.image_mean`` and ``visual.image_std``; is
            moved to ``place``, frozen and set to evaluation mode.
        tokenizer: of open_clip, for that model.
        template: what the text encoder reads; ``{prompt}`` is replaced by the prompt.
        place: device, and type of the image tower's matrix products; weights and text tower stay float32.
        recompute: keep less of the image tower in memory, and compute it again for the gradient.

    Raises:
        OptionError: the type is none of float32, bfloat16, float16, or the device does not have it.
        WeightsError: the model wants images that are not square.
    """

    def __init__(self, model: Any, tokenizer: Any, template: str, place: Place, *, recompute: bool = False) -> None:
        self._autocast = autocast(place, "clip")
        self.model = model.to(place.device).eval().requires_grad_(False)
        self._size = _side(model.visual.image_size)
        self._tokenizer = tokenizer
        self._template = template
        self._device = torch.device(place.device)
        self._framing = Framing.of(model.visual.preprocess_cfg, self._size)
        if recompute:
            model.visual.set_grad_checkpointing()
        mean, std = (torch.tensor(v).view(3, 1, 1) for v in (model.visual.image_mean, model.visual.image_std))
        self._mean, self._std = mean.to(self._device), std.to(self._device)

    @property
    def input_size(self) -> int:
        """Side of the square views, in pixels."""
        return self._size

    def view(self, image: Image) -> Views:
        """A whole picture as this model was shown it: resized, and cropped or padded, as its folder says."""
        return self._framing(image)

    def read(self, prompt: Prompt) -> Loss:
        """Encode the prompt; returns the loss of views (b, 3, S, S) as (b,): 1 - cosine, in [0, 2].

        Warns:
            UserWarning: the end of the prompt is cut; names the words.
        """
        line = self._template.replace("{prompt}", prompt.text)
        tokens = self._tokenizer([line])
        if cut := self._unread(line, tokens):
            warnings.warn(f"CLIP does not read the end of the prompt: '{cut}' is cut.", stacklevel=2)
        with torch.no_grad():
            text = functional.normalize(self.model.encode_text(tokens.to(self._device)), dim=-1)[0]

        def loss(views: Views) -> Losses:
            return 1 - self._see(views) @ text.to(views.dtype)

        return loss

    def _see(self, views: Views) -> Float[Tensor, "b e"]:
        if views.shape[1:] != (3, self._size, self._size):
            raise ValueError(f"views are (b, 3, {self._size}, {self._size}), not {tuple(views.shape)}")
        with self._autocast():
            features: Tensor = self.model.encode_image((views - self._mean) / self._std)
        return functional.normalize(features.to(views.dtype), dim=-1)

    def _unread(self, line: str, tokens: Tensor) -> str:
        """The words at the end that change no token: one way for all of open_clip's tokenizers."""
        words = line.split()
        read = len(words)
        while read > 1 and torch.equal(self._tokenizer([" ".join(words[: read - 1])]), tokens):
            read -= 1
        return " ".join(words[read:])


def _side(size: int | Sequence[int]) -> int:
    height, width = (size, size) if isinstance(size, int) else size
    if height != width:
        raise WeightsError(f"This CLIP wants images of {height} x {width} pixels; a referee's views are square.")
    return height
