"""PCGrad: each row less what it has against the others (Yu et al., arXiv 2001.06782, Algorithm 1), on unit rows.

    g_i = u_i;  for j in a random order:  if g_i . u_j < 0:  g_i = g_i - (g_i . u_j) u_j
    push = |pull| sum_i w_i g_i / (sum w)

The paper draws an order at each step. Here the mean over all orders is taken, which is what the draws come to on
average: no randomness, the referees' order does not matter, and a run that goes on needs no state. (R! orders: at most
6 referees.) With two rows none is left in conflict; with three or more the last projection may undo an earlier one.
"""

from __future__ import annotations

from itertools import permutations

import torch

from .gram import Gram, PerRow, on_gram


def weigh(gram: Gram, weights: PerRow) -> PerRow:
    """Factors of the unit rows."""
    n, r = weights.shape
    orders = torch.tensor(list(permutations(range(r))), device=gram.device)  # (p, r)
    itself = torch.arange(r, device=gram.device)
    # factors[n, p, i, :] are those of g_i by order p
    factors = torch.eye(r, dtype=gram.dtype, device=gram.device).expand(n, len(orders), r, r).clone()
    for j in orders.T:
        against = torch.einsum("npir,npr->npi", factors, gram[:, j]).clamp_max(0.0)
        against = torch.where(j[:, None] == itself, 0.0, against)
        factors.scatter_add_(3, j[None, :, None, None].expand(n, -1, r, 1), -against[..., None])
    means = factors.mean(1)
    return (weights[:, :, None] * means).sum(1) / weights.sum(1, keepdim=True)


rule = on_gram("pcgrad", weigh, most=6)
