"""What can be set about the grounding-VQA referee, and the checks that need no model library."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from referee.errors import OptionError, WeightsError
from referee.weights import check_folder

FILES = ("config.json", "model.safetensors", "tokenizer_config.json")
TOKENIZERS = (("tokenizer.json",), ("vocab.txt",), ("vocab.json", "merges.txt"))
"""One of these rows must be there too; ``preprocessor_config.json`` may be."""
KINDS = {"vqa": {"blip"}, "detector": {"owlv2", "owlvit"}}
"""``model_type`` that a folder's configuration may have."""


class Options(BaseModel):
    """The loss is ``attributes * L_VQA + relations * L_OWL``; a half without a folder does not play."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    vqa: Path | None = Field(default=None, description="folder of a transformers BlipForQuestionAnswering")
    detector: Path | None = Field(
        default=None, description="folder of a transformers Owlv2- or OwlViTForObjectDetection"
    )
    attributes: float = Field(default=1.0, ge=0, description="weight of the mean -log P(yes) over the phrases")
    relations: float = Field(default=1.0, ge=0, description="weight of the mean hinge over the relations")
    apart: float = Field(default=0.25, ge=0, le=1, description="how far apart centres should be, of the image's side")
    aside: float = Field(
        default=1.0, ge=0, description="weight of how far aside a thing lies that should be left, above ..."
    )
    temperature: float = Field(default=0.5, gt=0, description="of the softmax over the grid whose mean is a centre")
    vqa_size: int = Field(default=0, ge=0, description="side of BLIP's images; 0: the checkpoint's; T2I-CompBench: 480")

    @model_validator(mode="after")
    def _something_to_judge(self) -> Options:
        if self.attributes == self.relations == 0:
            raise ValueError("attributes and relations are both 0: nothing is left to judge by")
        return self


def check(options: Options) -> None:
    """Look at the files before anything is loaded.

    Raises:
        OptionError: no folder is given for a half that has a weight, or ``vqa_size`` is no multiple of the patch size.
        WeightsError: a file is missing, cut short, or of another kind of model.
    """
    if not ((options.vqa and options.attributes) or (options.detector and options.relations)):
        raise OptionError(
            "grounding-vqa has nothing to judge by: take a zoo's checkpoints (--zoo pocket), or say "
            "grounding-vqa:vqa=FOLDER, detector=FOLDER or both, each with a weight (attributes, relations) above 0."
        )
    for half, folder in (("vqa", options.vqa), ("detector", options.detector)):
        if folder is not None:
            config = _check_half(half, folder.expanduser())
            if half == "vqa":
                _check_size(options.vqa_size, config)


def _check_half(half: str, folder: Path) -> dict[str, Any]:
    mend = f"grounding-vqa:{half}=FOLDER wants a folder of transformers with {', '.join(FILES)} and a tokenizer."
    check_folder(folder, FILES, mend=mend)
    if not any(all((folder / name).is_file() for name in row) for row in TOKENIZERS):
        raise WeightsError(f"{folder} has no tokenizer: none of tokenizer.json, vocab.txt, vocab.json. {mend}")
    try:
        config: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        kind = config.get("model_type")
    except (ValueError, AttributeError) as error:
        raise WeightsError(f"{folder / 'config.json'} is no configuration: {error}. {mend}") from error
    if kind not in KINDS[half]:
        raise WeightsError(f"{folder} holds a model of type '{kind}', not {' or '.join(sorted(KINDS[half]))}. {mend}")
    return config


def _check_size(size: int, config: dict[str, Any]) -> None:
    vision = config.get("vision_config") or {}
    patch = vision.get("patch_size", 16)  # transformers' default, which old folders do not write down
    if size % patch:
        raise OptionError(f"vqa_size is {size}, which is no multiple of this BLIP's patches of {patch} pixels.")
