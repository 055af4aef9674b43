"""What can be set about the CLIP referee, and the checks that need no model library."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, field_validator

from referee.errors import OptionError, WeightsError
from referee.weights import check_folder

CONFIG = "open_clip_config.json"
WEIGHTS = (
    "open_clip_model.safetensors", "open_clip_pytorch_model.safetensors", "open_clip_pytorch_model.bin",
    "open_clip_pytorch_model.pth",
)  # fmt: skip
"""In the order in which open_clip looks for them."""
HUB = "hf-hub:"
FOLDER = "local-dir:"
TOKENIZER = ("tokenizer.json", "tokenizer_config.json")
_MEND = (
    "Expected is a folder as open_clip writes it (clip:model=FOLDER), one of open_clip's own models "
    "(clip:model=ViT-B-32,pretrained=TAG, downloaded once), one of the hub's (clip:model=hf-hub:OWNER/NAME), or a zoo "
    "(--zoo pocket)."
)


class Options(BaseModel):
    """Which CLIP, and what it is told."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = Field(
        default="",
        description="folder of an open_clip model, hf-hub:OWNER/NAME, or a name of open_clip's with pretrained",
    )
    pretrained: str = Field(default="", description="tag of open_clip's weights for a name, e.g. openai; else ''")
    text_template: str = Field(default="{prompt}", description="what the text encoder reads")
    recompute: bool = Field(
        default=False, description="keep less of a transformer's image tower in memory, for a third more time"
    )

    @field_validator("text_template")
    @classmethod
    def _has_a_place(cls, template: str) -> str:
        if "{prompt}" not in template:
            raise ValueError("text_template must contain {prompt}, the place where the prompt goes")
        return template


def source(options: Options) -> str:
    """What open_clip calls the model: a name, ``hf-hub:`` and a repository, or ``local-dir:`` and a folder.

    Raises:
        OptionError: no model is given, or a tag beside a repository.
    """
    if not options.model:
        raise OptionError(f"clip needs a model. {_MEND}")
    if options.model.startswith(HUB) and options.pretrained:
        raise OptionError(f"clip: {options.model} brings its own weights; leave pretrained={options.pretrained} out.")
    return (
        options.model
        if options.pretrained or options.model.startswith(HUB)
        else f"{FOLDER}{Path(options.model).expanduser()}"
    )


def check(options: Options) -> None:
    """Look at a folder's files before anything is loaded. What the hub has is checked on loading.

    Raises:
        OptionError: no model is given.
        WeightsError: a file is missing, cut short or no configuration.
    """
    source(options)
    if options.pretrained or options.model.startswith(HUB):
        return
    folder = Path(options.model).expanduser()
    weights = next((name for name in WEIGHTS if (folder / name).is_file()), WEIGHTS[0])
    check_folder(folder, (CONFIG, weights), mend=_MEND)
    try:
        text = json.loads((folder / CONFIG).read_text(encoding="utf-8"))["model_cfg"]["text_cfg"]
        own = bool(text.get("hf_tokenizer_name"))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise WeightsError(f"{folder / CONFIG} has no model_cfg with a text_cfg: {error!r}. {_MEND}") from error
    if own:  # else open_clip takes the tokenizer that it carries with it
        check_folder(folder, TOKENIZER, mend=_MEND)
