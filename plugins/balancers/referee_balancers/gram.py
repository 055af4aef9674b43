"""What rules on the Gram matrix share. They see only which angles the unit rows make, and answer with one number a row.

So R referees cost R x R numbers, whatever the size of the latent, and samples are solved in one batch, in float64. For
the few rows that there are, the quadratic programmes of `mgda` and `upgrad` are solved exactly, by trying every set of
constraints that may be active: no solver, no tolerance, no iteration.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import product

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from referee.balance import at_length, directions
from referee.contract import Balancer, Latent
from referee.errors import OptionError

PerSample = Float[Tensor, "n"]
Gram = Float[Tensor, "n r r"]
PerRow = Float[Tensor, "n r"]
Weigh = Callable[[Gram, PerRow], PerRow]

RIDGE = 1e-10
"""Added to the diagonal where a system is solved: rows that are opposite or equal then have an answer. It bounds what
is left of a conflict: along no row is the direction below -sqrt(RIDGE)."""
MOST = 10
"""Rows. 2 ** MOST sets are tried."""


def on_gram(name: str, weigh: Weigh, most: int = MOST) -> Balancer:
    """A balancer from a rule on the Gram matrix.

    Args:
        name: for errors.
        weigh: of the Gram matrix of the unit rows (n, r, r) and the weights (n, r), both float64, makes a factor for
            each unit row (n, r). Where a weight is 0, row and column of the matrix are 0, too.
        most: rows that it can do.

    Returns:
        A `referee.contract.Balancer`; OptionError if it is given more rows than it can do.
    """

    def rule(rows: Mapping[str, Latent], weights: Mapping[str, PerSample], pull: Latent | None) -> Latent:
        if len(rows) > most:
            raise OptionError(f"{name} balances at most {most} referees, not {len(rows)}. Take --balancer norm.")
        given = next(iter(rows.values()))
        units = torch.stack(list(directions({key: g.double() for key, g in rows.items()}).values()), 1)
        shares = torch.stack([weights[key].double() for key in rows], 1).to(units.device)
        shares = torch.where(units.flatten(2).any(-1), shares, 0.0)  # a row that is zero or not finite has no say
        units = torch.where(shares[:, :, None, None, None] > 0, units, 0.0)
        flat = units.flatten(2)
        factors = torch.nan_to_num(weigh(flat @ flat.mT, shares), nan=0.0)  # nobody left: 0 / 0
        return at_length((factors[:, :, None, None, None] * units).sum(1).to(given.dtype), pull)

    return rule


def subsets(r: int, like: Tensor) -> Bool[Tensor, "s r"]:
    """All sets of r rows, the empty one first."""
    return torch.tensor(list(product((False, True), repeat=r)), device=like.device)


def restricted(gram: Gram, kept: Bool[Tensor, "n s r"]) -> Float[Tensor, "n s r r"]:
    """The matrix of each set's rows, with the ridge; of rows that are not in it, the identity."""
    both = kept[..., :, None] & kept[..., None, :]
    eye = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
    return torch.where(both, gram[:, None], 0.0) + eye * torch.where(kept, RIDGE, 1.0)[..., None]


def solve(matrix: Tensor, right: Tensor) -> Tensor:
    """The solution of each system, without waiting for the device to say whether there is one."""
    found: Tensor = torch.linalg.solve_ex(matrix, right).result
    return found


def shortest(gram: Gram, weights: PerRow, kept: Bool[Tensor, "n s r"]) -> Float[Tensor, "n s r"]:
    """For each set the factors l of the shortest vector with sum(weights * l) = 1; NaN where no row is left."""
    found = solve(restricted(gram, kept), torch.where(kept, weights[:, None], 0.0)[..., None])[..., 0]
    return found / (weights[:, None] * found).sum(-1, keepdim=True)
