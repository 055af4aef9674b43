"""MGDA: the shortest vector of the rows' convex hull (Désidéri, C. R. Acad. Sci. Paris 350, 2012; for many losses Sener
and Koltun, arXiv 1810.04650), on unit rows.

    push = |pull| d,   d = argmin |sum_r l_r u_r|,  l_r >= 0,  sum_r w_r l_r = 1,   the largest weight taken as 1

It hurts none: d . u_r >= w_r |d|^2, so a referee's loss falls at least in proportion to its weight; with equal weights
that is the paper's hull. It is cautious, short where rows disagree, and 0 where no direction is good for all. Solved
exactly by trying each set of rows as the ones with l_r > 0, for the paper's iteration (Frank-Wolfe) stops early.
"""

from __future__ import annotations

import torch

from .gram import RIDGE, Gram, PerRow, on_gram, shortest, subsets


def weigh(gram: Gram, weights: PerRow) -> PerRow:
    """Factors of the unit rows."""
    weights = weights / weights.amax(1, keepdim=True)
    kept = subsets(weights.shape[1], gram)[1:] & (weights > 0)[:, None]
    # Any l >= 0 of sum 1 is in the hull, and the best set's is the shortest: clamping can only miss it, not cheat.
    found = shortest(gram, weights, kept).clamp_min(0.0)
    found = found / (weights[:, None] * found).sum(-1, keepdim=True)
    length = torch.einsum("nsi,nij,nsj->ns", found, gram, found) + RIDGE * found.square().sum(-1)
    best = torch.nan_to_num(length, nan=torch.inf).argmin(1)
    return found[torch.arange(len(found), device=found.device), best]


rule = on_gram("mgda", weigh)
