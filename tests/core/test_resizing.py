"""Resizing to Pillow's numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from referee.resizing import resample


@pytest.mark.parametrize("how", ["bicubic", "bilinear"])
@pytest.mark.parametrize(
    "size", [(7, 31), (16, 16), (33, 60), (20, 52), (20, 48), (128, 40), (40, 90), (60, 80), (48, 64)]
)
@pytest.mark.parametrize("content", ["noise", "bars"])
def test_it_is_within_a_step_of_pillow(how: Any, size: tuple[int, int], content: str) -> None:
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (48, 64, 3), dtype=np.uint8)
    if content == "bars":  # where a bicubic filter overshoots most
        pixels = np.where(np.indices((48, 64)).sum(0)[..., None] % 9 < 4, 255, 0).repeat(3, axis=2).astype(np.uint8)
    wanted = Image.fromarray(pixels).resize(size[::-1], getattr(Image.Resampling, how.upper()))
    x = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
    found = resample(x, *size, how)
    assert found.min() >= 0
    assert found.max() <= 1
    steps = (found[0].permute(1, 2, 0) * 255).round().int() - torch.from_numpy(np.array(wanted)).int()
    assert steps.abs().max() <= 1


def test_the_same_size_is_the_same_image_and_gradients_pass() -> None:
    x = torch.rand(2, 3, 8, 8, requires_grad=True)
    assert resample(x, 8, 8) is x
    (gradient,) = torch.autograd.grad(resample(x, 5, 6).sum(), x)
    assert gradient.isfinite().all()
    assert gradient.any()
