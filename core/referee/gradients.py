"""A referee's gradient on the latent, in memory that does not grow with views or referees.

E_A[L(A(x), y)] of Algorithm 1: views are made and scored a micro-batch at a time and back-propagated to the
decoded image at once; one vector-Jacobian product then carries the sum through the decoder: one for each referee, or,
when they are balanced on the image, one for all. One referee's graph lives at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from referee.contract import Augmentation, Image, Latent, Loss
from referee.control.region import Region
from referee.errors import PluginError
from referee.randomness import generator


def resize(x: Image, size: int) -> Float[Tensor, "n 3 S S"]:
    """An image at a referee's input size, anti-aliased, differentiable."""
    if x.shape[-2:] == (size, size):
        return x
    return F.interpolate(x, (size, size), mode="bilinear", antialias=True, align_corners=False)


@dataclass(frozen=True, slots=True)
class ViewPlan:
    """Which views are taken in a step, and in what portions.

    Args:
        seeds: one per sample; with the step they fix every view, whatever it is batched with.
        step: the step's number.
        count: views per image.
        micro_batch: views scored at once, at most: memory, not results, depends on it.
        augmentation: None scores the plain image, once.
        region: the part of the image that is seen; None for all of it.
    """

    seeds: Sequence[int]
    step: int
    count: int
    micro_batch: int
    augmentation: Augmentation | None
    region: Region | None = None

    def portions(self) -> list[list[tuple[int, int]]]:
        """(sample, view) pairs in micro-batches."""
        pairs = [(i, v) for i in range(len(self.seeds)) for v in range(self.count)]
        return [pairs[start : start + self.micro_batch] for start in range(0, len(pairs), self.micro_batch)]

    def views(self, x: Image, portion: list[tuple[int, int]]) -> Image:
        """Those views of x, each from its own generator."""
        # Not x[indices], whose backward pass adds up in the order in which threads come: sums would differ by rounding.
        counts = [(i, len(list(same))) for i, same in groupby(i for i, _ in portion)]
        each = [x[i : i + 1].expand(count, -1, -1, -1) for i, count in counts]
        picked = each[0] if len(each) == 1 else torch.cat(each)
        if self.augmentation is None:
            return picked
        return self.augmentation(picked, [generator(self.seeds[i], self.step, f"view {v}") for i, v in portion])


@torch.enable_grad()  # whatever the caller's mode: without a graph there is no gradient
def referee_gradient(
    loss: Loss, size: int, x: Image, z: Latent, plan: ViewPlan, *, keep_graph: bool, name: str = "referee"
) -> tuple[Float[Tensor, "n"], Latent]:
    """Mean loss over the views of each sample, and its gradient on z, or on x itself if that is given for z.

    Args:
        loss: the referee, having read the prompt.
        size: the side of its views.
        x: the image, decoded from z with its graph.
        z: a leaf that requires a gradient; or x.
        plan: which views.
        keep_graph: whether another referee will need x's graph after this one.
        name: of the referee, for errors.

    Raises:
        PluginError: the referee gave something other than one number per view, differentiable with respect to it.
    """
    image = resize(plan.region.crop(x) if plan.region else x, size)
    leaf = image.detach().requires_grad_()
    pull = torch.zeros_like(leaf)
    found = []
    for portion in plan.portions():
        losses = loss(plan.views(leaf, portion))
        if losses.shape != (len(portion),) or not losses.requires_grad:
            shape = f"{tuple(losses.shape)}{'' if losses.requires_grad else ' without gradient'}"
            raise PluginError(
                f"'{name}' gave a loss of shape {shape} for {len(portion)} views; "
                f"expected ({len(portion)},), one differentiable number per view."
            )
        (g,) = torch.autograd.grad(losses.sum() / plan.count, leaf, allow_unused=True)
        if g is None:
            raise PluginError(f"'{name}' gave a loss that does not depend on the views: are they detached on the way?")
        pull += g
        found.append(losses.detach().float())
    means = torch.cat(found).view(len(leaf), plan.count).mean(1)  # views of a sample follow each other
    if image is z:
        return means, pull
    (g,) = torch.autograd.grad(image, z, pull, retain_graph=keep_graph)
    return means, g


def through_decoder(x: Image, z: Latent, g: Image, *, keep_graph: bool) -> Latent:
    """A gradient on the image, as a gradient on the latent that it was decoded from."""
    (found,) = torch.autograd.grad(x, z, g.to(x.dtype), retain_graph=keep_graph)
    return found
