"""The models that measure, each loaded when a picture first needs it; and whose kin they are."""

from __future__ import annotations

import re
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from referee.bench.contract import Column
from referee.hooks import Place
from referee_compbench.options import CompBenchOptions, GenEvalOptions, check_model, folder_of

if TYPE_CHECKING:
    from referee_compbench.blip import Answers
    from referee_compbench.clip import Similarity
    from referee_compbench.owl import Finder
    from referee_compbench.vlm import YesNo

YES = "p-yes"
"""The vision-language model's column."""


class Models:
    """What a bench looks at pictures with.

    Args:
        options: where the models are.
        place: device; the type is the vision-language model's alone, all others compute in float32.
    """

    def __init__(self, options: CompBenchOptions | GenEvalOptions, place: Place) -> None:
        self._options = options
        self._place = place

    @cached_property
    def vqa(self) -> Answers:
        """BLIP-VQA; only T2I-CompBench has one."""
        from referee_compbench.blip import Answers

        assert isinstance(self._options, CompBenchOptions)
        return Answers.load(folder_of(self._options.vqa, "vqa"), self._options.vqa_size, self._place.device)

    @cached_property
    def owl(self) -> Finder:
        """The detector."""
        from referee_compbench.owl import Finder

        options = self._options
        return Finder.load(folder_of(options.detector, "detector"), options.line, self._place.device)

    @cached_property
    def clip(self) -> Similarity:
        """CLIP."""
        from referee_compbench.clip import Similarity

        return Similarity.load(self._options.clip, self._place.device)

    @cached_property
    def vlm(self) -> YesNo:
        """The vision-language model."""
        from referee_compbench.vlm import YesNo

        options, place = self._options, self._place
        return YesNo.load(folder_of(options.vlm, "vlm"), options.question, place.device, place.dtype)


def yes_column(vlm: Path | str) -> dict[str, Column]:
    """P(Yes) of a vision-language model; nothing if there is none.

    Raises:
        WeightsError: the model is not on this machine.
    """
    if not vlm:
        return {}
    kind = str(check_model(vlm, "vlm").get("model_type", ""))
    return {YES: Column(f"P(Yes) of {kind}", proportion=True, families=(family(kind),))}


def family(model_type: str) -> str:
    """Whose kin a model is, of the name that transformers gives it.

    >>> family("qwen2_5_vl"), family("blip-2"), family("instructblip")
    ('qwen', 'blip', 'blip')
    """
    if "blip" in model_type:
        return "blip"
    found = re.match("[a-z]+", model_type.lower())
    return found[0] if found else model_type
