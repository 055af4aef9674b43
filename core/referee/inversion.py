"""Algorithm 1 of "Referee Can Play" (arXiv 2402.16305): model inversion steered by referees, held by a prior.

    z0 ~ N(0, I);  z_ema = z0
    for i = 1..I:
        x     = DEC(z)
        g_p   = w2 grad_z L_SDS(z, y)                              the prior's pull
        g_r   = w1 |g_p| grad_z E_A[L(A(x), y)] / |grad_z ...|     the referees' push, balanced
        z     = Adam(z, lr, g_r);  z = z - lr g_p;  z = z + eps_z
        z_ema = lambda z_ema + (1 - lambda) z
        if i is a restart: z = z_ema

`invert` yields each step and holds no other state than z, its average, the optimiser's moments and ``memory``, in which
its parts keep what they need (`referee.state.State`: it can be handed out after any step, and begun from): showing,
saving and stopping are the caller's. Differences from the paper and from its released code are listed in
docs/fidelity.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from referee import balance
from referee.contract import Augmentation, Balancer, Image, Latent, Memory, Prior, Progress, Prompt, Pull
from referee.control.canvas import Canvas
from referee.errors import OptionError, blamed, nearest
from referee.panel import SPACES, Panel, Space, check, pictured, shaped, warn_of_idle
from referee.randomness import generators, normal
from referee.rules import Rules
from referee.seat import Seat
from referee.state import State

__all__ = ["Seat", "State", "Step", "invert"]

PerSample = Float[Tensor, "n"]


@dataclass(frozen=True, slots=True)
class Step:
    """What one step did. Tensors are detached; ``n`` is the number of seeds.

    Attributes:
        k, steps: the step, from 0, of how many.
        z: the latent after the step (n, c, h, w).
        image: decoded from the latent before the step (n, 3, H, W), in [0, 1].
        losses: mean loss over views of each referee that was asked, (n,).
        norms: length of each playing referee's gradient and of the prior's pull ("prior"), (n,).
        agreement: length of the mean of the unit gradients, (n,): 1 unanimous, 0 deadlock; None in the tail.
        sat_out: names and samples whose gradient was zero or not finite, (n,).
        cosines: who pulls with whom; the prior is one of them if rows are on the latent, as its pull is. None in the
            tail.
        maps: at the last step that referees steer, else empty: where on the image each pulls, (n, H, W): |d loss / d x|
            of a referee when it was last asked, and for "prior" how its step alone changes x, |DEC(z - lr g_p) - x|;
            both summed over channels, each in a unit of its own.
        state: gives a copy of the loop's state after the step, if called before the next step is asked for.
        judge: the judge's losses of the picture after the step, (n,), where whoever drains the steps asked one.
    """

    k: int
    steps: int
    z: Latent
    image: Image
    losses: Mapping[str, PerSample]
    norms: Mapping[str, PerSample]
    agreement: PerSample | None
    sat_out: Mapping[str, Bool[Tensor, "n"]]
    cosines: balance.Cosines | None = None
    maps: Mapping[str, Float[Tensor, "n H W"]] = field(default_factory=dict)
    state: Callable[[], State] | None = None
    judge: PerSample | None = None


def invert(
    prompt: Prompt | str,
    seats: Sequence[Seat],
    prior: Prior,
    *,
    rules: Rules | None = None,
    augmentation: Augmentation | None = None,
    balancer: Balancer = balance.norm,
    space: Space = "latent",
    seeds: Sequence[int] = (0,),
    size: tuple[int, int] = (512, 512),
    device: torch.device | str = "cpu",
    memory: Memory | None = None,
    state: State | None = None,
) -> Iterator[Step]:
    """Play: optimise one latent per seed, yielding every step.

    Args:
        prompt: what to draw.
        seats: the referees at the table; none plays the prior alone.
        prior: owns the latent space; with ``prior_weight`` 0 it only decodes. A `referee.control.canvas.Canvas` of one
            begins with a picture.
        rules: the numbers of the algorithm.
        augmentation: of the views; None scores the plain image once per step.
        balancer: makes one push of the referees' gradients.
        space: where it does: on the "latent", exact, with a decoder's backward pass for each referee; or on the
            "image", with one in all.
        seeds: one sample each; a sample is the same in any batch.
        size: (height, width) in pixels.
        device: where the latent lives.
        memory: what panel and balancer keep from step to step is put here; a run begins with an empty one.
        state: where to go on: what ``step.state()`` gave in a run of the same arguments. The steps that follow are
            those of the unbroken run, bit for bit.

    Raises:
        OptionError: no seats and no prior, two seats of one name, no seeds, a size that does not fit, or a state of
            another run.
        PluginError: a part gave losses or gradients of a wrong shape.

    >>> from referee.testing import ToyPrior, ToyReferee
    >>> rules = Rules(steps=40, tail=0, lr=0.2, noise=0, prior_weight=0, views=1)
    >>> steps = list(invert("red", [Seat("toy", ToyReferee())], ToyPrior(), rules=rules, size=(16, 16)))
    >>> bool(steps[-1].losses["toy"] < steps[0].losses["toy"] / 4)
    True
    """
    rules = rules or Rules()
    prompt = Prompt(prompt) if isinstance(prompt, str) else prompt
    canvas = prior if isinstance(prior, Canvas) else None
    first = rules.first_step(canvas.strength) if canvas else 0
    check(seats, rules)
    _check_seeds(seeds)
    if space not in SPACES:
        raise OptionError(f"There is no space '{space}' to balance in. {nearest(space, SPACES)}")
    plays_prior = rules.prior_weight.most > 0
    memory = {} if memory is None else memory
    memory |= _copies(state.memory, device) if state else {}
    panel = Panel(seats, prompt, rules, augmentation, balancer, space, seeds, memory, device)
    check(panel.seats, rules)  # once more: who has nothing to judge sits out
    warn_of_idle(panel.seats, rules, first)
    pull_of: Pull | None = prior.read(prompt) if plays_prior else None
    first_of_tail = rules.steps - rules.tail if plays_prior else rules.steps

    begin = _begin(seeds, prior.latent_shape(*size), rules, state, canvas)
    z = begin.z.to(device, copy=True).requires_grad_()
    ema = begin.ema.to(device, copy=True)
    optimiser = _optimiser(z, rules, begin.moments)
    panel.maps |= _copies(begin.maps, device)
    for k in range(begin.k, rules.steps):
        progress = Progress(k, rules.steps)
        u, lr = progress.fraction, rules.learning_rate(k)
        prior_lr = rules.prior_lr(u) if rules.prior_lr else lr
        weights = panel.weights(k) if k < first_of_tail else {}

        with torch.set_grad_enabled(bool(weights)):
            x = pictured(prior.decode(z), len(z), size)  # once; its graph serves every referee
        pull, prior_out = _pull(pull_of, z, progress, seeds, rules.prior_weight(u))
        heard = panel.hear(x, z, k, weights)
        shares = {name: weights[name] * (~heard.sat_out[name]).float() for name in weights}

        image, agreed, cosines, maps = x.detach(), None, None, {}
        with torch.no_grad():
            if k == first_of_tail - 1:
                maps = dict(panel.maps)
                if pull is not None:
                    maps["prior"] = (prior.decode(z - prior_lr * pull) - image).abs().sum(1)
            if weights:
                push, _ = _usable(rules.referee_weight(u) * panel.push(x, z, heard.rows, shares, pull))
                agreed = balance.agreement(heard.rows, shares)
                comparable = {} if pull is None or space == "image" else {"prior": pull}
                cosines = balance.cosines({**heard.rows, **comparable})
                if (deviation := rules.gradient_noise(u)) > 0:
                    push = push + deviation * normal(seeds, k, "gradient noise", tuple(z.shape[1:])).to(z.device)
                z.grad = push.to(z.dtype)
                optimiser.param_groups[0]["lr"] = lr
                optimiser.step()  # z = Adam(z, lr, g_r)
            if pull is not None:
                z -= prior_lr * pull
            if (deviation := (rules.noise if k < first_of_tail else rules.tail_noise)(u)) > 0:
                z += deviation * normal(seeds, k, "noise", tuple(z.shape[1:])).to(z.device)
            if canvas:
                z.copy_(canvas.hold(z))
            ema.lerp_(z, 1 - rules.ema_decay)
            if rules.restarts_at(k):
                z.copy_(ema)  # a copy: the released code lets the two share memory

        norms, sat_out = {name: balance.lengths(g).float() for name, g in heard.rows.items()}, heard.sat_out
        if pull is not None:
            norms["prior"], sat_out["prior"] = balance.lengths(pull).float(), prior_out
        memory |= {name: t.contiguous() for name, t in memory.items()}  # as read from a file: layout decides rounding
        here = partial(_after, k, z, ema, optimiser, panel)
        yield Step(k, rules.steps, z.detach().clone(), image, heard.losses, norms, agreed, sat_out, cosines, maps, here)


def _begin(
    seeds: Sequence[int], shape: tuple[int, int, int], rules: Rules, state: State | None, canvas: Canvas | None
) -> State:
    """Where a run goes on; by default z0 ~ N(0, I), or near the picture that it begins with; z_ema = z0."""
    if state is None:
        z = normal(seeds, 0, "start", shape)
        if canvas is None:
            return State(0, z, z)
        z = canvas.start(z)
        return State(rules.first_step(canvas.strength), z, z)
    state.check((len(seeds), *shape), rules.steps)
    return state


def _after(k: int, z: Latent, ema: Latent, optimiser: torch.optim.Optimizer, panel: Panel) -> State:
    moments = {name: t for name, t in optimiser.state.get(z, {}).items() if isinstance(t, Tensor)}
    return State(k + 1, z.detach().clone(), ema.clone(), _copies(moments), _copies(panel.memory), dict(panel.maps))


def _copies(table: Mapping[str, Tensor], device: torch.device | str | None = None) -> dict[str, Tensor]:
    return {name: t.detach().to(device=device, copy=True) for name, t in table.items()}


def _pull(
    pull_of: Pull | None, z: Latent, progress: Progress, seeds: Sequence[int], weight: float
) -> tuple[Latent | None, Bool[Tensor, "n"]]:
    if pull_of is None:
        return None, torch.zeros(len(z), dtype=torch.bool)
    with blamed("prior", progress.k):
        pull = pull_of(z.detach(), progress, generators(seeds, progress.k, "prior"))
    return _usable(weight * shaped("prior", pull, z))


def _usable(g: Latent) -> tuple[Latent, Bool[Tensor, "n"]]:
    good = balance.usable(g)
    return torch.where(good[:, None, None, None], g, 0.0), ~good


def _optimiser(z: Latent, rules: Rules, moments: Mapping[str, Tensor]) -> torch.optim.Optimizer:
    adam = rules.update == "adam"
    made = torch.optim.Adam([z], lr=1.0, weight_decay=rules.weight_decay) if adam else torch.optim.SGD([z], lr=1.0)
    if moments:
        # Copies, as torch makes some of them, and not of Adam's count; it brings them to z's device.
        made.load_state_dict({**made.state_dict(), "state": {0: _copies(moments)}})
    return made


def _check_seeds(seeds: Sequence[int]) -> None:
    if not seeds:
        raise OptionError("At least one seed is needed.")
    if len(set(seeds)) < len(seeds):
        raise OptionError(f"The seeds {list(seeds)} repeat: equal seeds draw equal pictures.")
