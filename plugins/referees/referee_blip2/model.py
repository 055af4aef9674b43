"""BLIP-2's first stage, whole: transformers' ``Blip2ForImageTextRetrieval``, a caption head, the tokenizer.

Everything is differentiable with respect to pixels and parameters: the referee takes the gradient to pixels,
training the one to parameters. The forward of the transformers class is never called: it may cut the first
ids off the text. Numbers agree with LAVIS, the reference implementation, to rounding
(``tests/plugins/test_blip2_parity.py``).
"""

from __future__ import annotations

import copy
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint
from transformers import AutoTokenizer

from referee.errors import WeightsError
from referee.weights import FAULTS
from referee_blip2 import masks
from referee_blip2.architecture import Attention, build, load_network, quiet, read_config
from referee_blip2.head import CaptionHead
from referee_blip2.preprocess import CLIP_MEAN, CLIP_STD, Triple, load_normalisation, save_normalisation
from referee_blip2.vocabulary import NoTokenizer

Pixels = Float[Tensor, "b 3 S S"]
ImageEmbeds = Float[Tensor, "b P v"]
"""Patches of the image as the Q-Former sees them, after the vision tower's last LayerNorm."""
Ids = Int[Tensor, "b T"]
Mask = Int[Tensor, "b T"]
"""1 where there is a token, 0 where there is padding."""

MAX_TOKENS = 32
"""Of a prompt, [CLS] and [SEP] included: what BLIP-2 was trained with."""
LAST_EPS = 1e-5
"""Epsilon of the vision tower's last LayerNorm in LAVIS (its ln_vision), from which all published checkpoints
come; transformers takes the blocks' 1e-6. ``vision_config.post_layernorm_eps`` overrides it."""


class Both(NamedTuple):
    """What one packed run of the Q-Former gives."""

    itm: Float[Tensor, "b 2"]
    """Logits of not matched, matched."""
    caption: Float[Tensor, "b T V"]
    """Logits of the next token at each position of the caption."""
    queries: Float[Tensor, "b Q d"]
    """Hidden states of queries that saw the image and no text: what the contrastive similarity is made of."""


class Blip2(nn.Module):
    """Judges how well images match texts, three ways.

    Args:
        network: the transformers model, built with ``use_qformer_text_input=True``.
        head: the caption head, for the same vocabulary.
        tokenizer: a BERT tokenizer with the mark that opens a caption: its bos token, else [DEC].
        mean: per channel, taken off images in [0, 1].
        std: per channel, divided by.

    Raises:
        WeightsError: the three do not fit together.
    """

    mean: Float[Tensor, "3 1 1"]
    std: Float[Tensor, "3 1 1"]

    def __init__(
        self,
        network: Any,
        head: CaptionHead,
        tokenizer: Any,
        mean: Triple = CLIP_MEAN,
        std: Triple = CLIP_STD,
    ) -> None:
        super().__init__()
        rows = network.embeddings.word_embeddings.num_embeddings
        if head.bias.shape[0] != rows:
            count = head.bias.shape[0]
            raise WeightsError(f"The caption head is for {count} tokens, the word embeddings are {rows}.")
        self.network = network
        self.head = head
        self.tokenizer = tokenizer
        self.normalisation = mean, std
        self.decode_id = _decode_id(tokenizer, rows)
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)
        vision = network.config.vision_config
        network.vision_model.post_layernorm.eps = getattr(vision, "post_layernorm_eps", LAST_EPS)

    @classmethod
    def fresh(
        cls,
        config: Any,
        tokenizer: Any,
        *,
        attention: Attention = "sdpa",
        mean: Triple = CLIP_MEAN,
        std: Triple = CLIP_STD,
    ) -> Blip2:
        """Random weights, for training: draws from torch's global generator.

        transformers' own start cannot be trained from: it leaves the queries all zero, so equal for ever, and
        the vision tower at a standard deviation of 1e-10. Both start at ``config.initializer_range`` here.
        """
        config = copy.deepcopy(config)
        config.vision_config.initializer_range = config.initializer_range
        network, head = build(config, attention)
        nn.init.normal_(network.query_tokens, std=config.initializer_range)
        return cls(network, head, tokenizer, mean, std)

    @classmethod
    def load(cls, folder: str | Path, *, attention: Attention = "sdpa") -> Blip2:
        """Read a folder as `save` writes it, in float32 whatever it is stored in, in evaluation mode.

        Raises:
            WeightsError: tensors are missing, too many or of the wrong size.
        """
        folder = Path(folder)
        network, tokenizer = load_network(folder, attention), load_tokenizer(folder)
        return cls(network, CaptionHead.load(folder), tokenizer, *load_normalisation(folder)).eval()

    @classmethod
    def outline(cls, folder: str | Path, *, attention: Attention = "sdpa") -> Blip2:
        """As a folder's config.json says, with weights of no meaning; without its tokenizer, if it has none.

        Raises:
            WeightsError: the configuration cannot be read.
        """
        folder = Path(folder)
        config = read_config(folder)
        network, head = build(config, attention)
        network.float()  # whatever it is stored in
        whole = (folder / "tokenizer.json").is_file()
        tokenizer = load_tokenizer(folder) if whole else NoTokenizer(config.qformer_config.vocab_size)
        return cls(network, head, tokenizer, *load_normalisation(folder)).eval()

    def save(self, folder: str | Path) -> None:
        """Write a folder that transformers reads too, with ``caption_head.safetensors`` beside its files."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self.network.config.vision_config.post_layernorm_eps = self.network.vision_model.post_layernorm.eps
        with quiet():
            self.network.save_pretrained(folder, max_shard_size="1TB")
        self.head.save(folder)
        self.tokenizer.save_pretrained(folder)
        save_normalisation(folder, *self.normalisation, self.image_size)

    def recompute(self) -> None:
        """From now on keep one activation per block of the vision tower and compute the rest again for the gradient.

        Memory for time: a third more work in the tower, for the same gradient to the last bit. transformers' own
        switch would act in training mode alone.
        """
        for layer in self.network.vision_model.encoder.layers:
            layer.forward = partial(checkpoint, layer.forward, use_reentrant=False, preserve_rng_state=False)

    @property
    def image_size(self) -> int:
        """Side of the square images, in pixels."""
        size: int = self.network.config.vision_config.image_size
        return size

    @property
    def max_tokens(self) -> int:
        """How many tokens of a text are read, [CLS] and [SEP] included."""
        positions: int = self.network.config.qformer_config.max_position_embeddings
        return min(MAX_TOKENS, positions)

    def normalise(self, images: Pixels) -> Pixels:
        """Images in [0, 1] to what `vision` takes."""
        return (images - self.mean) / self.std

    def opened(self, ids: Ids) -> Ids:
        """A caption's ids with [DEC] in the place of [CLS]."""
        return torch.cat([torch.full_like(ids[:, :1], self.decode_id), ids[:, 1:]], dim=1)

    def vision(self, pixel_values: Pixels) -> ImageEmbeds:
        """Normalised images to patch embeddings."""
        embeds: Tensor = self.network.vision_model(pixel_values=pixel_values).last_hidden_state
        return embeds

    def itm_logits(self, image_embeds: ImageEmbeds, ids: Ids, mask: Mask) -> Float[Tensor, "b 2"]:
        """Image-text matching: logits of not matched and matched, the mean over the queries."""
        count = self._queries
        hidden = self._run(self._embed(ids, count), count, masks.matching(count, mask), image_embeds)
        return self._match(hidden[:, :count])

    def caption_logits(self, image_embeds: ImageEmbeds, ids: Ids, mask: Mask) -> Float[Tensor, "b T V"]:
        """Image-grounded text generation: logits of token t + 1 at position t.

        Args:
            ids: opened by [DEC], see `opened`.
        """
        count = self._queries
        hidden = self._run(self._embed(ids, count), count, masks.captioning(count, mask), image_embeds)
        return self._words(hidden[:, count:])

    def both(self, image_embeds: ImageEmbeds, ids: Ids, mask: Mask, caption_ids: Ids, caption_mask: Mask) -> Both:
        """`itm_logits` and `caption_logits` of one run on the sequence [Q_itm, Q_cap, T_itm, T_cap].

        The image's keys and values are made once: a sixth less work than two runs, for the same numbers.
        """
        count = self._queries
        allowed = masks.packed(count, mask, caption_mask)
        texts = self._embed_texts(ids), self._embed_texts(caption_ids)
        queries = self.network.query_tokens.expand(len(ids), -1, -1)
        hidden = self._run(torch.cat([queries, queries, *texts], dim=1), 2 * count, allowed, image_embeds)
        itm, own, _, caption = hidden.split([count, count, ids.shape[1], caption_ids.shape[1]], dim=1)
        return Both(self._match(itm), self._words(caption), own)

    def itc(self, image_embeds: ImageEmbeds, ids: Ids, mask: Mask) -> Float[Tensor, " b"]:
        """Image-text contrast: cosine in [-1, 1] of the text and the query nearest to it, pair by pair."""
        images, texts = self.image_features(self.queries(image_embeds)), self.text_features(ids, mask)
        return torch.einsum("bqe,be->bq", images, texts).amax(dim=1)

    def queries(self, image_embeds: ImageEmbeds) -> Float[Tensor, "b Q d"]:
        """Hidden states of the queries that see the image and no text."""
        queries = self.network.query_tokens.expand(len(image_embeds), -1, -1)
        return self._run(queries, self._queries, None, image_embeds)

    def image_features(self, queries: Float[Tensor, "b Q d"]) -> Float[Tensor, "b Q e"]:
        """The queries' hidden states as unit vectors in the space shared with texts."""
        return functional.normalize(self.network.vision_projection(queries), dim=-1)

    def text_features(self, ids: Ids, mask: Mask) -> Float[Tensor, "b e"]:
        """Texts, opened by [CLS], as unit vectors; no image is seen."""
        hidden = self._run(self._embed_texts(ids), 0, masks.matching(0, mask), None)
        return functional.normalize(self.network.text_projection(hidden[:, 0]), dim=-1)

    @property
    def _queries(self) -> int:
        count: int = self.network.query_tokens.shape[1]
        return count

    def _embed_texts(self, ids: Ids) -> Float[Tensor, "b T d"]:
        embedded: Tensor = self.network.embeddings(input_ids=ids)  # positions count from 0 in each text
        return embedded

    def _embed(self, ids: Ids, count: int) -> Float[Tensor, "b S d"]:
        return torch.cat([self.network.query_tokens.expand(len(ids), -1, -1), self._embed_texts(ids)], dim=1)

    def _run(
        self,
        embedded: Float[Tensor, "b S d"],
        queries: int,
        allowed: masks.Allowed | None,
        image: ImageEmbeds | None,
    ) -> Float[Tensor, "b S d"]:
        mask = None if allowed is None else masks.additive(allowed, embedded.dtype)
        hidden: Tensor = self.network.qformer(
            query_embeds=embedded, query_length=queries, attention_mask=mask, encoder_hidden_states=image
        ).last_hidden_state
        return hidden

    def _match(self, hidden: Float[Tensor, "b Q d"]) -> Float[Tensor, "b 2"]:
        logits: Tensor = self.network.itm_head(hidden)
        return logits.mean(dim=1)

    def _words(self, hidden: Float[Tensor, "b T d"]) -> Float[Tensor, "b T V"]:
        logits: Tensor = self.head(hidden, self.network.embeddings.word_embeddings.weight)
        return logits


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer in a folder; WeightsError if it cannot be loaded."""
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except FAULTS as error:
        raise WeightsError(f"The tokenizer in {folder} cannot be loaded: {error}") from error


def _decode_id(tokenizer: Any, rows: int) -> int:
    number: int = tokenizer.convert_tokens_to_ids(tokenizer.bos_token or "[DEC]")
    if number is None or number >= rows or number == tokenizer.unk_token_id:
        raise WeightsError("The tokenizer has no [DEC] among the word embeddings: nothing opens a caption.")
    return number
