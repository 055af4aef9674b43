"""Lengths over their own running mean: a referee that is roused says more, one that is content says less.

    m_r = decay m_r + (1 - decay) |g_r|
    push = |pull| sum_r w_r / (sum w) clip(|g_r| / m_r, 1 / c, c) g_r / |g_r|

`norm` forgets how long a gradient is. Here its length counts, measured against its own past, so that units still do
not matter; the clip keeps one lucky view from shouting. At a referee's first step it is `norm`. The push is up to c
times as long as the prior's pull. The rule is this project's; GradNorm (Chen et al., arXiv 1711.02257) looks at
gradient lengths over time, too, but learns weights from them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float
from torch import Tensor

from referee.balance import at_length, directions, lengths, usable
from referee.contract import Latent, Memory

KEPT = "balancer/"


@dataclass(frozen=True, slots=True)
class Smooth:
    """A `referee.contract.Balancer` that is `Remembering`: ``balancer/NAME`` is the running mean of each sample (n,),
    0 before its first step."""

    decay: float = 0.9
    clip: float = 3.0
    memory: Memory = field(default_factory=dict)

    def with_memory(self, memory: Memory) -> Smooth:
        """The same rule for one run."""
        return replace(self, memory=memory)

    def __call__(
        self, rows: Mapping[str, Latent], weights: Mapping[str, Float[Tensor, "n"]], pull: Latent | None
    ) -> Latent:
        """The push. A row that sits out leaves its mean as it was."""
        total = torch.stack(list(weights.values())).sum(0).double().clamp_min(torch.finfo(torch.float32).tiny)
        parts = []
        for name, unit in directions({name: g.double() for name, g in rows.items()}).items():
            acts = usable(rows[name]) & (weights[name] > 0).to(unit.device)
            ratio = torch.where(acts, self._ratio(name, lengths(rows[name]), acts), 0.0)
            share = torch.where(acts, weights[name].to(unit) / total.to(unit), 0.0)
            parts.append((share * ratio)[:, None, None, None] * unit)
        return at_length(torch.stack(parts).sum(0).to(next(iter(rows.values())).dtype), pull)

    def _ratio(self, name: str, size: Float[Tensor, "n"], acts: Tensor) -> Float[Tensor, "n"]:
        before = self.memory.get(KEPT + name, torch.zeros_like(size))
        mean = torch.where(before > 0, self.decay * before + (1 - self.decay) * size, size)
        self.memory[KEPT + name] = torch.where(acts, mean, before)
        return (size / mean).clamp(1 / self.clip, self.clip)
