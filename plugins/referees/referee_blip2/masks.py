"""Who attends to whom in the Q-Former (Li et al. 2023, "BLIP-2", figure 2), as additive float masks.

Always the 4-D float form: transformers' eager attention adds a 4-D boolean mask as 0 and 1, which is silently
wrong, and refuses the 3-D form.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

Allowed = Bool[Tensor, "b S S"]
"""Row attends to column."""


def matching(queries: int, mask: Int[Tensor, "b T"]) -> Allowed:
    """Queries and text see each other both ways; nobody sees padding."""
    seen = torch.cat([mask.new_ones(len(mask), queries), mask], dim=1).bool()
    return seen[:, None, :].expand(-1, seen.shape[1], -1)


def captioning(queries: int, mask: Int[Tensor, "b T"]) -> Allowed:
    """Text sees the queries and the text before it; queries never see text."""
    batch, length = mask.shape
    allowed = torch.zeros(batch, queries + length, queries + length, dtype=torch.bool, device=mask.device)
    allowed[:, :, :queries] = True
    causal = torch.ones(length, length, dtype=torch.bool, device=mask.device).tril()
    allowed[:, queries:, queries:] = causal & mask[:, None, :].bool()
    return allowed


def packed(queries: int, itm_mask: Int[Tensor, "b T"], cap_mask: Int[Tensor, "b U"]) -> Allowed:
    """Both of the above for the sequence [Q_itm, Q_cap, T_itm, T_cap]; neither sees the other."""
    batch, first = itm_mask.shape
    total = 2 * queries + first + cap_mask.shape[1]
    place = torch.arange(total, device=itm_mask.device)
    itm = torch.cat([place[:queries], place[2 * queries : 2 * queries + first]])
    cap = torch.cat([place[queries : 2 * queries], place[2 * queries + first :]])
    allowed = torch.zeros(batch, total, total, dtype=torch.bool, device=itm_mask.device)
    allowed[:, itm[:, None], itm] = matching(queries, itm_mask)
    allowed[:, cap[:, None], cap] = captioning(queries, cap_mask)
    return allowed


def additive(allowed: Allowed, dtype: torch.dtype) -> Float[Tensor, "b 1 S S"]:
    """0 where allowed, the lowest number of the type where not."""
    zeros = torch.zeros(allowed.shape, dtype=dtype, device=allowed.device)
    return zeros.masked_fill(~allowed, torch.finfo(dtype).min)[:, None]
