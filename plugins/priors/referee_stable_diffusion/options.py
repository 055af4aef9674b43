"""What can be set about the prior; the defaults are the paper's (arXiv 2402.16305, appendix C)."""

from __future__ import annotations

from math import inf
from os.path import expanduser

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from referee.schedules import ScheduleField, constant


class Options(BaseModel):
    """Which checkpoint, and how it pulls and samples."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    model: str = Field(description="folder of a diffusers pipeline: unet/, vae/, text_encoder/, tokenizer/, ...")
    vae: str = Field(default="", description="folder of another VAE for the same latents, e.g. TAESD; '' for none")
    template: str = Field(default="A photo exactly contains {prompt}", description="what the pull is told")
    negative: str = Field(default="", description="what the unconditional half is told")
    cfg: ScheduleField = Field(default=constant(30), description="the pull's guidance; 1: none, 0: no prompt")
    t_min: ScheduleField = Field(default=constant(0.05), description="least noise level, a fraction of all timesteps")
    t_max: ScheduleField = Field(
        default=constant(0.95),
        description="noise levels stay below this fraction; falling, as in DreamTime (arXiv 2306.12422), coarse comes "
        "before fine: cosine(0.95, 0.3)",
    )
    sample_steps: int = Field(default=30, ge=1, description="DDIM steps of a plain sample")
    sample_cfg: float = Field(default=7.5, ge=0, description="guidance of a plain sample")

    @field_validator("model", "vae")
    @classmethod
    def _at_home(cls, folder: str) -> str:
        return expanduser(folder)  # after "model=" no shell does it

    @model_validator(mode="after")
    def _sane(self) -> Options:
        for name, most in (("cfg", inf), ("t_min", 1), ("t_max", 1)):
            schedule = getattr(self, name)
            if schedule.least < 0 or schedule.most > most:
                raise ValueError(f"{name} {schedule} must stay {'between 0 and 1' if most == 1 else 'at 0 or above'}")
        if any(self.t_min(u) >= self.t_max(u) for u in (0.0, 0.25, 0.5, 0.75, 1.0)):
            raise ValueError(f"t_min {self.t_min} must lie below t_max {self.t_max}")
        if "{prompt}" not in self.template:
            raise ValueError("template must contain {prompt}, the place where the prompt goes")
        return self
