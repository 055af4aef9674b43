"""Every random draw of a run, by name: (seed of the sample, step, role).

No generator lives longer than a step, so the same seed gives the same picture alone or in a batch, and a run that
goes on at step k draws what an unbroken one draws there. All are on the CPU: the same numbers on every device.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

import torch
from torch import Generator, Tensor


def generator(seed: int, step: int, role: str) -> Generator:
    """A fresh CPU generator for one sample's role in one step.

    >>> a, b = (generator(7, 0, "noise").initial_seed() for _ in range(2))
    >>> a == b, a == generator(7, 1, "noise").initial_seed()
    (True, False)
    """
    digest = blake2b(f"{seed}/{step}/{role}".encode(), digest_size=8).digest()
    return Generator().manual_seed(int.from_bytes(digest, "little") >> 1)


def generators(seeds: Sequence[int], step: int, role: str) -> list[Generator]:
    """One generator per sample."""
    return [generator(seed, step, role) for seed in seeds]


def normal(seeds: Sequence[int], step: int, role: str, shape: tuple[int, ...]) -> Tensor:
    """Standard normal numbers (n, *shape), row i from sample i's own generator; float32, on the CPU."""
    return torch.stack([torch.randn(shape, generator=g) for g in generators(seeds, step, role)])
