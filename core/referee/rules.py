"""The rules of the update: every number of Algorithm 1, with the paper's symbol. Three sets ship as presets.

Units: latents have a deviation of about 1 at the scale the prior works at; ``lr`` and ``noise`` are in that unit, per
step. ``prior_weight`` is in the paper's unit: the prior's gradient is 2 (eps_hat - eps) / (h w), so its 800 at
64 x 64 is a step of 0.39 (eps_hat - eps).
"""

from __future__ import annotations

import math
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from referee.errors import OptionError
from referee.schedules import ScheduleField, constant, cosine


class Rules(BaseModel):
    """How a latent is moved. Defaults are the paper's (arXiv 2402.16305, Algorithm 1 and appendix C)."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)

    steps: int = Field(160, ge=1, description="I: iterations")
    tail: int = Field(10, ge=0, description="last iterations that follow the prior alone (none without a prior)")
    update: Literal["adam", "sgd"] = Field(
        "adam", description="the referees' optimiser: adam as in the paper, sgd as released"
    )
    lr: ScheduleField = Field(
        cosine(1.0, 0.5), description="lr: of the referees' step, and of the prior's unless prior_lr is set"
    )
    warm_up: int = Field(0, ge=0, description="iterations over which lr grows linearly to its first value")
    prior_lr: ScheduleField | None = Field(None, description="lr of the prior's step; 1 in the released code")
    weight_decay: float = Field(0.0, ge=0, description="of Adam")
    referee_weight: ScheduleField = Field(
        constant(2.0), description="w1: the push's length in units of the prior's; Adam divides out a constant"
    )
    prior_weight: ScheduleField = Field(
        cosine(800.0, 400.0), description="w2: of the prior's gradient; 0 plays without a prior"
    )
    noise: ScheduleField = Field(constant(0.2), description="deviation of eps_z, added to z after the step")
    gradient_noise: ScheduleField = Field(
        constant(0.0), description="deviation of noise added to the push before the optimiser; 0.2 in the released code"
    )
    tail_noise: ScheduleField = Field(
        constant(0.2), description="deviation of eps_z in the tail; 0.01 in the released code"
    )
    ema_decay: float = Field(0.95, ge=0, lt=1, description="lambda: of the average of z")
    restart_from: int = Field(40, ge=1, description="e_s: iteration (from 1) of the first EMA-restart")
    restart_every: int = Field(60, ge=0, description="e_rs: iterations between restarts; 0 for none")
    views: int = Field(30, ge=1, description="augmented views per image and referee")
    micro_batch: int = Field(10, ge=1, description="views scored at once: memory grows with this alone")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.tail >= self.steps:
            raise ValueError(
                f"tail ({self.tail}) leaves the referees no step of {self.steps}: "
                "make it smaller than steps, for example --set rules.tail=0"
            )
        for name in ("lr", "prior_lr", "referee_weight", "prior_weight", "noise", "gradient_noise", "tail_noise"):
            schedule = getattr(self, name)
            if schedule is not None and schedule.least < 0:
                raise ValueError(f"{name} falls to {schedule.least:g}: it must not be negative")
        return self

    def learning_rate(self, k: int) -> float:
        """lr at step k: linear warm-up, then the schedule over what is left."""
        if k < self.warm_up:
            return self.lr(0.0) * (k + 1) / self.warm_up
        return self.lr((k - self.warm_up) / max(self.steps - self.warm_up, 1))

    def first_step(self, strength: float) -> int:
        """The step, from 0, at which a run of this strength enters that begins with a picture: see `referee.control`.

        Raises:
            OptionError: the strength is not above 0 and at most 1, or only the tail is left, in which no referee plays.
        """
        if not 0 < strength <= 1:
            raise OptionError(
                f"The strength {strength:g} must be above 0, and at most 1: nothing of the picture stays."
            )
        first, steered = round((1 - strength) * self.steps), self.steps - self.tail * (self.prior_weight.most > 0)
        if first >= steered:
            least = math.ceil(100 * (1 - (steered - 1) / self.steps)) / 100
            raise OptionError(
                f"With the strength {strength:g} the referees have no step of {self.steps}, of which the last "
                f"{self.steps - steered} are the prior's alone: the least is {min(least, 1):g}."
            )
        return first

    def restarts_at(self, k: int) -> bool:
        """Whether z becomes its average after step k (from 0); never in the tail."""
        i = k + 1
        due = self.restart_every and i >= self.restart_from and (i - self.restart_from) % self.restart_every == 0
        return bool(due) and i <= self.steps - self.tail
