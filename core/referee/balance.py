"""Balancing: one direction of several referees' gradients. Here the paper's rule and what all rules need.

The paper (arXiv 2402.16305, Algorithm 1) scales one referee's gradient to the length of the prior's. With several,
each is scaled to unit length first, so that none shouts; their weighted mean is then given the prior's length. It is
not stretched back when they disagree: two referees that pull apart push less, and `agreement` says so.

Rows are gradients on the latent. They may as well be gradients on the image (``space="image"``): combined there, their
push is carried through the decoder once, whatever the number of referees. See `referee.panel.Panel.push`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from referee.contract import Latent

PerSample = Float[Tensor, "n"]


@dataclass(frozen=True, slots=True)
class Cosines:
    """Who pulls with whom: the cosine of every pair of rows, (n, r, r), NaN where one of the two is not usable."""

    names: tuple[str, ...]
    matrix: Float[Tensor, "n r r"]


def lengths(g: Latent) -> PerSample:
    """Euclidean length of each sample's row, in float64 so that nothing overflows."""
    found: Tensor = torch.linalg.vector_norm(g, dim=tuple(range(1, g.dim())), dtype=torch.float64)
    return found


def usable(g: Latent) -> Bool[Tensor, "n"]:
    """Whether a sample's row is finite and not zero: what is not sits out the step."""
    return _sound(lengths(g))


def _sound(size: PerSample) -> Bool[Tensor, "n"]:
    return size.isfinite() & (size > 0)


def directions(rows: Mapping[str, Latent]) -> dict[str, Latent]:
    """Each row at unit length per sample; rows that are zero or not finite become zero."""
    found = {}
    for name, g in rows.items():
        size = lengths(g)[:, None, None, None]
        good = _sound(size)
        found[name] = torch.where(good, g / torch.where(good, size, 1.0), 0.0).to(g.dtype)
    return found


def mean_direction(rows: Mapping[str, Latent], weights: Mapping[str, PerSample]) -> Latent:
    """sum_r w_r g_r / |g_r| over sum_r w_r, per sample: of length 1 if all agree, 0 in deadlock."""
    total = torch.stack(list(weights.values())).sum(0).clamp_min(torch.finfo(torch.float32).tiny)
    parts = [(weights[name] / total)[:, None, None, None] * u for name, u in directions(rows).items()]
    return torch.stack(parts).sum(0)


def agreement(rows: Mapping[str, Latent], weights: Mapping[str, PerSample]) -> PerSample:
    """|sum of weighted unit gradients| over the sum of weights: 1 unanimous, 0 deadlock."""
    return lengths(mean_direction(rows, weights)).float()


def cosines(rows: Mapping[str, Latent]) -> Cosines:
    """Of all pairs, per sample, in float64 and given as float32.

    >>> g = torch.tensor([[[[3.0, 4.0]]]])
    >>> cosines({"a": g, "b": -2 * g}).matrix.tolist()
    [[[1.0, -1.0], [-1.0, 1.0]]]
    """
    stacked = torch.stack([g.flatten(1) for g in rows.values()], 1).double()
    size = torch.linalg.vector_norm(stacked, dim=2, keepdim=True)
    good = _sound(size)
    units = torch.where(good, stacked / torch.where(good, size, 1.0), 0.0)
    found = (units @ units.mT).clamp(-1, 1)
    return Cosines(tuple(rows), torch.where(good & good.mT, found, torch.nan).float())


def at_length(direction: Latent, pull: Latent | None) -> Latent:
    """A direction (n, ...) of length at most 1, times the prior's length, per sample.

    Without a prior there is no length to take: a direction of length 1 is given unit root mean square, so that ``lr``
    keeps its meaning of "deviations of the latent per step".
    """
    if pull is None:
        return direction * math.sqrt(direction[0].numel())
    size = lengths(pull).to(direction.dtype)[:, None, None, None]
    return direction * size


def norm(rows: Mapping[str, Latent], weights: Mapping[str, PerSample], pull: Latent | None) -> Latent:
    """The default rule: the mean direction at the prior's length, per sample.

    >>> g = torch.tensor([[[[3.0, 4.0]]]])
    >>> one = torch.ones(1)
    >>> norm({"a": g}, {"a": one}, pull=2 * g).flatten().tolist()      # 10 long, along g
    [6.0, 8.0]
    """
    return at_length(mean_direction(rows, weights), pull)
