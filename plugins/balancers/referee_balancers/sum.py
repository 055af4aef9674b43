"""Fixed weights: the gradient of a weighted sum of losses, as in ReNO (Eyring et al., arXiv 2406.04312).

    push = sum_r w_r g_r

No row is brought to unit length and the prior's length does not matter: the weights have to make up for the referees'
units, and the loudest leads. Under `adam` only their proportions count.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from referee.balance import usable
from referee.contract import Latent


class Sum:
    """A `referee.contract.Balancer`."""

    own_length: ClassVar[bool] = True

    def __call__(
        self, rows: Mapping[str, Latent], weights: Mapping[str, Float[Tensor, "n"]], pull: Latent | None
    ) -> Latent:
        """The weighted sum of the rows that are finite."""

        def part(name: str, g: Latent) -> Latent:
            acts = usable(g) & (weights[name] > 0).to(g.device)
            weighted = weights[name].to(g)[:, None, None, None] * g
            return torch.where(acts[:, None, None, None], weighted, 0.0)

        return torch.stack([part(name, g) for name, g in rows.items()]).sum(0)


rule = Sum()
