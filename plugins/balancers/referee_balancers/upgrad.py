"""UPGrad: the mean of the rows, each first brought to the nearest vector that hurts none (Quinton and Rey, arXiv
2406.16232), on unit rows.

    push = |pull| sum_i w_i p_i / (sum w),   p_i = argmin |p - u_i|,  p . u_r >= 0 for all r

p_i = u_i + sum_r y_r u_r with the y >= 0 that makes it shortest: a small quadratic programme, solved exactly by trying
each set of rows as the ones with y_r > 0. Rows without conflict are left as they are, and the rule is then `norm`.
"""

from __future__ import annotations

import torch

from .gram import RIDGE, Gram, PerRow, on_gram, restricted, solve, subsets


def weigh(gram: Gram, weights: PerRow) -> PerRow:
    """Factors of the unit rows."""
    n, r = weights.shape
    kept = (subsets(r, gram) & (weights > 0)[:, None])[..., None]  # (n, s, r, 1)
    # Any y >= 0 is allowed, and the best set's is the shortest of all: so clamping can only miss, not cheat.
    added = torch.where(kept, solve(restricted(gram, kept[..., 0]), torch.where(kept, -gram[:, None], 0.0)), 0.0)
    added = added.clamp_min(0.0)  # (n, s, r, i): what of row r is added to row i
    found = added + torch.eye(r, dtype=gram.dtype, device=gram.device)
    length = (found * (gram[:, None] @ found)).sum(2) + RIDGE * added.square().sum(2)
    best = length.argmin(1)[:, None, None].expand(n, 1, r, r)
    projected = found.gather(1, best)[:, 0]  # (n, r, i)
    return (projected * weights[:, None]).sum(2) / weights.sum(1, keepdim=True)


rule = on_gram("upgrad", weigh)
