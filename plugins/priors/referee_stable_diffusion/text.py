"""Prompts to the text encoder's hidden states, as Stable Diffusion reads them."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor


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
    def __call__(self, texts: Sequence[str]) -> Float[Tensor, "n tokens width"]:
        """The last hidden state of each text, padded to the encoder's full length.

        Warns:
            UserWarning: a text is longer than the encoder reads; it names the words that are cut.
        """
        ids = torch.stack([self._ids(text) for text in texts]).to(self.encoder.device)
        mask = None
        if getattr(self.encoder.config, "use_attention_mask", False):
            mask = torch.stack([self._mask(text) for text in texts]).to(ids.device)
        hidden: Tensor = self.encoder(ids, attention_mask=mask)[0]
        return hidden

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
