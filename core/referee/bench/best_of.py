"""The best of N: plain samples of the prior, and the referees take one.

    x* = argmin over x_1 .. x_N of  sum_r w_r L_r(x_i) / sum_r w_r,     L_r: referee r's loss, the mean over the views

What every method is held against that asks a reward at inference: it follows no gradient, and N pictures cost N times
one (Karthik et al., arXiv 2305.13308, pick so among the samples of diffusion models, by automatic scores). The losses
are added as they are, each in its own unit, so weights have to make up for the units.
"""

from __future__ import annotations

from statistics import fmean
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from referee import balance
from referee.contract import Augmentation, Image, Prior, Prompt, Sampler
from referee.control.canvas import Canvas
from referee.errors import OptionError, PluginError, blamed
from referee.gradients import ViewPlan, resize
from referee.panel import Panel
from referee.parts import Parts
from referee.randomness import generator
from referee.seat import Seat, at_work
from referee.timeout import limited

if TYPE_CHECKING:
    from referee.bench.peers import BestOf


def pick(parts: Parts, prompt: Prompt, seed: int, options: BestOf) -> Image:
    """The picture, (1, 3, H, W) in [0, 1] on the CPU.

    Sample i is drawn from (seed, i), whatever it is batched with; sample 0 is the plain sample of the seed. All are
    judged on the same views. ``rules.micro_batch`` pictures are drawn at once, and so many views scored at once.

    Raises:
        OptionError: there is no referee.
        PluginError: the prior cannot sample.
    """
    prior = bare(parts.prior)
    if not isinstance(prior, Sampler):
        raise PluginError("This prior has no plain sampling, see referee.contract.Sampler: nothing to pick from.")
    panel, size = seated(parts, prompt, seed), parts.rules.micro_batch
    best: Image | None = None
    least = torch.inf
    for start in range(0, options.n, size):
        mine = range(start, min(start + size, options.n))
        with torch.no_grad():
            x = prior.sample(prompt, *parts.size, [generator(seed, i, "sample") for i in mine]).float()
        for image, loss in zip(x, opinion(panel, x, seed, options.views).tolist(), strict=True):
            if best is None or loss < least:  # never for NaN
                best, least = image[None], loss
    assert best is not None
    return best.cpu()


def opinion(panel: Panel, x: Image, seed: int, views: int) -> Float[Tensor, "n"]:
    """The referees' weighted mean loss of each picture, without gradient.

    A referee's weight is its mean over a run. Each judges by its own prompt, region and augmentation; in place of views
    of its own number it has ``views``, the same for every picture.

    Raises:
        PluginError: a referee failed, or gave something other than one number per view.
    """
    steps = panel.rules.steps
    weights = {seat.name: fmean(seat.weight_at(k, steps) for k in range(steps)) for seat in panel.seats}
    found = torch.zeros(len(x), device=x.device)
    for seat in panel.seats:
        if weights[seat.name] > 0:
            with torch.no_grad(), blamed(seat.name, 0), limited(seat.timeout), at_work(seat, x.device):
                found += weights[seat.name] / sum(weights.values()) * _mean_loss(panel, seat, x, seed, views)
    return found


def _mean_loss(panel: Panel, seat: Seat, x: Image, seed: int, views: int) -> Float[Tensor, "n"]:
    own: Augmentation | None = panel.augmentation if seat.augmentation == "shared" else seat.augmentation
    count, own = (views, own) if views and own else (1, None)
    plan = ViewPlan([seed] * len(x), 0, count, panel.rules.micro_batch, own)
    image = resize(seat.region.crop(x) if seat.region else x, seat.referee.input_size)
    means = torch.zeros(len(x), device=x.device)
    for portion in plan.portions():
        losses = panel.losses_of[seat.name](plan.views(image, portion))
        if losses.shape != (len(portion),):
            raise PluginError(f"'{seat.name}' gave a loss of shape {tuple(losses.shape)} for {len(portion)} views.")
        means.index_add_(0, torch.tensor([i for i, _ in portion], device=x.device), losses.float() / count)
    return means


def seated(parts: Parts, prompt: Prompt, seed: int) -> Panel:
    """The referees, having read their prompts.

    Raises:
        OptionError: there is none that has a weight.
    """
    if not any(seat.weight.most > 0 for seat in parts.seats):
        raise OptionError("Nobody is there to say which picture is best: name a referee.")
    rules, shared = parts.rules, parts.augmentation
    return Panel(parts.seats, prompt, rules, shared, balance.norm, "image", (seed,), {}, parts.device)


def bare(prior: Prior) -> Prior:
    """The prior itself: neither way begins with a picture."""
    return prior.prior if isinstance(prior, Canvas) else prior
