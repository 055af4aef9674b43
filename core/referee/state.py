"""What the loop carries from one step to the next: all that a run needs to go on as if it had never stopped.

Nothing else is kept anywhere. Random draws hang on (seed, step, role) alone (see `referee.randomness`), so a run that
goes on from a state draws what the unbroken one draws.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from referee.contract import Latent, Memory
from referee.errors import OptionError

TABLES = ("moments", "memory", "maps")


@dataclass(frozen=True, slots=True)
class State:
    """Between two steps. Tensors are nobody else's: `referee.inversion.invert` copies what it takes and what it gives.

    Attributes:
        k: steps done; the number of the next one.
        z: the latent, (n, c, h, w) float32.
        ema: its running average, likewise.
        moments: the optimiser's, by its own names; empty before its first step, and of plain descent.
        memory: what panel and balancer keep.
        maps: where on the image each referee last pulled, (n, H, W): see `referee.inversion.Step`.
    """

    k: int
    z: Latent
    ema: Latent
    moments: Mapping[str, Tensor] = field(default_factory=dict)
    memory: Memory = field(default_factory=dict)
    maps: Mapping[str, Float[Tensor, "n H W"]] = field(default_factory=dict)

    def check(self, shape: tuple[int, ...], steps: int) -> None:
        """Refuse a state of another run.

        Args:
            shape: (n, c, h, w) of the run's latents.
            steps: of the run.

        Raises:
            OptionError: latents or moments have another shape or type, or it lies beyond the run's end.
        """
        for name, latent in (("z", self.z), ("ema", self.ema)):
            if tuple(latent.shape) != shape or latent.dtype != torch.float32:
                found = f"{tuple(latent.shape)} {latent.dtype}"
                raise OptionError(f"The state's {name} is {found}; this run needs {shape} torch.float32.")
        if odd := [name for name, t in self.moments.items() if tuple(t.shape) not in ((), shape)]:
            raise OptionError(f"The state's moment '{odd[0]}' is not of the latent's shape {shape}.")
        if not 0 <= self.k <= steps:
            raise OptionError(f"The state lies after step {self.k}; this run has {steps}.")

    def to_tensors(self) -> dict[str, Tensor]:
        """As one flat table, which safetensors can hold."""
        found = {"k": torch.tensor(self.k), "z": self.z, "ema": self.ema}
        for table in TABLES:
            found |= packed(table, getattr(self, table))
        return found

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> State:
        """What `to_tensors` gave, read back.

        Raises:
            OptionError: an entry is missing.

        >>> z = torch.zeros(1, 3, 2, 2)
        >>> state = State(7, z, z, {"step": torch.tensor(7.0)}, {"panel/clip": z})
        >>> State.from_tensors(state.to_tensors()) == state
        True
        """
        if missing := {"k", "z", "ema"} - set(tensors):
            raise OptionError(f"The state has no '{min(missing)}'.")
        tables = [unpacked(table, tensors) for table in TABLES]
        return cls(int(tensors["k"]), tensors["z"], tensors["ema"], *tables)


def packed(table: str, entries: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A table's entries for a file that keeps no order: numbered, as who comes first may show; and contiguous.

    >>> list(packed("maps", {"clip": torch.zeros(1), "blip2": torch.zeros(1)}))
    ['maps/000/clip', 'maps/001/blip2']
    """
    return {f"{table}/{i:03}/{name}": t.contiguous() for i, (name, t) in enumerate(entries.items())}


def unpacked(table: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """One table's entries, in the order that `packed` found them in."""
    head = f"{table}/"
    return {key.removeprefix(head).partition("/")[2]: tensors[key] for key in sorted(tensors) if key.startswith(head)}
