"""The judge: a referee that does not play. It looks at the clean picture every few steps, without gradient, and what it
says moves no latent: so it can say which step was best, and whether the referees are being fooled.

What follows from its verdicts is in `referee.verdicts`.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from referee.contract import Image, Loss, Prompt, Referee, Viewer
from referee.errors import OptionError, PluginError, blamed
from referee.gradients import resize
from referee.holdings import lent
from referee.timeout import limited
from referee.verdicts import Verdicts


@dataclass(frozen=True, slots=True)
class Judge:
    """A referee that only scores.

    Attributes:
        name: of its own.
        referee: who judges. Its loss counts, lower is better; that it is differentiable is not needed.
        every: steps between two verdicts; the last step has one in any case.
        keep: the picture of its best verdict, or of the last step.
        patience: verdicts on end without a better one after which a picture ends; None for no end.
        prompt: what it judges by; None for the run's.
        pick: it says which picture of the batch is best.
        offload: its weights rest in the CPU's memory between two verdicts: see `referee.holdings.lent`.
        timeout: seconds within which it must give one: see `referee.timeout`; None for no end.

    Raises:
        OptionError: numbers below 1, or patience that would end a run on its last picture.
    """

    name: str
    referee: Referee
    every: int = 10
    keep: Literal["best", "last"] = "best"
    patience: int | None = None
    prompt: Prompt | None = None
    pick: bool = False
    offload: bool = False
    timeout: float | None = None

    def __post_init__(self) -> None:
        if self.every < 1 or (self.patience is not None and self.patience < 1):
            raise OptionError(f"'{self.name}': every and patience must be at least 1.")
        if self.keep not in ("best", "last"):
            raise OptionError(f"'{self.name}': keep is '{self.keep}'; say best or last.")
        if self.patience is not None and self.keep == "last":
            raise OptionError(f"'{self.name}': patience ends a picture at its best; it does not go with keep=last.")

    def is_due(self, k: int, steps: int) -> bool:
        """Whether it is asked after step ``k`` (from 0)."""
        return (k + 1) % self.every == 0 or k + 1 == steps


@dataclass(frozen=True, slots=True)
class Judgement:
    """What came of a judge; lists have one entry per picture.

    Attributes:
        judge: its name.
        losses: its verdict on each picture as it is; None where that is not finite.
        taken: after how many steps each picture was taken.
        ended: after how many steps all pictures had reached their plateau; None if they did not.
        hacked: after how many steps reward hacking was found of each; None where it was not.
        picked: index of the picture that it likes best; None if it was not asked, or likes none.
    """

    judge: str
    losses: tuple[float | None, ...]
    taken: tuple[int, ...]
    ended: int | None
    hacked: tuple[int | None, ...]
    picked: int | None


class Sitting:
    """A judge at work on one run.

    Args:
        judge: who.
        prompt: the run's.
        seeds: one per picture.
        rows: of the steps played so far, as in metrics.jsonl.
        device: of the run.
    """

    def __init__(
        self, judge: Judge, prompt: Prompt, seeds: Sequence[int], rows: Sequence[Mapping[str, Any]], device: str
    ) -> None:
        self.judge, self.seeds = judge, seeds
        with lent(judge.referee, device) if judge.offload else nullcontext():
            self.loss: Loss = judge.referee.read(judge.prompt or prompt)
        self.verdicts = Verdicts(len(seeds), judge.patience)
        for row in rows:
            self.verdicts.add(row)
        self._said = any(course.hacked is not None for course in self.verdicts.courses)

    def look(self, x: Image, k: int) -> Float[Tensor, "n"]:
        """Its losses of the pictures, on the CPU: one at a time, so that none hangs on what it is batched with.

        Raises:
            PluginError: it fails, or gives something other than one number.
        """
        at_work = lent(self.judge.referee, x.device) if self.judge.offload else nullcontext()
        with torch.no_grad(), blamed(self.judge.name, k), limited(self.judge.timeout), at_work:
            return torch.cat(
                [verdict(self.judge.name, self.judge.referee, self.loss, x[i : i + 1]) for i in range(len(x))]
            )

    def follow(self, row: dict[str, Any]) -> list[bool]:
        """Take in a step's row, and note in it who is hacked; gives for each picture whether it is the one to keep.

        Warns:
            UserWarning: of reward hacking, once in a run.
        """
        better = self.verdicts.add(row)
        if any(found := self.verdicts.hacked(taken := row["step"] + 1)):
            row["hacked"] = found
            if not self._said:
                warnings.warn(self._hacking(found.index(True), taken), stacklevel=3)
            self._said = True
        return better

    def judgement(self, complete: bool = True) -> Judgement | None:
        """What came of it; None if the run was interrupted before its first verdict.

        Args:
            complete: not interrupted; if it was, the best pictures so far are kept in any case.
        """
        courses, best = self.verdicts.courses, self.judge.keep == "best" or not complete
        taken = [course.kept if best else course.taken for course in courses]
        losses = [course.least if best else course.last for course in courses]
        ended = [course.ended for course in courses if course.ended is not None]
        steps = tuple(k for k in taken if k is not None)
        if not steps:
            return None
        scored = [(loss, i) for i, loss in enumerate(losses) if loss is not None]
        return Judgement(
            self.judge.name, tuple(losses), steps, max(ended) if self.verdicts.over else None,
            tuple(course.hacked for course in courses), min(scored)[1] if self.judge.pick and scored else None,
        )  # fmt: skip

    def _hacking(self, i: int, taken: int) -> str:
        course, name = self.verdicts.courses[i], self.judge.name
        mend = (
            "The picture of its best verdict is kept."
            if self.judge.keep == "best"
            else "Take --keep best, or other referees."
        )
        return (
            f"Reward hacking, seed {self.seeds[i]}, step {taken}: the referees like the picture ever better, the "
            f"judge '{name}' ever less ({course.least:.3g} after step {course.best}, {course.last:.3g} now). {mend}"
        )


def verdict(name: str, referee: Referee, loss: Loss, x: Image) -> Float[Tensor, "1"]:
    """A loss of one whole picture (1, 3, H, W), on the CPU: as the referee itself would see it, if it can say how.

    Raises:
        PluginError: it is something other than one number.
    """
    found = loss(referee.view(x) if isinstance(referee, Viewer) else resize(x, referee.input_size))
    if found.shape != (1,):
        raise PluginError(f"'{name}' gave a loss of shape {tuple(found.shape)} for 1 view; expected (1,).")
    return found.float().cpu()
