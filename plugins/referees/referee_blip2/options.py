"""What can be set about the BLIP-2 referee, and the checks that need no model library."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from referee.errors import OptionError
from referee.weights import check_folder

FILES = (
    "config.json",
    "model.safetensors",
    "caption_head.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
)
"""What a checkpoint folder must hold; ``preprocessor_config.json`` may be there too."""


class Options(BaseModel):
    """The paper's referee loss is ``itm * L_ITM + cg * L_CG``, with both weights 1."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    model: Path | None = Field(default=None, description="folder of a transformers BLIP-2 with a caption head")
    itm: float = Field(default=1.0, ge=0, description="weight of the image-text matching loss, L_ITM")
    cg: float = Field(default=1.0, ge=0, description="weight of the caption generation loss, L_CG")
    itc: float = Field(default=0.0, ge=0, description="weight of the contrastive loss, 1 - cosine; not in the paper")
    attention: Literal["sdpa", "eager"] = Field(default="sdpa", description="how attention is computed")
    recompute: bool = Field(default=False, description="keep less of the vision tower in memory, for more time")

    @model_validator(mode="after")
    def _something_to_judge(self) -> Options:
        if self.itm == self.cg == self.itc == 0:
            raise ValueError("itm, cg and itc are all 0: nothing is left to judge by")
        return self


class Conversion(BaseModel):
    """What `referee convert blip2` is given."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    lavis: Path = Field(description="LAVIS' stage-1 file, blip2_pretrained.pth")
    eva: Path | None = Field(default=None, description="EVA's vision tower, eva_vit_g.pth, where LAVIS' file has none")
    base: Path | None = Field(
        default=None, description="folder of transformers' own conversion (blip2-itm-vit-g); the caption head is added"
    )
    vocab: Path | None = Field(default=None, description="vocab.txt of bert-base-uncased; left out, it is downloaded")
    image_size: int | None = Field(default=None, ge=1, description="side of the images, if not the file's own")
    eva_blocks: int = Field(default=39, ge=1, description="blocks of EVA's tower that are used, of 40")
    vision_heads: int = Field(default=16, ge=1, description="attention heads of the vision tower")
    qformer_heads: int = Field(default=12, ge=1, description="attention heads of the Q-Former")

    @model_validator(mode="after")
    def _one_tower(self) -> Conversion:
        if self.base and (self.eva or self.image_size):
            raise ValueError("base brings its own vision tower: leave eva and image_size out")
        return self


def check_conversion(options: Conversion) -> None:
    """Look at the files before anything is loaded.

    Raises:
        WeightsError: a file is missing or cut short.
    """
    for path in (options.lavis, options.eva, options.vocab):
        if path is not None:
            check_folder(path.parent, [path.name], mend="Is the path right?")
    if options.base:
        files = ["config.json", "model.safetensors"]
        check_folder(options.base, files, mend="--base takes a folder of transformers' Blip2ForImageTextRetrieval.")


def folder(options: Options) -> Path:
    """The checkpoint folder.

    Raises:
        OptionError: none is given.
    """
    if options.model is None:
        raise OptionError("blip2 needs a checkpoint: take a zoo's (--zoo pocket) or say blip2:model=FOLDER.")
    return options.model.expanduser()


def check(options: Options) -> None:
    """Look at the files before anything is loaded.

    Raises:
        OptionError: no folder is given.
        WeightsError: a file is missing or cut short.
    """
    mend = (
        f"The referee blip2 needs a folder with {', '.join(FILES)}: "
        "say blip2:model=FOLDER, or take a zoo's (--zoo pocket)."
    )
    check_folder(folder(options), FILES, mend=mend)
