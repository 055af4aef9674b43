"""The referee that looks thing by thing: is each phrase there, and do they lie as the prompt says?

Frozen. The prompt is read once; each view is judged on its own.
"""

from __future__ import annotations

import logging
import warnings
from contextlib import AbstractContextManager, nullcontext

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from referee.contract import Loss, Losses, Prompt, Views
from referee.errors import NothingToJudge, OptionError
from referee.hooks import Place
from referee_grounding_vqa.detector import Detector
from referee_grounding_vqa.loss import attribute_loss, relation_loss, soft_centres
from referee_grounding_vqa.options import Options
from referee_grounding_vqa.phrases import Asked, ask
from referee_grounding_vqa.vqa import Ids, Vqa

HALVES = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}
log = logging.getLogger(__name__)


class GroundingVqaReferee:
    """A `referee.contract.Referee`.

    Args:
        vqa: for the attributes; None leaves them out.
        detector: for the relations; None leaves them out.
        options: weights, distances, temperature.
        place: device, and type of the vision towers' matrix products; weights and text stay float32.

    Raises:
        OptionError: the type is none of float32, bfloat16, float16; or there is no model.
    """

    def __init__(self, vqa: Vqa | None, detector: Detector | None, options: Options, place: Place) -> None:
        if place.dtype not in HALVES:
            raise OptionError(f"grounding-vqa computes in {', '.join(HALVES)}, not in {place.dtype!r}.")
        if vqa is None and detector is None:
            raise OptionError("grounding-vqa needs a BLIP-VQA, a detector or both; none is given.")
        self.vqa = vqa
        self.detector = detector
        for model in (vqa, detector):
            if model is not None:
                model.to(place.device).eval().requires_grad_(False)
        self._options = options
        self._device = torch.device(place.device)
        self._half = HALVES[place.dtype]
        self._vqa_size = 0 if vqa is None else options.vqa_size or vqa.image_size

    @property
    def input_size(self) -> int:
        """Side of the square views, in pixels: the larger of the two models'; the other's is made of it."""
        return max(self._vqa_size, self.detector.image_size if self.detector else 0)

    def read(self, prompt: Prompt) -> Loss:
        """Make out the phrases and relations; returns the loss of views (b, 3, S, S) as (b,), at least 0.

        A prompt without a relation is judged by its attributes alone, and the detector is not run.

        Warns:
            UserWarning: a relation is between two things of one phrase, which cannot be told apart: it is left out.

        Raises:
            PromptError: no phrase can be made out.
            NothingToJudge: nothing is left to judge by.
        """
        asked = self.ask(prompt)
        questions = self._questions(asked) if self.vqa and self._options.attributes else []
        names, queries, pairs = self._places(asked) if self.detector and self._options.relations else ([], None, [])
        if not questions and not pairs:
            mend = "say attributes=1" if self.vqa else "give it a BLIP-VQA (grounding-vqa:vqa=FOLDER)"
            raise NothingToJudge(
                f"grounding-vqa has nothing to judge '{prompt.text}' by: there is no relation in it of two things that "
                f"look different ({len(asked.phrases)} phrases, by {asked.source}), and attributes do not play. For "
                f'those {mend}; or give relations as data: Prompt(text, relations=(("a dog", "left of", "a car"),)).'
            )

        def loss(views: Views) -> Losses:
            self._check(views)
            total = views.new_zeros(len(views))
            if questions:
                total = total + self._options.attributes * self._attributes(views, questions)
            if pairs and queries is not None:
                centres = dict(zip(names, self._centres(views, queries).unbind(1), strict=True))
                hinges = [
                    relation_loss(centres[a], centres[b], r, self._options.apart, self._options.aside)
                    for a, r, b in pairs
                ]
                total = total + self._options.relations * torch.stack(hinges).mean(0)
            return total

        return loss

    def ask(self, prompt: Prompt) -> Asked:
        """The phrases and relations that a prompt will be judged by, and where they come from; also logged.

        Raises:
            PromptError: no phrase can be made out.
        """
        asked = ask(prompt)
        log.info("phrases by %s: %s; relations: %s", asked.source, asked.phrases, asked.relations)
        return asked

    def _questions(self, asked: Asked) -> list[Ids]:
        assert self.vqa
        return [self.vqa.ask(phrase).to(self._device) for phrase in asked.phrases]

    def _places(self, asked: Asked) -> tuple[list[str], Tensor | None, list[tuple[str, str, str]]]:
        """The phrases that stand in a relation, their queries, and the relations."""
        pairs = [(a, relation, b) for a, relation, b in asked.relations if a != b]
        for a, relation, b in asked.relations:
            if a == b:
                warnings.warn(
                    f"'{a} {relation} {b}' is left out: two things of one phrase look the same.", stacklevel=3
                )
        names = list(dict.fromkeys(phrase for a, _, b in pairs for phrase in (a, b)))
        if not names or self.detector is None:
            return [], None, []
        with torch.no_grad():
            return names, self.detector.queries(names), pairs

    def _check(self, views: Views) -> None:
        size = self.input_size
        if views.shape[1:] != (3, size, size):
            raise ValueError(f"views are (b, 3, {size}, {size}), not {tuple(views.shape)}")

    def _attributes(self, views: Views, questions: list[Ids]) -> Losses:
        assert self.vqa
        with self._autocast():
            embeds = self.vqa.see(resized(views, self._vqa_size, "bicubic"))
        return attribute_loss(self.vqa.answers(embeds.to(views.dtype), questions))

    def _centres(self, views: Views, queries: Tensor) -> Float[Tensor, "b k 2"]:
        assert self.detector
        with self._autocast():
            grid = self.detector.features(resized(views, self.detector.image_size, "bilinear"))
        logits, boxes = self.detector.heads(grid.to(views.dtype), queries)
        return soft_centres(logits, boxes, self._options.temperature)

    def _autocast(self) -> AbstractContextManager[object]:
        return torch.autocast(self._device.type, self._half) if self._half else nullcontext()


def resized(views: Views, size: int, mode: str) -> Float[Tensor, "b 3 s s"]:
    """Views at a model's own size: bicubic for BLIP, bilinear for OWL, as their processors do; anti-aliased."""
    if views.shape[-1] == size:
        return views
    return functional.interpolate(views, (size, size), mode=mode, antialias=True, align_corners=False)
