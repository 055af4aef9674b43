"""How smooth a function is near a point: its local Lipschitz constant and curvature, along straight lines.

For f: R^D -> R, a point x, a radius r and a unit direction u, by symmetric differences:

    slope(u) = |f(x + r u) - f(x - r u)| / (2 r)              what f changes per unit of length
    bend(u)  = |f(x + r u) - 2 f(x) + f(x - r u)| / r^2       how much that slope changes per unit of length

The local Lipschitz constant, sup |f(a) - f(b)| / |a - b| over a and b within r of x, is at least the largest slope, and
at least the length of f's gradient at x, which is what it becomes as r goes to 0. The Lipschitz constant of the
gradient there, the largest size of an eigenvalue of f's Hessian, is at least the largest bend, which is a mean of
u' H u along the line. Told are the largest slope and bend along random directions, uniform on the sphere, and the
gradient's length, as a random direction of so many dimensions hardly meets the steepest one. Compared are functions on
the same space, along the same directions.

An average over views is a function as well: the same views at every point. f is therefore given as the functions whose
mean it is, so that one pass measures the average and, on average, its members.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Generator, Tensor

Members = Callable[[Float[Tensor, "b *shape"]], Float[Tensor, "b v"]]
"""v functions of a point, at b points: one row per point."""


@dataclass(frozen=True, slots=True)
class Smoothness:
    """Of one function at one point, at one radius.

    Attributes:
        slope, bend: the largest along the random directions.
        steepest: the length of its gradient at the point.
    """

    slope: float
    bend: float
    steepest: float


@dataclass(frozen=True, slots=True)
class Compared:
    """The mean of some functions, and the mean over them of what each is by itself."""

    averaged: Smoothness
    single: Smoothness


def directions(like: Float[Tensor, "1 *shape"], count: int, generator: Generator) -> Float[Tensor, "m *shape"]:
    """Unit vectors of the shape of a point, uniform on the sphere."""
    drawn = torch.randn((count, *like.shape[1:]), generator=generator)
    return unit(drawn).to(like)


def unit(vectors: Float[Tensor, "m *shape"]) -> Float[Tensor, "m *shape"]:
    """Each at length 1; one of length 0 stays."""
    lengths = vectors.flatten(1).norm(dim=1).clamp_min(torch.finfo(vectors.dtype).tiny)
    found: Tensor = vectors / lengths.view(-1, *[1] * (vectors.ndim - 1))
    return found


def differences(
    f: Members, x: Float[Tensor, "1 *shape"], along: Float[Tensor, "m *shape"], radius: float
) -> tuple[Float[Tensor, "m v"], Float[Tensor, "m v"]]:
    """First and second symmetric differences of each function along each direction, with their signs, in float64."""
    with torch.no_grad():
        here = f(x).double()
        ahead, behind = (torch.cat([f(x + side * radius * u[None]) for u in along]).double() for side in (1.0, -1.0))
    return (ahead - behind) / (2 * radius), (ahead - 2 * here + behind) / radius**2


def measure(f: Members, x: Float[Tensor, "1 *shape"], along: Float[Tensor, "m *shape"], radius: float) -> Compared:
    """Smoothness of the mean of f's functions at x, and the mean of that of each.

    Args:
        f: differentiable.
        x: the point.
        along: unit directions.
        radius: how far to go, in x's unit.

    >>> bowl = lambda x: 1.5 * x.square().flatten(1).sum(1, keepdim=True)          # its curvature is 3 everywhere
    >>> x = torch.zeros(1, 4)
    >>> found = measure(bowl, x, directions(x, 5, torch.Generator().manual_seed(0)), 0.5)
    >>> round(found.averaged.bend, 4), round(found.averaged.slope, 4)
    (3.0, 0.0)
    """
    first, second = differences(f, x, along, radius)
    gradients = _gradients(f, x)
    return Compared(
        Smoothness(
            first.mean(1).abs().max().item(), second.mean(1).abs().max().item(), gradients.mean(0).norm().item()
        ),
        Smoothness(
            first.abs().amax(0).mean().item(), second.abs().amax(0).mean().item(),
            gradients.flatten(1).norm(dim=1).mean().item(),
        ),
    )  # fmt: skip


def _gradients(f: Members, x: Float[Tensor, "1 *shape"]) -> Float[Tensor, "v *shape"]:
    """Of each function at x."""
    leaf = x.detach().requires_grad_()
    with torch.enable_grad():
        values = f(leaf)[0]
        found = [torch.autograd.grad(value, leaf, retain_graph=True)[0] for value in values]
    return torch.cat(found)
