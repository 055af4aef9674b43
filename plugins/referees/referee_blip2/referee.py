"""The default referee: BLIP-2's matching and captioning losses of an image for a prompt, L_ITM + L_CG
(arXiv 2402.16305, Algorithm 1).

Frozen. The prompt is read once; each view is judged on its own.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from referee.contract import Image, Loss, Losses, Prompt, Views
from referee.hooks import Place
from referee.precision import autocast
from referee.resizing import resample
from referee_blip2.loss import caption_loss, matching_loss
from referee_blip2.model import Blip2, ImageEmbeds
from referee_blip2.options import Options
from referee_blip2.preprocess import clean, warn_cut


class Blip2Referee:
    """A `referee.contract.Referee`.

    Args:
        model: is moved to ``place``, frozen and set to evaluation mode.
        options: the weights of the losses, and whether to save memory.
        place: device, and type of the vision tower's matrix products; as in LAVIS the weights and the whole
            Q-Former stay float32.

    Raises:
        OptionError: the type is none of float32, bfloat16, float16, or the device does not have it.
    """

    def __init__(self, model: Blip2, options: Options, place: Place) -> None:
        self._autocast = autocast(place, "blip2")
        self.model = model.to(place.device).eval().requires_grad_(False)
        self._options = options
        self._device = torch.device(place.device)
        if options.recompute:
            model.recompute()

    @property
    def input_size(self) -> int:
        """Side of the square views, in pixels."""
        return self.model.image_size

    def view(self, image: Image) -> Views:
        """A whole picture as BLIP-2 was shown it: bicubic, squeezed to a square (LAVIS, ``BlipImageEvalProcessor``)."""
        return resample(image, self.input_size, self.input_size)

    def read(self, prompt: Prompt) -> Loss:
        """Tokenize the prompt; returns the loss of views (b, 3, S, S) as (b,), at least 0.

        Warns:
            UserWarning: the end of the prompt is cut; names the words.

        Raises:
            PromptError: nothing is left of the prompt without its punctuation.
        """
        ids = self.tokenize(prompt.text)
        with torch.no_grad():
            text = self.model.text_features(ids, torch.ones_like(ids)) if self._options.itc else None

        def loss(views: Views) -> Losses:
            return self._judge(self._see(views), ids.expand(len(views), -1), text)

        return loss

    def tokenize(self, text: str) -> Int[Tensor, "1 T"]:
        """Ids of the processed prompt with [CLS] and [SEP], at most 32; no padding."""
        text = clean(text)
        tokenizer = self.model.tokenizer
        most = min(self.model.max_tokens, tokenizer.model_max_length)
        read = tokenizer(text, truncation=True, max_length=most, return_offsets_mapping=True, return_tensors="pt")
        ids: Tensor = read.input_ids
        seen = int(read.offset_mapping[0, :, 1].max())
        if seen < len(text):
            # A word of which only the first pieces are read counts as cut.
            start = seen if text[seen] == " " else text.rfind(" ", 0, seen) + 1
            warn_cut(text[start:].strip(), f"it keeps {most - 2} word pieces")
        return ids.to(self._device)

    def _see(self, views: Views) -> ImageEmbeds:
        if views.shape[1:] != (3, self.input_size, self.input_size):
            # transformers would take a smaller image and give its patches the wrong positions.
            size = self.input_size
            raise ValueError(f"views are (b, 3, {size}, {size}), not {tuple(views.shape)}")
        with self._autocast():
            embeds = self.model.vision(self.model.normalise(views))
        return embeds.to(self.model.network.query_tokens.dtype)

    def _judge(self, embeds: ImageEmbeds, ids: Int[Tensor, "b T"], text: Float[Tensor, "1 e"] | None) -> Losses:
        """The weighted sum; what has weight 0 is not computed."""
        model, options = self.model, self._options
        mask, caption = torch.ones_like(ids), model.opened(ids)  # one prompt for all: nothing is padded
        total = embeds.new_zeros(len(embeds))
        queries = None
        if options.itm and options.cg:
            run = model.both(embeds, ids, mask, caption, mask)
            queries = run.queries
            total = total + options.itm * matching_loss(run.itm)
            total = total + options.cg * caption_loss(run.caption, caption, mask)
        elif options.itm:
            total = total + options.itm * matching_loss(model.itm_logits(embeds, ids, mask))
        elif options.cg:
            logits = model.caption_logits(embeds, caption, mask)
            total = total + options.cg * caption_loss(logits, caption, mask)
        if text is not None:
            images = model.image_features(model.queries(embeds) if queries is None else queries)
            total = total + options.itc * (1 - (images @ text[0]).amax(dim=1))
        return total
