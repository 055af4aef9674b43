"""A seat at the table: which referee sits there, when it plays, on what, for which prompt, and how much it weighs."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Literal

import torch

from referee.contract import Augmentation, Loss, Losses, Prompt, Referee, Views
from referee.control.region import Region
from referee.errors import OptionError, PluginError
from referee.holdings import lent
from referee.schedules import Schedule, constant

ALWAYS_ONE = constant(1.0)


def is_turn(k: int, steps: int, start: float, every: int) -> bool:
    """Whether a step is one of each ``every``, counted from the first at or after ``start``, a fraction of the run."""
    return (k - math.ceil(round(start * steps, 6))) % every == 0


@dataclass(frozen=True, slots=True)
class Seat:
    """A referee at the table: under which name it plays, when, on what, and how much it weighs.

    Attributes:
        name: of its own at the table; not "prior".
        referee: who sits there.
        weight: its share, as the run goes on, a schedule or a number; at 0 it is not asked.
        start, until: it plays while start <= progress < until, fractions of the run.
        views: views per step; None for as many as the rules say.
        augmentation: of its views: the run's ("shared"), one of its own, or None for the plain image, once.
        prompt: what it judges by, a text will do; None for the run's.
        negative: it should not be satisfied: see `read`.
        margin: of a negative referee, in its loss's unit; None for its loss on a plain grey picture.
        every: it is asked at each such step, counted from the first after ``start``.
        between: what its last gradient does at the other steps: goes on playing ("reuse") or not ("leave").
        offload: its weights rest in the CPU's memory while it is not asked: see `referee.holdings.lent`.
        timeout: seconds within which it must answer at a step: see `referee.timeout`; None for no end.
        region: the part of the picture that it sees; None for all of it.

    Raises:
        OptionError: a word that means nothing, or a margin of one that is not negative.
    """

    name: str
    referee: Referee
    weight: Schedule = ALWAYS_ONE
    start: float = 0.0
    until: float = 1.0
    views: int | None = None
    augmentation: Augmentation | Literal["shared"] | None = "shared"
    prompt: Prompt | None = None
    negative: bool = False
    margin: float | None = None
    every: int = 1
    between: Literal["reuse", "leave"] = "reuse"
    timeout: float | None = None
    offload: bool = False
    region: Region | None = None

    def __post_init__(self) -> None:
        if isinstance(self.weight, (int, float)):
            object.__setattr__(self, "weight", constant(self.weight))
        if isinstance(self.prompt, str):
            object.__setattr__(self, "prompt", Prompt(self.prompt))
        if self.between not in ("reuse", "leave"):
            raise OptionError(f"'{self.name}': between is '{self.between}'; say reuse or leave.")
        if isinstance(self.augmentation, str) and self.augmentation != "shared":
            raise OptionError(f"'{self.name}': augmentation is '{self.augmentation}'; say shared, None or an object.")
        if self.margin is not None and not self.negative:
            raise OptionError(f"'{self.name}' has a margin, which only a negative referee needs: add negative=True.")

    def weight_at(self, k: int, steps: int) -> float:
        """Its weight at a step, 0 outside its time."""
        return self.weight(k / steps) if self.start <= k / steps < self.until else 0.0

    def is_due(self, k: int, steps: int) -> bool:
        """Whether it is this step's turn of ``every``."""
        return is_turn(k, steps, self.start, self.every)

    def plays_at(self, k: int, steps: int) -> bool:
        """Whether it has a say at a step, asked or by its last gradient."""
        return self.weight_at(k, steps) > 0 and (self.between == "reuse" or self.is_due(k, steps))


def at_work(seat: Seat, device: torch.device | str) -> AbstractContextManager[None]:
    """Within it, a seat's referee is where it can be asked."""
    return lent(seat.referee, device) if seat.offload else nullcontext()


def read(seat: Seat, prompt: Prompt, device: torch.device | str = "cpu") -> Loss:
    """The seat's loss, of its own prompt if it has one; turned round if it is negative.

    A loss can be raised without end, and a referee that is fooled thoroughly has nothing to say on the picture. So a
    negative referee's loss is ``max(margin - loss, 0)`` per view: once it finds the picture as bad as ``margin``, it
    is content, its gradient is zero and it sits out. By default that is as bad as it finds a plain grey picture,
    which shows nothing at all.

    Raises:
        PluginError: the loss on a grey picture is not finite.
    """
    loss = seat.referee.read(seat.prompt or prompt)
    if not seat.negative:
        return loss
    margin = seat.margin
    if margin is None:
        size = seat.referee.input_size
        with torch.no_grad():
            margin = loss(torch.full((1, 3, size, size), 0.5, device=device)).mean().item()
        if not math.isfinite(margin):
            raise PluginError(f"'{seat.name}' finds a grey picture {margin} bad: give the negative referee a margin=.")

    def turned(views: Views) -> Losses:
        return (margin - loss(views)).relu()

    return turned
