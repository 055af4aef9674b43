"""Balancing: one direction of several referees' gradients. Here the paper's rule and what all rules need.

The paper (arXiv 2402.16305, Algorithm 1) scales one referee's gradient to the length of the prior's. With several,
each is scaled to unit length first, so that none shouts; their weighted mean is then given the prior's length. It is
not stretched back when they disagree: two referees that pull apart push less, and `agreement` says so.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from referee.contract import Latent

PerSample = Float[Tensor, "n"]


def lengths(g: Latent) -> PerSample:
    """Euclidean length of each sample's row, in float64 so that nothing overflows."""
    found: Tensor = torch.linalg.vector_norm(g.flatten(1).double(), dim=1)
    return found


def usable(g: Latent) -> Bool[Tensor, "n"]:
    """Whether a sample's row is finite and not zero: what is not sits out the step."""
    size = lengths(g)
    return size.isfinite() & (size > 0)


def directions(rows: Mapping[str, Latent]) -> dict[str, Latent]:
    """Each row at unit length per sample; rows that are zero or not finite become zero."""
    found = {}
    for name, g in rows.items():
        good = usable(g)[:, None, None, None]
        size = lengths(g)[:, None, None, None]
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


def norm(rows: Mapping[str, Latent], weights: Mapping[str, PerSample], pull: Latent | None) -> Latent:
    """The default rule: the mean direction at the prior's length, per sample.

    Without a prior there is no length to take: the push is given unit root mean square, so that ``lr`` keeps its
    meaning of "deviations of the latent per step".

    >>> g = torch.tensor([[[[3.0, 4.0]]]])
    >>> one = torch.ones(1)
    >>> norm({"a": g}, {"a": one}, pull=2 * g).flatten().tolist()      # 10 long, along g
    [6.0, 8.0]
    """
    mean = mean_direction(rows, weights)
    size = lengths(pull) if pull is not None else torch.full((len(mean),), mean[0].numel() ** 0.5, device=mean.device)
    return mean * size.to(mean.dtype)[:, None, None, None]
