"""Mis-drawn things: shapes a little bent, which still are what they are, and fakes that are none of the world's.

Fakes are half-way between two shapes, cut in half, or blobs: what weak priors draw.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from referee_pocket import world
from referee_pocket.words import SHAPES

NONE = len(SHAPES)
"""Index of the shape that is none of the world's."""
WOBBLY, FAKE = 24, 24
"""Shapes a batch adds to the atlas: true ones a little bent, and ones that are none."""


def bent(distances: Tensor, amount: float, draw: Generator) -> Tensor:
    """Signed distances displaced by smooth noise; ``amount`` in units of a thing's radius."""
    n, size = len(distances), distances.shape[-1]
    shift = F.interpolate(2 * torch.rand(n, 2, 5, 5, generator=draw) - 1, (size, size), mode="bicubic").permute(
        0, 2, 3, 1
    )
    grid = F.affine_grid(torch.eye(2, 3).expand(n, 2, 3), [n, 1, size, size], align_corners=False)
    return F.grid_sample(
        distances[:, None], grid + amount / world.ATLAS_EXTENT * shift, padding_mode="border", align_corners=False
    )[:, 0]


def _atlas(draw: Generator) -> tuple[Tensor, Tensor]:
    """The world's shapes, bent ones and fakes, (56, 80, 80), and the shape that each is; NONE for fakes."""
    true = F.avg_pool2d(world.shape_atlas()[None], 2)[0]
    size = true.shape[-1]
    names = torch.randint(8, (WOBBLY,), generator=draw)
    other = (names + torch.randint(1, 8, (WOBBLY,), generator=draw)) % 8
    share = 0.12 * torch.rand(WOBBLY, 1, 1, generator=draw)
    wobbly = bent((1 - share) * true[names] + share * true[other], 0.13, draw)
    a = torch.randint(8, (FAKE,), generator=draw)
    b = (a + torch.randint(1, 8, (FAKE,), generator=draw)) % 8
    share = 0.38 + 0.24 * torch.rand(FAKE, 1, 1, generator=draw)
    mixed = (1 - share) * true[a] + share * true[b]
    axis = ((torch.arange(size) + 0.5) / size * 2 - 1) * world.ATLAS_EXTENT
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    turn = 2 * math.pi * torch.rand(FAKE, 1, 1, generator=draw)
    cut = torch.maximum(true[a], x * turn.cos() + y * turn.sin() - 0.1 + 0.25 * torch.rand(FAKE, 1, 1, generator=draw))
    angle, wave = torch.atan2(y, x), torch.zeros(FAKE, size, size)
    for k in range(2, 6):
        phase = 2 * math.pi * torch.rand(FAKE, 1, 1, generator=draw)
        wave += (0.08 + 0.14 * torch.rand(FAKE, 1, 1, generator=draw)) * torch.cos(k * angle + phase)
    blob = torch.hypot(x, y) - 0.75 - wave
    kinds = torch.arange(FAKE) % 3
    fakes = bent(torch.stack([mixed, cut, blob])[kinds, torch.arange(FAKE)], 0.08, draw)
    labels = torch.cat([torch.arange(8), names, torch.full((FAKE,), NONE)])
    return torch.cat([true, wobbly, fakes]), labels


def bend(scenes: world.Scenes, draw: Generator, fakes: float = 0.2) -> tuple[Tensor, Tensor]:
    """Bend two in three things a little, and make a share of them fakes.

    Args:
        scenes: changed in place: their shapes now index the atlas that is returned.
        draw: the source of randomness.
        fakes: share of the things that become fakes.

    Returns:
        The atlas for `world.render`, and the true name of each thing's shape (n, 3), `NONE` for fakes.
    """
    n = len(scenes)
    shapes, labels = _atlas(draw)
    roll = torch.rand(n, 3, generator=draw)
    wobbly = torch.randint(WOBBLY, (n, 3), generator=draw)
    fake = torch.randint(FAKE, (n, 3), generator=draw)
    # A bent thing keeps its shape: pick among the bent ones of that shape.
    same = labels[8 : 8 + WOBBLY].view(1, 1, -1) == scenes.shape[:, :, None]
    order = (torch.arange(WOBBLY) + wobbly[:, :, None]) % WOBBLY
    pick = order.masked_fill(~same, WOBBLY).argmin(-1)
    bent_index = torch.where(same.any(-1) & (roll < 0.65), 8 + pick, scenes.shape)
    index = torch.where(roll > 1 - fakes, 8 + WOBBLY + fake, bent_index)
    scenes.shape = index
    return shapes, labels[index]
