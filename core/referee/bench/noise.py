"""Reward-based noise optimisation, ReNO (Eyring et al., arXiv 2406.04312): not the latent is moved, but the noise of
which a sampler of few steps G makes it. What keeps the picture real is that it is a sample of the model.

    minimise over e    sum_r w_r E_A[L_r(A(DEC(G(e))), y)]  +  lambda K(e)
    K(e) = |e|^2 / 2 - (d - 1) log |e|            minus log-likelihood of a length |e| among d standard normal numbers
                                                  (the chi distribution), but for a constant
    g = gradient, made no longer than `clip`;     e = e - lr Nesterov(g, 0.9);     the best e by the first sum is kept

So does the authors' released code (ExplainableML/ReNO, training/trainer.py, training/optim.py and arguments.py at
commit 172e997): one sum of losses with fixed weights; K in it before the gradient is clipped; SGD with Nesterov
momentum; 50 iterations at lambda 0.01, clip 0.1 and lr 5; no step after the last; the picture of the least sum without
K. Other than there, referees are asked through augmented views, as in a run (theirs see the plain picture, here
``views=0``), the sampler may have more than one step, and the model need not be distilled for few steps. Theirs are,
and so one step of theirs is a picture.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import inf, isfinite
from typing import TYPE_CHECKING, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from referee import balance
from referee.bench.best_of import bare
from referee.contract import FewStep, Image, Latent, Prompt
from referee.errors import OptionError, PluginError
from referee.panel import Heard, Panel
from referee.parts import Parts
from referee.randomness import normal

if TYPE_CHECKING:
    from referee.bench.peers import Noise

MOMENTUM = 0.9


class Total:
    """A `referee.contract.Balancer`: the gradient of the weighted sum of the losses, as it is."""

    own_length: ClassVar[bool] = True

    def __call__(
        self, rows: Mapping[str, Latent], weights: Mapping[str, Float[Tensor, "n"]], pull: Latent | None
    ) -> Latent:
        """sum_r w_r g_r."""
        return torch.stack([weights[name].to(g)[:, None, None, None] * g for name, g in rows.items()]).sum(0)


def optimise(parts: Parts, prompt: Prompt, seed: int, options: Noise) -> Image:
    """The best picture on the way, (1, 3, H, W) in [0, 1] on the CPU.

    The first noise is that of the seed's plain sample. Views, weights and times of the referees go as in a run of so
    many steps; iterations at which not all who play are asked have no sum that could be the least.

    Raises:
        OptionError: there is no referee, or the sampler cannot have so many steps.
        PluginError: the prior has no sampler with a gradient.
    """
    prior = bare(parts.prior)
    if not isinstance(prior, FewStep):
        raise PluginError("This prior has no sampler with a gradient on its noise: see referee.contract.FewStep.")
    panel = _seated(parts, prompt, seed, options)
    denoise = prior.denoiser(prompt, options.steps, options.cfg)
    e = normal((seed,), 0, "sample", prior.latent_shape(*parts.size)).to(parts.device).requires_grad_()
    optimiser = torch.optim.SGD([e], lr=options.lr, momentum=MOMENTUM, nesterov=True)
    best, least = None, inf
    for k in range(options.iterations):
        weights = panel.weights(k)
        x = prior.decode(denoise(e))
        heard = panel.hear(x, e, k, weights)
        if best is None or _total(heard, weights) < least:
            best, least = x.detach(), _total(heard, weights)
        if k + 1 < options.iterations and weights:
            e.grad = clipped(_gradient(panel, x, e, heard, weights, options.regularisation), options.clip)
            optimiser.step()
    assert best is not None
    return best.cpu()


def _seated(parts: Parts, prompt: Prompt, seed: int, options: Noise) -> Panel:
    if not any(seat.weight.most > 0 for seat in parts.seats):
        raise OptionError("Nobody is there to say which noise is better: name a referee.")
    changes = {"steps": options.iterations, "tail": 0} | ({"views": options.views} if options.views else {})
    seats, augmentation = parts.seats, parts.augmentation
    if options.views == 0:
        seats, augmentation = tuple(replace(seat, augmentation=None) for seat in seats), None
    elif options.views:
        seats = tuple(replace(seat, views=None) for seat in seats)
    rules = parts.rules.model_copy(update=changes)
    # On the image: one pass back through decoder and sampler, whatever the number of referees. Of a sum it is exact.
    return Panel(seats, prompt, rules, augmentation, Total(), "image", (seed,), {}, parts.device)


def _total(heard: Heard, weights: Mapping[str, float]) -> float:
    """The weighted sum of the losses; infinite where it is not finite, or not all who play were asked."""
    total = sum(weights[name] * losses.item() for name, losses in heard.losses.items())
    return total if weights and heard.losses.keys() == weights.keys() and isfinite(total) else inf


def _gradient(
    panel: Panel, x: Image, e: Latent, heard: Heard, weights: Mapping[str, float], regularisation: float
) -> Latent:
    """Of the whole sum; where that of the referees is not finite, of K alone."""
    shares = {name: weights[name] * (~heard.sat_out[name]).float() for name in weights}
    push = panel.push(x, e, heard.rows, shares, None)
    found = torch.where(balance.usable(push)[:, None, None, None], push, 0.0)
    return found + regularisation * length_gradient(e.detach())


def length_gradient(e: Latent) -> Latent:
    """Of K(e) = |e|^2 / 2 - (d - 1) log |e|, per sample: ``(1 - (d - 1) / |e|^2) e``, zero where |e|^2 = d - 1.

    >>> e = torch.tensor([[[[3.0, 4.0]]]])
    >>> length_gradient(e).flatten().tolist()                       # d = 2: (1 - 1 / 25) e
    [2.880000114440918, 3.8399999141693115]
    """
    square = e.square().sum((1, 2, 3), keepdim=True)
    return (1 - (e[0].numel() - 1) / square) * e


def clipped(g: Latent, most: float) -> Latent:
    """Each sample's gradient, made no longer than so much.

    >>> clipped(torch.tensor([[[[3.0, 4.0]]], [[[0.3, 0.4]]]]), 1.0).flatten().tolist()
    [0.6000000238418579, 0.800000011920929, 0.30000001192092896, 0.4000000059604645]
    """
    length = balance.lengths(g)[:, None, None, None]
    return torch.where(length > most, (g * (most / length.clamp_min(1e-30))).to(g.dtype), g)
