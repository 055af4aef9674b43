"""Prompts to what the UNet is told, as Stable Diffusion (one text encoder) and Stable Diffusion XL (two) read them."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Told:
    """Texts as the UNet takes them, one row each.

    Args:
        hidden: for its cross attention.
        pooled: of the whole text, beside the timestep: Stable Diffusion XL's alone.
    """

    hidden: Float[Tensor, "n tokens width"]
    pooled: Float[Tensor, "n pooled"] | None = None

    def to(self, like: Tensor) -> Told:
        """On another's device, in its dtype."""
        return Told(self.hidden.to(like), None if self.pooled is None else self.pooled.to(like))

    def rows(self, which: slice) -> Told:
        """Some of the texts."""
        return Told(self.hidden[which], None if self.pooled is None else self.pooled[which])


class NoTokenizer:
    """Stands for the tokenizer where only sizes are asked for: every text is padding."""

    model_max_length = 1 << 30

    def __call__(self, text: str, *, max_length: int = 1, **_: Any) -> Any:
        """Ids of no meaning."""
        return SimpleNamespace(input_ids=[0] * max_length, attention_mask=[1] * max_length)


class TextReader:
    """A CLIP tokenizer and text encoder.

    Args:
        tokenizer: transformers' CLIPTokenizer.
        encoder: transformers' CLIPTextModel, frozen.
    """

    def __init__(self, tokenizer: Any, encoder: Any) -> None:
        self.tokenizer, self.encoder = tokenizer, encoder
        self.length = min(int(tokenizer.model_max_length), int(encoder.config.max_position_embeddings))

    @torch.no_grad()
    def __call__(self, texts: Sequence[str]) -> Told:
        """The last hidden state of each text, padded to the encoder's full length.

        Warns:
            UserWarning: a text is longer than the encoder reads; it names the words that are cut.
        """
        ids = self.ids(texts)
        mask = None
        if getattr(self.encoder.config, "use_attention_mask", False):
            mask = torch.stack([self._mask(text) for text in texts]).to(ids.device)
        return Told(self.encoder(ids, attention_mask=mask)[0])

    def ids(self, texts: Sequence[str]) -> Int[Tensor, "n tokens"]:
        """Tokens of each text, padded to the encoder's full length, on its device; warns as `__call__` does."""
        return torch.stack([self._ids(text) for text in texts]).to(self.encoder.device)

    def _ids(self, text: str) -> Int[Tensor, " tokens"]:
        whole = self.tokenizer(text, verbose=False).input_ids
        if len(whole) > self.length:
            cut = self.tokenizer.decode(whole[self.length - 1 : -1]).strip()
            warnings.warn(
                f"The prior reads {self.length - 2} tokens of a prompt; it will not see: '{cut}'. Shorten the prompt.",
                UserWarning,
                stacklevel=4,
            )
        return torch.as_tensor(self._padded(text).input_ids)

    def _mask(self, text: str) -> Int[Tensor, " tokens"]:
        return torch.as_tensor(self._padded(text).attention_mask)

    def _padded(self, text: str) -> Any:
        return self.tokenizer(text, padding="max_length", max_length=self.length, truncation=True)


class PairReader:
    """Stable Diffusion XL's two text encoders side by side (Podell et al., arXiv 2307.01952, section 2.1).

    Args:
        first: with transformers' CLIPTextModel.
        second: with CLIPTextModelWithProjection, which pools.
        empty_is_zero: the empty text is all zeros instead of what the encoders make of it, as the checkpoint's
            ``force_zeros_for_empty_prompt`` asks for.
    """

    def __init__(self, first: TextReader, second: TextReader, empty_is_zero: bool = True) -> None:
        self.first, self.second, self.empty_is_zero = first, second, empty_is_zero

    @torch.no_grad()
    def __call__(self, texts: Sequence[str]) -> Told:
        """The last but one hidden states of both encoders, joined along the width, and the second's pooled text.

        Warns:
            UserWarning: a text is longer than the encoders read; it names the words that are cut.
        """
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # both read the same, and the second says it
            ids = self.first.ids(texts)
        one = self.first.encoder(ids, output_hidden_states=True)
        two = self.second.encoder(self.second.ids(texts), output_hidden_states=True)
        hidden = torch.cat([one.hidden_states[-2], two.hidden_states[-2]], dim=-1)
        pooled: Tensor = two.text_embeds
        if self.empty_is_zero:
            empty = torch.tensor([not text for text in texts], device=hidden.device)[:, None]
            hidden, pooled = hidden.masked_fill(empty[..., None], 0), pooled.masked_fill(empty, 0)
        return Told(hidden, pooled)
