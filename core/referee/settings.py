"""Settings: all that a run needs but the prompt, as data. TOML, command line and Python meet here and share one check.

Settings come in layers, later over earlier: the defaults of the models, a preset, a TOML file (``--config``), single
values (``--set rules.steps=80``), flags. Building them has no side effect and loads nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from referee.control.init_image import Init
from referee.control.region import RegionField
from referee.errors import OptionError, controls
from referee.layers import MAX_DEPTH, RECORD, Layer, merge, shallow, texts
from referee.options import explain
from referee.rules import Rules
from referee.schedules import ScheduleField, constant
from referee.typed import parse_part

MAX_SIDE = 4096
MAX_IMAGES = 64
NO_ZOO = "none"
"""What is written where no zoo is meant, as TOML has no null."""
PLAIN = "none"
"""What is written where a referee scores the plain image, whatever the run's augmentation."""


class Part(BaseModel):
    """A plug-in's part by name, with its options."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(description="as listed by `referee plugins`; 'distribution:name' chooses between two of one name")
    options: dict[str, Any] = Field(
        default_factory=dict, description="each part's own; listed by `referee plugins --json`"
    )


def _augmentation(value: Any) -> Any:
    """The name of one, or none, in place of a table."""
    return parse_part(value, Part) if isinstance(value, str) and value != PLAIN else value


class RefereePart(Part):
    """A referee by name, with its place at the table: see `referee.seat.Seat`."""

    model_config = ConfigDict(serialize_by_alias=True, populate_by_name=True)

    weight: ScheduleField = Field(constant(1.0), description="its share among the referees; a number or a schedule")
    label: str | None = Field(None, description="the name it plays under; its plug-in's name if not given")
    start: float = Field(0.0, ge=0, lt=1, alias="from", description="fraction of the run at which it begins to play")
    until: float = Field(1.0, gt=0, le=1, description="fraction of the run at which it stops")
    views: int | None = Field(None, ge=1, description="its own number of views per step; rules.views if not given")
    aug: Annotated[Part | Literal["none"] | None, BeforeValidator(_augmentation)] = Field(
        None, description="its own augmentation, or none for the plain image; the run's if not given"
    )
    prompt: str | None = Field(None, description="what it judges by; the run's prompt if not given")
    negative: bool = Field(False, description="it should not be satisfied: its loss is raised, up to the margin")
    margin: float | None = Field(
        None,
        allow_inf_nan=False,
        description="of a negative one, in its own unit; its loss on a grey picture if not given",
    )
    every: int = Field(1, ge=1, description="it is asked at every such step")
    between: Literal["reuse", "leave"] = Field(
        "reuse", description="at the steps between, its last gradient plays on (reuse) or not (leave)"
    )
    offload: bool = Field(False, description="its weights rest in the CPU's memory between its turns: slower, smaller")
    timeout: float | None = Field(
        None,
        gt=0,
        allow_inf_nan=False,
        description="seconds it may take at a step: if it hangs, the run ends",
    )
    region: RegionField | None = Field(
        None, description='the part of the picture that it sees, "x0,y0,x1,y1" in pixels or per cent; all if not given'
    )

    @property
    def title(self) -> str:
        """The name it plays under."""
        return self.label or self.name.rpartition(":")[2]

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.start >= self.until:
            raise ValueError(f"'{self.title}' plays from {self.start:g} until {self.until:g}: that is never")
        if self.margin is not None and not self.negative:
            raise ValueError(f"'{self.title}' has a margin, which only a negative referee needs: add negative=true")
        return self


class JudgePart(Part):
    """A referee by name that only scores: see `referee.judging.Judge`."""

    label: str | None = Field(None, description="what it is called; its plug-in's name if not given")
    every: int = Field(10, ge=1, description="steps between two verdicts; the last step has one in any case")
    keep: Literal["best", "last"] = Field("best", description="the picture of its best verdict, or of the last step")
    patience: int | None = Field(
        None, ge=1, description="verdicts on end without a better one after which a picture ends; none if not given"
    )
    prompt: str | None = Field(None, description="what it judges by; the run's prompt if not given")
    pick: bool = Field(False, description="it says which of the pictures is best")
    offload: bool = Field(False, description="its weights rest in the CPU's memory between two verdicts")
    timeout: float | None = Field(
        None, gt=0, allow_inf_nan=False, description="seconds it may take for a verdict: if it hangs, the run ends"
    )

    @property
    def title(self) -> str:
        """What it is called."""
        return self.label or self.name.rpartition(":")[2]

    @model_validator(mode="after")
    def _in_accord(self) -> Self:
        if self.patience is not None and self.keep == "last":
            raise ValueError("patience ends a picture at the judge's best; it does not go with keep=last")
        return self


class BalancerPart(Part):
    """A balancer by name, and where it balances."""

    space: Literal["latent", "image"] = Field(
        "latent", description="gradients on the latent, exact; or on the image, with one decoder pass for all referees"
    )


class Settings(BaseModel):
    """Everything that shapes a run, but the prompt."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    zoo: Annotated[str | None, BeforeValidator(lambda name: None if name == NO_ZOO else name)] = Field(
        "pocket", description="the set of checkpoints; none if every part names its own"
    )
    height: int = Field(64, ge=8, le=MAX_SIDE, multiple_of=8, description="pixels")
    width: int = Field(64, ge=8, le=MAX_SIDE, multiple_of=8, description="pixels")
    seeds: tuple[Annotated[int, Field(gt=-(1 << 128), lt=1 << 128)], ...] = Field(
        (0,), min_length=1, max_length=MAX_IMAGES, description="one picture each"
    )
    device: str = Field("auto", description="a torch device; auto takes cuda if there is one")
    dtype: str = Field(
        "float32", pattern="^(float32|bfloat16|float16)$", description="of the models; the latent stays float32"
    )
    rules: Rules = Field(default_factory=Rules, description="the numbers of the algorithm")
    referees: tuple[RefereePart, ...] = Field((), description="who plays")
    prior: Part | None = Field(None, description="who keeps it real, and owns the latent space")
    augmentation: Annotated[Part | None, BeforeValidator(lambda part: None if part == PLAIN else part)] = Field(
        None, description="the views' transforms; none scores the plain image"
    )
    balancer: BalancerPart | None = Field(None, description="the rule that makes one direction of several gradients")
    judge: JudgePart | None = Field(None, description="a referee that does not play: it says which step was best")
    init: Init | None = Field(None, description="the picture that the run begins with")

    @property
    def first_step(self) -> int:
        """The step, from 0, at which the run enters: later than 0 if it begins with a picture."""
        return self.rules.first_step(self.init.share) if self.init else 0

    @model_validator(mode="after")
    def _fits(self) -> Self:
        """What hangs on the run's size and length."""
        try:
            _ = self.first_step
            for part in self.referees:
                if part.region:
                    part.region.box(self.height, self.width)
        except OptionError as error:
            raise ValueError(str(error)) from error
        return self

    @model_validator(mode="after")
    def _check(self) -> Self:
        titles = [part.title for part in self.referees]
        if twice := {title for title in titles if titles.count(title) > 1}:
            raise ValueError(f"two referees are called '{min(twice)}': give each a label")
        if "prior" in titles:
            raise ValueError("a referee is called 'prior', as the prior itself is: give it another label")
        for part in self.referees:
            if (least := part.weight.least) < 0:
                raise ValueError(f"the weight of '{part.title}' falls to {least:g}: it must not be negative")
        if self.rules.prior_weight.most == 0 and not any(part.weight.most > 0 for part in self.referees):
            raise ValueError("nobody plays: name a referee, or give the prior a weight above 0 (rules.prior_weight)")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError("the seeds repeat")
        return self


def build(layers: Iterable[Layer]) -> Settings:
    """Merge layers and check them, a record's too: all of it may be shown in a terminal.

    Raises:
        OptionError: naming each field that is unknown or of the wrong type or value, or a text with control characters.
    """
    merged: Layer = {}
    for layer in layers:
        merged = merge(merged, layer)
    if not shallow(merged):
        raise OptionError(f"The settings are nested more than {MAX_DEPTH} deep.")
    for text in texts(merged):
        if controls(text):
            raise OptionError(f"The settings' {text[:60]!a} has control characters or broken ones. Write plain text.")
    merged.pop(RECORD, None)
    try:
        return Settings.model_validate(merged)
    except ValidationError as error:
        raise OptionError(explain(error, Settings)) from error
