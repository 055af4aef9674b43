"""Half precision for frozen models: weights stay float32, matrix products are cast as they come (autocast).

So did BLIP-2's authors, and so the residual stream of a transformer, its norms and its softmax stay float32.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch

from referee.errors import OptionError
from referee.hooks import Place

HALVES = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}
"""The types that a model can compute in, by name; None is no cast at all."""

Cast = Callable[[], AbstractContextManager[object]]


def autocast(place: Place, owner: str) -> Cast:
    """What to wrap a forward pass in, `with cast(): ...`, to compute in the place's type on its device.

    Args:
        place: device and type.
        owner: whose type it is, for errors.

    Raises:
        OptionError: the type is none of float32, bfloat16, float16, or the device does not have it.
    """
    if place.dtype not in HALVES:
        raise OptionError(f"{owner} computes in {', '.join(HALVES)}, not in {place.dtype!r}.")
    half, kind = HALVES[place.dtype], torch.device(place.device).type
    if half is None:
        return nullcontext
    if not computes(place.device, half):
        raise OptionError(f"{owner}: the device {place.device} does not compute in {place.dtype}. Say --dtype float32.")
    return lambda: torch.autocast(kind, half)


def computes(device: str, half: torch.dtype) -> bool:
    """Whether the device does matrix products and convolutions in this type: tried, as torch keeps no list of it."""
    ones = torch.ones(1, 1, 1, 1, device=device)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # torch warns and goes on in float32
            with torch.autocast(torch.device(device).type, half):
                return (torch.conv2d(ones, ones) + torch.matmul(ones, ones)).dtype == half
    except (RuntimeError, NotImplementedError):
        return False
