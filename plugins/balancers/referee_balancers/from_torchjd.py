"""Any aggregator of the torchjd library (torchjd.org), by name: an optional extra, `pip install vlm-referee[torchjd]`.

A sample's rows are brought to unit length and multiplied by weight over mean weight; who has none is left out.
The aggregator sees one sample's matrix at a time, in float64 on the CPU. What it gives is cut to unit length if longer
(some add up, some take means), and given the prior's length.

Some draw random numbers from torch's global generator. They are given numbers that hang on the step alone, the same for
every sample, and the generator is left as it was; the steps are counted in ``balancer/steps``. Some remember earlier
steps in themselves: each sample has its own copy, fresh in each run. Such a copy cannot be saved, so a run that goes on
begins it anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from inspect import isabstract, isclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from referee.balance import at_length, directions
from referee.contract import Latent, Memory
from referee.errors import OptionError, PluginError, nearest

KEPT = "balancer/steps"


def names() -> list[str]:
    """The aggregators that torchjd has here."""
    from torchjd import aggregation

    found = {name: getattr(aggregation, name) for name in aggregation.__all__}
    return sorted(n for n, c in found.items() if isclass(c) and issubclass(c, aggregation.Aggregator) and not _base(c))


def _base(kind: type) -> bool:
    return isabstract(kind) or kind.__name__.endswith("WeightedAggregator") or kind.__name__ == "Aggregator"


def load(name: str, arguments: Mapping[str, Any]) -> Torchjd:
    """An aggregator by name.

    Raises:
        OptionError: there is none of that name, or it does not take these arguments.
        ImportError: it needs a library that is not there.
    """
    from torchjd import aggregation

    if name not in names():
        raise OptionError(f"torchjd has no aggregator '{name}'. {nearest(name, names())}")
    given = {key: torch.tensor(v, dtype=torch.float64) if isinstance(v, list) else v for key, v in arguments.items()}
    try:
        return Torchjd(name, getattr(aggregation, name)(**given))
    except (TypeError, ValueError) as error:
        raise OptionError(
            f"torchjd's {name} does not take these arguments: {error}. "
            f"Write them as a table, for example torchjd:CAGrad,arguments={{c=0.5}}"
        ) from error


@dataclass(frozen=True, slots=True)
class Torchjd:
    """A `referee.contract.Balancer` that is `Remembering`."""

    name: str
    aggregator: Any
    memory: Memory = field(default_factory=dict)
    copies: dict[int, Any] = field(default_factory=dict)

    def with_memory(self, memory: Memory) -> Torchjd:
        """The same rule for one run."""
        return Torchjd(self.name, self.aggregator, memory)

    def __call__(
        self, rows: Mapping[str, Latent], weights: Mapping[str, Float[Tensor, "n"]], pull: Latent | None
    ) -> Latent:
        """The push.

        Raises:
            PluginError: the aggregator failed.
        """
        given = next(iter(rows.values()))
        units = torch.stack([u.cpu() for u in directions({name: g.double() for name, g in rows.items()}).values()], 1)
        shares = torch.stack([weights[name].double().cpu() for name in rows], 1)
        steps = self.memory.get(KEPT, torch.zeros(len(given), dtype=torch.int64))
        found = [self._one(i, units[i].flatten(1), shares[i], int(steps[i])) for i in range(len(given))]
        self.memory[KEPT] = steps + 1
        return at_length(torch.stack(found).view(given.shape).to(given), pull)

    def _one(self, i: int, units: Float[Tensor, "r d"], shares: Float[Tensor, "r"], step: int) -> Float[Tensor, "d"]:
        acts = (shares > 0) & units.any(1)
        if not acts.any():
            return torch.zeros_like(units[0])
        copy = self.copies.setdefault(i, deepcopy(self.aggregator))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(step)
            try:
                found: Tensor = copy(units[acts] * (shares[acts] / shares[acts].mean())[:, None])
            except Exception as error:  # a stranger's code may raise anything
                raise PluginError(f"torchjd's {self.name} failed on {int(acts.sum())} rows: {error}") from error
        if not found.isfinite().all():
            raise PluginError(f"torchjd's {self.name} gave numbers that are not finite for {int(acts.sum())} rows.")
        unit: Tensor = found / torch.linalg.vector_norm(found).clamp_min(1.0)
        return unit
