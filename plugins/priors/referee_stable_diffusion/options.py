"""What can be set about the prior; the defaults are the paper's (arXiv 2402.16305, appendix C).

The pull's formulas are told and cited in `referee_stable_diffusion.relatives`.
"""

from __future__ import annotations

from math import inf
from os.path import expanduser
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from referee.errors import PromptError
from referee.prompt import Prompt
from referee.schedules import ScheduleField, constant

PLACE = "{prompt}"
"""In a text: the place where the prompt goes."""


class Options(BaseModel):
    """Which checkpoint, and how it pulls and samples."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    model: str = Field(description="folder of a diffusers pipeline: unet/, vae/, text_encoder/, tokenizer/, ...")
    vae: str = Field(default="", description="folder of another VAE for the same latents, e.g. TAESD; '' for none")
    template: str = Field(default="A photo exactly contains {prompt}", description="what the pull is told")
    negative: str = Field(
        default="", description="what the picture should not be: told to the unconditional half, in plain samples, too"
    )
    distil: Literal["sds", "csd", "nfsd", "bridge"] = Field(
        default="sds",
        description="the pull: score distillation; or without the added noise: csd, guidance alone (arXiv 2310.19415); "
        "nfsd, with the domain's direction, best with a negative that says what is ugly and cfg=7.5 (2310.17590); "
        "bridge, from the source to the prompt (2406.09417)",
    )
    distil_from: float = Field(
        default=0.0, ge=0, lt=1, description="fraction of the run before which the pull is sds; bridge's authors: 0.5"
    )
    negative_share: ScheduleField = Field(
        default=constant(1),
        description="csd: how far the negative text takes the null text's place; its authors: linear(1, 0.5)",
    )
    source: str = Field(
        default="",
        description="bridge: what the picture is before it is good, told in place of the null text, "
        'e.g. "{prompt}, oversaturated, smooth, blurry"',
    )
    cfg: ScheduleField = Field(default=constant(30), description="the pull's guidance; 1: none, 0: no prompt")
    t_min: ScheduleField = Field(default=constant(0.05), description="least noise level, a fraction of all timesteps")
    t_max: ScheduleField = Field(
        default=constant(0.95),
        description="noise levels stay below this fraction; falling, as in DreamTime (arXiv 2306.12422), coarse comes "
        "before fine: cosine(0.95, 0.3), or with t_min=linear(0.85, 0.02) linear(0.95, 0.12), a window that slides",
    )
    recompute: bool = Field(
        default=False,
        description="keep less of the decoder in memory, and decode again for each referee's gradient; so with the "
        "steps of a sampler whose noise is optimised",
    )
    sample_steps: int = Field(default=30, ge=1, description="DDIM steps of a plain sample")
    sample_cfg: float = Field(default=7.5, ge=0, description="guidance of a plain sample")

    @field_validator("model", "vae")
    @classmethod
    def _at_home(cls, folder: str) -> str:
        return expanduser(folder)  # after "model=" no shell does it

    @field_validator("negative", "source")
    @classmethod
    def _text(cls, text: str) -> str:
        try:
            return Prompt(text).text if text.strip() else ""
        except PromptError as error:
            raise ValueError(str(error)) from error

    @model_validator(mode="after")
    def _sane(self) -> Options:
        for name, most in (("cfg", inf), ("t_min", 1), ("t_max", 1), ("negative_share", 1)):
            schedule = getattr(self, name)
            if schedule.least < 0 or schedule.most > most:
                raise ValueError(f"{name} {schedule} must stay {'between 0 and 1' if most == 1 else 'at 0 or above'}")
        if any(self.t_min(u) >= self.t_max(u) for u in (0.0, 0.25, 0.5, 0.75, 1.0)):
            raise ValueError(f"t_min {self.t_min} must lie below t_max {self.t_max}")
        if PLACE not in self.template:
            raise ValueError("template must contain {prompt}, the place where the prompt goes")
        return self

    @model_validator(mode="after")
    def _of_the_pull(self) -> Options:
        """Nothing is set that the formula does not read."""
        if self.distil == "bridge" and not self.source:
            raise ValueError(
                "distil=bridge needs a source, what the picture is before it is good, "
                'for example source="{prompt}, oversaturated, smooth, blurry"'
            )
        if self.source and self.distil != "bridge":
            raise ValueError(f"distil={self.distil} reads no source: add distil=bridge, or call it negative")
        if self.negative_share != constant(1) and not (self.distil == "csd" and self.negative):
            raise ValueError("negative_share is csd's share of a negative text: add distil=csd and negative=...")
        if self.distil_from and self.distil == "sds":
            raise ValueError("distil_from says when sds ends: add distil=csd, nfsd or bridge")
        if self.distil in ("csd", "bridge") and self.cfg.most == 0:
            raise ValueError(f"distil={self.distil} is guidance alone, and cfg is 0: it would not pull")
        return self


def put(prompt: str, text: str) -> str:
    """The text with the prompt in its place, if it has one."""
    return text.replace(PLACE, prompt)


def texts(options: Options) -> dict[str, str]:
    """The texts beside the prompt that its text encoder has to read, by option; without the prompt itself."""
    told = {"negative": options.negative, "source": put("", options.source)}
    return {name: text for name, text in told.items() if text}
