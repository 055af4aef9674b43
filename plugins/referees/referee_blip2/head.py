"""The caption head of BLIP-2's first stage: what transformers' image-text retrieval class leaves out.

It is BERT's prediction head, as LAVIS trains it (Li et al. 2023, "BLIP-2", section 3.1, image-grounded text
generation): dense, exact GELU, LayerNorm, and a decoder whose matrix is the word embeddings. That matrix is
lent at each call and never stored twice, so a full-size head is 2.5 MB.
"""

from __future__ import annotations

from pathlib import Path

import torch
from jaxtyping import Float
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from referee.errors import WeightsError
from referee.weights import check_safetensors

FILE = "caption_head.safetensors"
"""Stands beside ``model.safetensors``; holds dense.*, LayerNorm.* and bias."""


class CaptionHead(nn.Module):
    """Hidden states to scores of the next word piece.

    Args:
        width: of the Q-Former.
        vocabulary: number of word pieces, [DEC] included.
    """

    def __init__(self, width: int, vocabulary: int) -> None:
        super().__init__()
        self.dense = nn.Linear(width, width)
        self.LayerNorm = nn.LayerNorm(width, eps=1e-12)
        self.bias = nn.Parameter(torch.zeros(vocabulary))
        nn.init.normal_(self.dense.weight, std=0.02)
        nn.init.zeros_(self.dense.bias)

    def forward(self, hidden: Float[Tensor, "b T d"], words: Float[Tensor, "V d"]) -> Float[Tensor, "b T V"]:
        """Logits of the next word piece at each position; ``words`` is the matrix of word embeddings."""
        hidden = self.LayerNorm(functional.gelu(self.dense(hidden)))
        return functional.linear(hidden, words, self.bias)

    def save(self, folder: Path) -> None:
        """Write ``folder/caption_head.safetensors``."""
        state = {name: tensor.detach().cpu().contiguous() for name, tensor in self.state_dict().items()}
        save_file(state, folder / FILE)

    @classmethod
    def load(cls, folder: Path) -> CaptionHead:
        """Read ``folder/caption_head.safetensors`` as float32.

        Raises:
            WeightsError: it lacks a tensor, has one too many, or their sizes do not fit together.
        """
        check_safetensors(folder / FILE, mend="Convert the checkpoint again.")
        state = load_file(folder / FILE)
        try:
            head = cls(state["dense.weight"].shape[0], state["bias"].shape[0])
            head.load_state_dict(state)
        except (KeyError, RuntimeError) as error:
            message = f"{folder / FILE} is not a caption head: {error}. Convert the checkpoint again."
            raise WeightsError(message) from error
        return head
