"""The panel: who plays at a step, for which prompt, on which views, with what weight, and what comes of it.

`invert` asks it two things: the rows (each referee's loss and gradient) and the push that a balancer makes of them.
Views are shared: the draws of view v hang on seed, step and v alone, so referees with equal augmentations see the same
crops and colours, each at its own size.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence, Sized
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from referee import balance
from referee.contract import (
    Augmentation,
    Balancer,
    Image,
    Latent,
    Loss,
    Memory,
    Prompt,
    Remembering,
)  # fmt: skip
from referee.errors import NothingToJudge, OptionError, PluginError, blamed, out_of_memory
from referee.gradients import ViewPlan, referee_gradient, through_decoder
from referee.rules import Rules
from referee.seat import Seat, at_work, read
from referee.timeout import limited

PerSample = Float[Tensor, "n"]
Space = Literal["latent", "image"]
SPACES: tuple[Space, ...] = ("latent", "image")
KEPT = "panel/"
"""In a run's memory: ``panel/NAME`` is the last gradient of a referee that does not play at every step."""
PORTION = "at once/"
"""In a run's memory: ``at once/NAME`` is how many views fit, once memory ran out."""


@dataclass(frozen=True, slots=True)
class Heard:
    """What the referees said at a step: losses of those asked; rows, and who sits out, of all that play."""

    losses: Mapping[str, PerSample]
    rows: Mapping[str, Latent | Image]
    sat_out: dict[str, Bool[Tensor, "n"]]


class Panel:
    """The referees of one run, having read their prompts.

    Args:
        seats: by name.
        prompt: the run's.
        rules: the numbers of the algorithm.
        augmentation: the shared one.
        balancer: makes one direction of several gradients.
        space: where rows are gradients: on the latent, or on the image.
        seeds: one sample each.
        memory: of the run; see `referee.contract.Memory`.
        device: where the images live.

    Raises:
        OptionError: see `check`.
        NothingToJudge: the prompt has nothing for any of the seats. Where it has something for one, the others sit
            the run out, and a warning says so.
        PluginError: a negative referee's loss on a grey picture is not finite.
    """

    def __init__(
        self, seats: Sequence[Seat], prompt: Prompt, rules: Rules, augmentation: Augmentation | None,
        balancer: Balancer, space: Space, seeds: Sequence[int], memory: Memory, device: torch.device | str,
    ) -> None:  # fmt: skip
        self.rules, self.augmentation = rules, augmentation
        self.space, self.seeds, self.memory = space, seeds, memory
        self.balancer = balancer.with_memory(memory) if isinstance(balancer, Remembering) else balancer
        self.losses_of: dict[str, Loss] = {}
        silent: dict[str, NothingToJudge] = {}
        for seat in seats:
            with at_work(seat, device):
                try:
                    self.losses_of[seat.name] = read(seat, prompt, device)
                except NothingToJudge as nothing:
                    silent[seat.name] = nothing
        say_who_is_silent(silent, self.losses_of, "sits the run out")
        self.seats = [seat for seat in seats if seat.name in self.losses_of]
        self.maps: dict[str, Float[Tensor, "n H W"]] = {}
        """|d loss / d image|, summed over channels, of each referee when it was last asked. For the eye alone."""

    def weights(self, k: int) -> dict[str, float]:
        """Of the seats that play at a step, asked or by their last gradient."""
        steps = self.rules.steps
        return {seat.name: seat.weight_at(k, steps) for seat in self.seats if seat.plays_at(k, steps)}

    def hear(self, x: Image, z: Latent, k: int, playing: Mapping[str, float]) -> Heard:
        """Each playing referee's loss and gradient; what is zero or not finite is zeroed, and its sample sits out."""
        asked = [seat for seat in self.seats if seat.name in playing and self._asks(seat, k)]
        losses, fresh = {}, {}
        for seat in asked:
            last = seat is asked[-1]
            own = self.augmentation if seat.augmentation == "shared" else seat.augmentation
            count = (seat.views or self.rules.views) if own else 1
            plan = ViewPlan(self.seeds, k, count, self.rules.micro_batch, own, seat.region)
            with blamed(seat.name, k), limited(seat.timeout), at_work(seat, x.device):
                losses[seat.name], g = self._gradient(seat, x, plan)
            self.maps[seat.name] = g.abs().sum(1)
            fresh[seat.name] = g if self.space == "image" else through_decoder(x, z, g, keep_graph=not last)
            if seat.every > 1 and seat.between == "reuse":
                self.memory[KEPT + seat.name] = fresh[seat.name]
        given = {name: fresh[name] if name in fresh else self.memory[KEPT + name] for name in playing}
        good = {name: balance.usable(g) for name, g in given.items()}
        rows = {name: torch.where(good[name][:, None, None, None], g, 0.0) for name, g in given.items()}
        return Heard(losses, rows, {name: ~usable for name, usable in good.items()})

    def push(
        self, x: Image, z: Latent, rows: Mapping[str, Latent | Image], shares: Mapping[str, PerSample],
        pull: Latent | None,
    ) -> Latent:  # fmt: skip
        """The balancer's push on z. Rows on the image are combined there and carried through the decoder once.

        The decoder bends lengths, so what a rule says about length is said again after it: the push on z gets the
        prior's length times what the direction on the image had of unit length. (`sum` has a length of its own: the
        gradient of the weighted sum is the same wherever it is summed.)
        """
        if self.space == "latent":
            return shaped("balancer", self.balancer(rows, shares, pull), z)
        on_x = shaped("balancer", self.balancer(rows, shares, None), x)
        on_z = through_decoder(x, z, on_x, keep_graph=False)
        if getattr(self.balancer, "own_length", False):
            return on_z
        share = balance.lengths(on_x) / on_x[0].numel() ** 0.5
        unit = balance.directions({"push": on_z})["push"]
        return balance.at_length(unit * share.to(unit.dtype)[:, None, None, None], pull)

    def _gradient(self, seat: Seat, x: Image, plan: ViewPlan) -> tuple[PerSample, Image]:
        """A referee's loss and gradient on the image.

        Where memory runs out, half as many views are scored at once, from then on: the same views, as each has a
        generator of its own.

        Raises:
            OptionError: one view alone is too much.
        """
        most = min(plan.micro_batch, len(plan.seeds) * plan.count)
        while True:
            if (before := self.memory.get(PORTION + seat.name)) is not None:
                most = min(most, int(before[0]))
            try:
                return referee_gradient(
                    self.losses_of[seat.name], seat.referee.input_size, x, x, replace(plan, micro_batch=most),
                    keep_graph=True, name=seat.name,
                )  # fmt: skip
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error):
                    raise
                if most == 1:
                    first = str(error).partition("\n")[0] or type(error).__name__
                    raise OptionError(
                        f"There is no memory for one view of '{seat.name}': {first} "
                        "`referee plan --fit` says what would do; some referees have recompute=true, for less memory."
                    ) from error
            # Outside of the handler, where the error no longer holds what was computed.
            self._halve(seat, most // 2)

    def _halve(self, seat: Seat, most: int) -> None:
        self.memory[PORTION + seat.name] = torch.full((len(self.seeds),), most)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        warnings.warn(
            f"Out of memory: '{seat.name}' scores {most} view{'s' * (most > 1)} at once from now on; next time say "
            f"--set rules.micro_batch={most}.",
            stacklevel=5,
        )

    def _asks(self, seat: Seat, k: int) -> bool:
        return seat.is_due(k, self.rules.steps) or KEPT + seat.name not in self.memory


def say_who_is_silent(silent: Mapping[str, NothingToJudge], others: Sized, so: str) -> None:
    """Warn of those that the prompt has nothing for.

    Raises:
        NothingToJudge: there are no others.
    """
    if silent and not others:
        raise next(iter(silent.values()))
    for name in silent:
        warnings.warn(f"'{name}' {so}: the prompt has nothing of what it judges.", stacklevel=4)


def at_once(memory: Memory) -> dict[str, int]:
    """How many views of each referee fit at once, of those for whom memory ran out in a run."""
    return {n.removeprefix(PORTION): int(found[0]) for n, found in memory.items() if n.startswith(PORTION)}


def check(seats: Sequence[Seat], rules: Rules) -> None:
    """Refuse a panel that cannot play.

    Raises:
        OptionError: two seats of one name, one called "prior", a negative weight, none above 0, a time that is none,
            nobody.
    """
    names = [seat.name for seat in seats]
    if twice := {name for name in names if names.count(name) > 1}:
        raise OptionError(f"Two referees are called '{min(twice)}'. Give each a name of its own.")
    if "prior" in names:
        raise OptionError("A referee cannot be called 'prior': the prior's own norm goes by that name.")
    has_prior = rules.prior_weight.most > 0
    if not seats and not has_prior:
        raise OptionError("Nobody plays: name a referee, or give the prior a weight above 0.")
    for seat in seats:
        if seat.weight.least < 0:
            raise OptionError(f"The weight of '{seat.name}' falls to {seat.weight.least:g}; it must not be negative.")
        if not 0 <= seat.start < seat.until <= 1:
            raise OptionError(
                f"'{seat.name}' plays from {seat.start:g} until {seat.until:g}; expected 0 <= from < until <= 1."
            )
        if seat.every < 1 or (seat.views is not None and seat.views < 1):
            raise OptionError(f"'{seat.name}': every and views must be at least 1.")
    if seats and not any(seat.weight.most > 0 for seat in seats):
        who = " and ".join(f"'{name}'" for name in names)
        raise OptionError(f"{who} can have no say: the weight is 0 all along. Give one a weight above 0.")


def warn_of_idle(seats: Sequence[Seat], rules: Rules, first: int = 0) -> None:
    """Say once if at some steps, from the first one played, nobody pushes."""
    has_prior = rules.prior_weight.most > 0
    steered = rules.steps - rules.tail if has_prior else rules.steps
    if idle := [k for k in range(first, steered) if seats and not any(seat.plays_at(k, rules.steps) for seat in seats)]:
        who = "only the prior moves the latent" if has_prior else "nothing but noise moves the latent"
        some = f"{len(idle)} of {steered - first} steps, first at step {idle[0]}"
        warnings.warn(f"No referee plays at {some}: there {who}.", stacklevel=4)


def pictured(x: Tensor, count: int, size: tuple[int, int]) -> Image:
    """What a prior drew, if it is so many pictures of that height and width.

    Raises:
        PluginError: it is something else.
    """
    if tuple(x.shape) != (count, 3, *size):
        raise PluginError(f"The prior drew {tuple(x.shape)}; expected {(count, 3, *size)}: RGB at the size of the run.")
    return x


def shaped(who: str, g: Tensor, like: Tensor) -> Tensor:
    """A part's gradient, if it has the shape that it should.

    Raises:
        PluginError: it has another, and may be broadcast: a wrong picture, and no word.
    """
    if g.shape != like.shape:
        raise PluginError(f"The {who} gave a gradient of shape {tuple(g.shape)}; expected {tuple(like.shape)}.")
    return g
