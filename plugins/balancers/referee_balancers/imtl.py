"""IMTL-G: a push that is equally long along every row (Liu et al., "Towards Impartial Multi-task Learning", ICLR 2021),
on unit rows.

    push = |pull| sum_r a_r u_r,   u_r . push equal for all r,   sum_r a_r = 1

An impartial rule knows no weights: above 0, all are alike; it warns where they differ. That vector is the shortest of
the rows' affine hull, and so it is computed, with a ridge: its length is at most sqrt(1 + RIDGE), and for exactly
opposite rows it is 0, where the closed form of the paper divides by 0 and explodes. No row is hurt.
"""

from __future__ import annotations

import warnings

from .gram import Gram, PerRow, on_gram, shortest


def weigh(gram: Gram, weights: PerRow) -> PerRow:
    """Factors of the unit rows."""
    acts = weights > 0
    if bool((acts & (weights < weights.amax(1, keepdim=True))).any()):
        warnings.warn("imtl is impartial: all weights above 0 are alike. To weigh referees take upgrad.", stacklevel=2)
    return shortest(gram, acts.to(gram), acts[:, None])[:, 0]


rule = on_gram("imtl", weigh)
