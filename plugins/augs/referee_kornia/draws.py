"""The random numbers of a view: a fixed list of uniform draws, one call on the row's own generator.

A fixed list, used or not: turning one transform off leaves the draws of all others as they were, and a view
is the same whatever it is batched with. The noise, whose count depends on the image's size, comes after.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Generator, Tensor

SLOTS = (
    "affine", "rotation", "shift_x", "shift_y", "scale", "shear",
    "perspective", "x0", "y0", "x1", "y1", "x2", "y2", "x3", "y3",
    "flip", "crop", "crop_x", "crop_y",
    "jitter", "brightness", "contrast", "saturation", "shift_r", "shift_g", "shift_b", "hue",
    "erase", "erase_area", "erase_ratio", "erase_x", "erase_y",
    "noise",
)  # fmt: skip

Row = Float64[np.ndarray, "b"]
Draws = Mapping[str, Row]


def draw(generators: Sequence[Generator]) -> Draws:
    """Uniform numbers in [0, 1) by slot; entry b of each is from ``generators[b]``.

    As arrays: what is made of so few numbers costs a fraction of what it does as tensors.
    """
    rows = [torch.rand(len(SLOTS), generator=g, dtype=torch.float64) for g in generators]
    return dict(zip(SLOTS, torch.stack(rows, dim=1).numpy(), strict=True))


def either_way(u: Row, amount: float) -> Row:
    """From [0, 1) to [-amount, amount)."""
    return (2 * u - 1) * amount


def happens(u: Row, probability: float) -> Row:
    """1.0 with this probability, else 0.0."""
    return (u < probability).astype(u.dtype)


def noise_like(x: Float[Tensor, "b 3 H W"], generators: Sequence[Generator]) -> Float[Tensor, "b 3 H W"]:
    """Standard normal numbers where x lives, row b from ``generators[b]``.

    On the CPU they are the generator's next numbers. Elsewhere the generator seeds one on that device, so
    that no full-size noise crosses the bus: same in any batch there too, but other numbers than the CPU's.
    """
    noise = torch.empty_like(x, requires_grad=False, memory_format=torch.contiguous_format)
    if x.device.type == "cpu":
        for row, generator in zip(noise, generators, strict=True):
            row.normal_(generator=generator)
        return noise
    local = torch.Generator(x.device)
    for row, generator in zip(noise, generators, strict=True):
        local.manual_seed(int(torch.randint(2**62, (), generator=generator)))
        row.normal_(generator=local)
    return noise
