"""What the checks look at parts with: pictures, the models inside a part, the state of global generators."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from referee.contract import Image

PLAIN = (str, bytes, int, float, Tensor, type, ModuleType)
MOST_PARAMETERS = 500_000_000
"""A model with more is not moved to float64 for a check: it may not fit."""


def pictures(count: int, height: int, width: int, *, seed: int = 0, device: str = "cpu") -> Image:
    """Colourful pictures with soft shapes and a little grain, (count, 3, height, width) in [0.05, 0.95]."""
    generator = Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 5, 5, generator=generator)
    x = F.interpolate(coarse, (height, width), mode="bicubic", align_corners=True)
    x = x + 0.03 * torch.randn(x.shape, generator=generator)
    return x.clamp(0.05, 0.95).to(device)


def mixed(size: int, *, device: str = "cpu") -> Image:
    """Four views that no statistic of a batch would fit: bright, dark, flat, plain noise."""
    x = pictures(4, size, size, seed=1)
    x[1] *= 0.3
    x[2] = 0.9
    x[3] = torch.rand(x[3].shape, generator=Generator().manual_seed(2))
    return x.to(device)


def modules_in(*things: Any, depth: int = 6) -> list[nn.Module]:
    """The torch modules that objects hold: in attributes, containers, closures, bound methods and partials."""
    found: dict[int, nn.Module] = {}
    seen: set[int] = set()
    queue = [(thing, 0) for thing in things]
    while queue:
        thing, level = queue.pop()
        if id(thing) in seen or level > depth or isinstance(thing, PLAIN):
            continue
        seen.add(id(thing))
        if isinstance(thing, nn.Module):
            found[id(thing)] = thing
        else:
            queue += [(held, level + 1) for held in _held(thing)]
    return list(found.values())


def _held(thing: Any) -> Iterator[Any]:
    if isinstance(thing, dict):
        yield from thing.values()
    elif isinstance(thing, (list, tuple, set, frozenset)):
        yield from thing
    else:
        yield from getattr(thing, "__dict__", {}).values()
        for kind in type(thing).__mro__:
            names = kind.__dict__.get("__slots__", ())
            for name in (names,) if isinstance(names, str) else names:
                yield getattr(thing, name, None)
        for cell in getattr(thing, "__closure__", None) or ():
            try:
                yield cell.cell_contents
            except ValueError:  # not filled yet
                continue
        yield getattr(thing, "__self__", None)
        if isinstance(thing, functools.partial):
            yield from (thing.func, thing.args, thing.keywords)


@contextmanager
def in_double(modules: Sequence[nn.Module]) -> Iterator[None]:
    """Models in float64, and back to the very same numbers."""
    tensors = {id(t): t for m in modules for t in (*m.parameters(), *m.buffers()) if t.is_floating_point()}
    before = [(tensor, tensor.data) for tensor in tensors.values()]
    try:
        for tensor, data in before:
            tensor.data = data.double()
        yield
    finally:
        for tensor, data in before:
            tensor.data = data


def parameters(modules: Sequence[nn.Module]) -> int:
    """How many numbers the models have."""
    return sum(p.numel() for module in modules for p in module.parameters())


def global_state() -> tuple[Any, ...]:
    """Where torch's, numpy's and Python's global generators stand; equal if nobody drew from or seeded them."""
    kind, keys, *rest = np.random.get_state()  # noqa: NPY002
    device = torch.cuda.get_rng_state().numpy().tobytes() if torch.cuda.is_initialized() else b""
    return torch.get_rng_state().numpy().tobytes(), device, random.getstate(), (kind, np.asarray(keys).tobytes(), *rest)


def under_seed(seed: int, call: Callable[[], Sequence[Tensor]]) -> Sequence[Tensor]:
    """What a call gives with torch's global generator at a seed; it is put back after."""
    with torch.random.fork_rng(devices=[] if not torch.cuda.is_initialized() else None):
        torch.manual_seed(seed)
        return call()


def apart(a: Tensor, b: Tensor) -> float:
    """|a - b| relative to |b|; infinite if shapes differ or one is not finite."""
    if a.shape != b.shape or not (a.isfinite().all() and b.isfinite().all()):
        return float("inf")
    a, b = a.detach().double(), b.detach().double()
    return float((a - b).norm() / b.norm().clamp_min(1e-12))
