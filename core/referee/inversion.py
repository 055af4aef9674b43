"""Algorithm 1 of "Referee Can Play" (arXiv 2402.16305): model inversion steered by referees, held by a prior.

    z0 ~ N(0, I);  z_ema = z0
    for i = 1..I:
        x     = DEC(z)
        g_p   = w2 grad_z L_SDS(z, y)                              the prior's pull
        g_r   = w1 |g_p| grad_z E_A[L(A(x), y)] / |grad_z ...|     the referees' push, balanced
        z     = Adam(z, lr, g_r);  z = z - lr g_p;  z = z + eps_z
        z_ema = lambda z_ema + (1 - lambda) z
        if i is a restart: z = z_ema

`invert` yields each step and holds no other state than z, its average and the optimiser's moments: showing, saving and
stopping are the caller's. Differences from the paper and from its released code are listed in docs/fidelity.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from referee import balance
from referee.contract import Augmentation, Balancer, Image, Latent, Loss, Prior, Progress, Prompt, Pull, Referee
from referee.errors import OptionError, PluginError
from referee.gradients import ViewPlan, referee_gradient
from referee.randomness import generators, normal
from referee.rules import Rules
from referee.schedules import Schedule, constant

PerSample = Float[Tensor, "n"]
ALWAYS_ONE = constant(1.0)


@dataclass(frozen=True, slots=True)
class Seat:
    """A referee at the table: under which name it plays, and how much it weighs as the run goes on."""

    name: str
    referee: Referee
    weight: Schedule = ALWAYS_ONE


@dataclass(frozen=True, slots=True)
class Step:
    """What one step did. Tensors are detached; ``n`` is the number of seeds.

    Attributes:
        k, steps: the step, from 0, of how many.
        z: the latent after the step (n, c, h, w).
        image: decoded from the latent before the step (n, 3, H, W), in [0, 1].
        losses: each playing referee's mean loss over views, (n,).
        norms: length of each referee's gradient and of the prior's pull ("prior"), (n,).
        agreement: length of the mean of the unit gradients, (n,): 1 unanimous, 0 deadlock; None in the tail.
        sat_out: names and samples whose gradient was zero or not finite, (n,).
    """

    k: int
    steps: int
    z: Latent
    image: Image
    losses: Mapping[str, PerSample]
    norms: Mapping[str, PerSample]
    agreement: PerSample | None
    sat_out: Mapping[str, Bool[Tensor, "n"]]


def invert(
    prompt: Prompt | str,
    seats: Sequence[Seat],
    prior: Prior,
    *,
    rules: Rules | None = None,
    augmentation: Augmentation | None = None,
    balancer: Balancer = balance.norm,
    seeds: Sequence[int] = (0,),
    size: tuple[int, int] = (512, 512),
    device: torch.device | str = "cpu",
) -> Iterator[Step]:
    """Play: optimise one latent per seed, yielding every step.

    Args:
        prompt: what to draw.
        seats: the referees, by name and weight; none plays the prior alone.
        prior: owns the latent space; with ``prior_weight`` 0 it only decodes.
        rules: the numbers of the algorithm.
        augmentation: of the views; None scores the plain image once per step.
        balancer: makes one push of the referees' gradients.
        seeds: one sample each; a sample is the same in any batch.
        size: (height, width) in pixels.
        device: where the latent lives.

    Raises:
        OptionError: no seats and no prior, two seats of one name, no seeds, or a size that does not fit.
        PluginError: a part gave losses or gradients of a wrong shape.

    >>> from referee.testing import ToyPrior, ToyReferee
    >>> rules = Rules(steps=40, tail=0, lr=0.2, noise=0, prior_weight=0, views=1)
    >>> steps = list(invert("red", [Seat("toy", ToyReferee())], ToyPrior(), rules=rules, size=(16, 16)))
    >>> bool(steps[-1].losses["toy"] < steps[0].losses["toy"] / 4)
    True
    """
    rules = rules or Rules()
    prompt = Prompt(prompt) if isinstance(prompt, str) else prompt
    _check(seats, rules, seeds)
    plays_prior = rules.prior_weight.most > 0
    losses_of: dict[str, Loss] = {seat.name: seat.referee.read(prompt) for seat in seats}
    pull_of: Pull | None = prior.read(prompt) if plays_prior else None
    first_of_tail = rules.steps - rules.tail if plays_prior else rules.steps

    z = normal(seeds, 0, "start", prior.latent_shape(*size)).to(device).requires_grad_()
    ema = z.detach().clone()
    optimiser = _optimiser(z, rules)
    for k in range(rules.steps):
        progress = Progress(k, rules.steps)
        u, lr = progress.fraction, rules.learning_rate(k)
        weights = {s.name: s.weight(u) for s in seats if s.weight(u) > 0} if k < first_of_tail else {}

        with torch.set_grad_enabled(bool(weights)):
            x = prior.decode(z)  # once; its graph serves every referee
        pull, prior_out = _pull(pull_of, z, progress, seeds, rules.prior_weight(u))
        losses, rows, sat_out = _rows(
            x, z, [s for s in seats if s.name in weights], losses_of, seeds, k, rules, augmentation
        )
        shares = {name: weights[name] * (~sat_out[name]).float() for name in rows}

        image, agreed = x.detach(), None
        with torch.no_grad():
            if rows:
                push, _ = _usable(rules.referee_weight(u) * _shaped("balancer", balancer(rows, shares, pull), z))
                agreed = balance.agreement(rows, shares)
                if (deviation := rules.gradient_noise(u)) > 0:
                    push = push + deviation * normal(seeds, k, "gradient noise", tuple(z.shape[1:])).to(z.device)
                z.grad = push.to(z.dtype)
                optimiser.param_groups[0]["lr"] = lr
                optimiser.step()  # z = Adam(z, lr, g_r)
            if pull is not None:
                z -= (rules.prior_lr(u) if rules.prior_lr else lr) * pull
            if (deviation := (rules.noise if k < first_of_tail else rules.tail_noise)(u)) > 0:
                z += deviation * normal(seeds, k, "noise", tuple(z.shape[1:])).to(z.device)
            ema.lerp_(z, 1 - rules.ema_decay)
            if rules.restarts_at(k):
                z.copy_(ema)  # a copy: the released code lets the two share memory

        norms = {name: balance.lengths(g).float() for name, g in rows.items()}
        if pull is not None:
            norms["prior"], sat_out["prior"] = balance.lengths(pull).float(), prior_out
        yield Step(k, rules.steps, z.detach().clone(), image, losses, norms, agreed, sat_out)


def _rows(
    x: Image, z: Latent, seats: Sequence[Seat], losses_of: Mapping[str, Loss], seeds: Sequence[int], k: int,
    rules: Rules, augmentation: Augmentation | None,
) -> tuple[dict[str, PerSample], dict[str, Latent], dict[str, Bool[Tensor, "n"]]]:  # fmt: skip
    """Each referee's loss and gradient; a gradient that is zero or not finite is zeroed and its sample sits out."""
    plan = ViewPlan(seeds, k, rules.views if augmentation else 1, rules.micro_batch, augmentation)
    losses, rows, sat_out = {}, {}, {}
    for seat in seats:
        last = seat is seats[-1]
        losses[seat.name], g = referee_gradient(
            losses_of[seat.name], seat.referee.input_size, x, z, plan, keep_graph=not last, name=seat.name
        )
        rows[seat.name], sat_out[seat.name] = _usable(g)
    return losses, rows, sat_out


def _pull(
    pull_of: Pull | None, z: Latent, progress: Progress, seeds: Sequence[int], weight: float
) -> tuple[Latent | None, Bool[Tensor, "n"]]:
    if pull_of is None:
        return None, torch.zeros(len(z), dtype=torch.bool)
    pull = pull_of(z.detach(), progress, generators(seeds, progress.k, "prior"))
    return _usable(weight * _shaped("prior", pull, z))


def _shaped(who: str, g: Latent, z: Latent) -> Latent:
    if g.shape != z.shape:  # of another, it may be broadcast: a wrong picture, and no word
        raise PluginError(f"The {who} gave a gradient of shape {tuple(g.shape)}; expected {tuple(z.shape)}, that of z.")
    return g


def _usable(g: Latent) -> tuple[Latent, Bool[Tensor, "n"]]:
    good = balance.usable(g)
    return torch.where(good[:, None, None, None], g, 0.0), ~good


def _optimiser(z: Latent, rules: Rules) -> torch.optim.Optimizer:
    if rules.update == "adam":
        return torch.optim.Adam([z], lr=1.0, weight_decay=rules.weight_decay)
    return torch.optim.SGD([z], lr=1.0)


def _check(seats: Sequence[Seat], rules: Rules, seeds: Sequence[int]) -> None:
    names = [seat.name for seat in seats]
    if twice := {name for name in names if names.count(name) > 1}:
        raise OptionError(f"Two referees are called '{min(twice)}'. Give each a name of its own.")
    if "prior" in names:
        raise OptionError("A referee cannot be called 'prior': the prior's own norm goes by that name.")
    if not any(seat.weight.most > 0 for seat in seats) and rules.prior_weight.most == 0:
        raise OptionError("Nobody plays: name a referee, or give the prior a weight above 0.")
    for seat in seats:
        if seat.weight.least < 0:
            raise OptionError(f"The weight of '{seat.name}' falls to {seat.weight.least:g}; it must not be negative.")
    if not seeds:
        raise OptionError("At least one seed is needed.")
    if len(set(seeds)) < len(seeds):
        raise OptionError(f"The seeds {list(seeds)} repeat: equal seeds draw equal pictures.")
