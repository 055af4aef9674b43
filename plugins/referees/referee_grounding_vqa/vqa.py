"""BLIP's question answering as a yes-no score: T2I-CompBench's BLIP-VQA (Huang et al. 2023, arXiv 2307.06350, section
4.1), differentiable, on transformers' ``BlipForQuestionAnswering`` (Li et al. 2022, arXiv 2201.12086).

The forward of the transformers class is never called: it gives no logits. Four things that the class or its processor
do otherwise than the benchmark, and that are put right here:

1. a question opens with [ENC]; the tokenizer puts [CLS] there;
2. questions run unpadded: transformers drops the padding mask in cross-attention, so that a padded question's score
   depends on its neighbours;
3. the vision tower's LayerNorms have an epsilon of 1e-6; transformers' default is 1e-5;
4. images are 480 px a side; transformers' processor makes them 384. Both can be had; at 480 the position table of a
   384 px checkpoint is interpolated.
"""

from __future__ import annotations

import copy
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import BlipConfig, BlipForQuestionAnswering

from referee.errors import WeightsError
from referee.weights import FAULTS
from referee_grounding_vqa.preprocess import (
    Normalisation,
    load_network,
    load_normalisation,
    load_tokenizer,
    quiet,
    save_normalisation,
)

Pixels = Float[Tensor, "b 3 S S"]
ImageEmbeds = Float[Tensor, "b P v"]
Ids = Int[Tensor, "1 T"]

EPS = 1e-6
"""Of the vision tower's LayerNorms in BLIP's own code, from which all published checkpoints come."""
MAX_WORDS, MAX_TOKENS = 50, 35
"""Of a question, as the benchmark cuts it."""


def question(phrase: str) -> str:
    """A phrase as the benchmark asks for it: lower case, without ``.!"()*#:;~``, and a question mark.

    >>> question("A red circle (small)")
    'a red circle small?'
    """
    words = re.sub(r'[.!"()*#:;~]', "", phrase.lower()).split()
    return " ".join(words[:MAX_WORDS]) + "?"


class Vqa(nn.Module):
    """Answers whether a phrase is in an image.

    Args:
        network: the transformers model.
        tokenizer: BERT's; [DEC] and [ENC] may be missing from it, see `marks`.
        normalisation: of images in [0, 1].

    Raises:
        WeightsError: the tokenizer and the word embeddings do not fit together.
    """

    mean: Float[Tensor, "3 1 1"]
    std: Float[Tensor, "3 1 1"]

    def __init__(self, network: Any, tokenizer: Any, normalisation: Normalisation) -> None:
        super().__init__()
        self.network = network
        self.tokenizer = tokenizer
        self.normalisation = normalisation
        self.decode_id, self.encode_id = marks(tokenizer, network.config.text_config)
        self.yes_id, self.no_id = (_answer(tokenizer, word) for word in ("yes", "no"))
        self.register_buffer("mean", torch.tensor(normalisation.mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(normalisation.std).view(3, 1, 1), persistent=False)

    @classmethod
    def fresh(cls, config: Any, tokenizer: Any, normalisation: Normalisation) -> Vqa:
        """Random weights, for training. transformers' own start of the vision tower has a deviation of 1e-10 and
        cannot be trained from: it starts at ``config.initializer_range`` here."""
        config = copy.deepcopy(config)
        config.vision_config.layer_norm_eps = EPS
        config.vision_config.initializer_range = config.initializer_range
        return cls(BlipForQuestionAnswering(config), tokenizer, normalisation)

    @classmethod
    def load(cls, folder: str | Path, *, weights: bool = True) -> Vqa:
        """Read a transformers folder, in float32 whatever it is stored in, in evaluation mode; or all but its weights.

        Raises:
            WeightsError: tensors are missing, too many or of the wrong size, or the tokenizer does not fit.
        """
        folder = Path(folder)
        try:
            config = BlipConfig.from_pretrained(folder, local_files_only=True)
            config.vision_config.layer_norm_eps = EPS
            network = load_network(BlipForQuestionAnswering, folder, config, weights)
            tokenizer = load_tokenizer(folder, weights)
        except (*FAULTS, StrictDataclassError) as error:
            raise WeightsError(f"The BLIP-VQA in {folder} cannot be loaded: {error}") from error
        return cls(network, tokenizer, load_normalisation(folder)).eval()

    def save(self, folder: str | Path) -> None:
        """Write a folder that transformers reads too."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        with quiet():
            self.network.save_pretrained(folder, max_shard_size="1TB")
        self.tokenizer.save_pretrained(folder)
        save_normalisation(folder, self.normalisation, self.image_size, "BlipImageProcessor", resample=3)

    @property
    def image_size(self) -> int:
        """Side of the images that the position table is for, in pixels."""
        size: int = self.network.config.vision_config.image_size
        return size

    @property
    def patch_size(self) -> int:
        """Side of a patch, in pixels."""
        size: int = self.network.config.vision_config.patch_size
        return size

    def ask(self, phrase: str) -> Ids:
        """The ids of `question`, opened by [ENC], closed by [SEP], never padded.

        Warns:
            UserWarning: the end of the phrase is cut; names the phrase.
        """
        text = question(phrase)
        ids: Tensor = self.tokenizer(text, return_tensors="pt").input_ids
        if ids.shape[1] > MAX_TOKENS or len(phrase.split()) > MAX_WORDS:
            warnings.warn(
                f"BLIP-VQA reads {MAX_TOKENS} tokens of a question; the end of '{text}' is cut.", stacklevel=2
            )
            ids = torch.cat([ids[:, : MAX_TOKENS - 1], ids[:, -1:]], dim=1)
        return torch.cat([torch.full_like(ids[:, :1], self.encode_id), ids[:, 1:]], dim=1)

    def see(self, images: Pixels) -> ImageEmbeds:
        """Images in [0, 1], of any multiple of the patch size, to patch embeddings."""
        pixels = (images - self.mean.to(images.dtype)) / self.std.to(images.dtype)
        embeds: Tensor = self.network.vision_model(pixel_values=pixels, interpolate_pos_encoding=True).last_hidden_state
        return embeds

    def answers(self, embeds: ImageEmbeds, questions: Sequence[Ids]) -> Float[Tensor, "b q"]:
        """log p(yes) - log p(no) of each question for each image; its sigmoid is the benchmark's score."""
        columns: dict[int, Tensor] = {}
        for length in {ids.shape[1] for ids in questions}:  # of one length together: nothing is padded
            chosen = [i for i, ids in enumerate(questions) if ids.shape[1] == length]
            rows = torch.cat([questions[i] for i in chosen]).repeat(len(embeds), 1)
            logits = self.first_words(embeds.repeat_interleave(len(chosen), 0), rows)
            found = (logits[:, self.yes_id] - logits[:, self.no_id]).view(len(embeds), len(chosen))
            columns |= dict(zip(chosen, found.unbind(1), strict=True))
        return torch.stack([columns[i] for i in range(len(questions))], dim=1)

    def first_words(self, embeds: Float[Tensor, "r P v"], ids: Int[Tensor, "r T"]) -> Float[Tensor, "r V"]:
        """Logits of an answer's first word for pairs of image and question, all questions of one length."""
        read = self.network.text_encoder(
            input_ids=ids, attention_mask=torch.ones_like(ids), encoder_hidden_states=embeds
        ).last_hidden_state
        start = torch.full_like(ids[:, :1], self.decode_id)
        logits: Tensor = self.network.text_decoder(input_ids=start, encoder_hidden_states=read).logits[:, 0]
        return logits


def marks(tokenizer: Any, config: Any) -> tuple[int, int]:
    """Ids of [DEC] and [ENC]. BLIP adds them to BERT's vocabulary as the last two; published tokenizers lack them.

    Raises:
        WeightsError: there is no such row among the word embeddings.
    """
    decode: int = config.bos_token_id
    known: int | None = tokenizer.get_vocab().get("[ENC]")
    encode = decode + 1 if known is None else known
    if not 0 <= max(decode, encode) < config.vocab_size or len(tokenizer) > config.vocab_size:
        raise WeightsError(
            f"The word embeddings have {config.vocab_size} rows; [DEC] would be {decode}, [ENC] {encode}, and the "
            f"tokenizer has {len(tokenizer)} entries: not the parts of one BLIP-VQA."
        )
    return decode, encode


def _answer(tokenizer: Any, word: str) -> int:
    number: int | None = tokenizer.get_vocab().get(word)
    if number is None:
        raise WeightsError(f"The tokenizer has no token '{word}': a yes-no question could not be answered.")
    return number
