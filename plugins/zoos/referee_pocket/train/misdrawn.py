"""Mis-drawn things: shapes a little bent, which still are what they are, and fakes that are none of the world's.

Coarse fakes are half-way between two shapes, cut in half, or blobs: what weak priors draw. Fine ones are nearly what
they pretend to be: a bite or an arm is missing, something has grown on or a hole is where none belongs, or the two
halves are of two shapes: what an inversion draws that a referee did not look at closely.
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


def _atlas(draw: Generator, fine: bool) -> tuple[Tensor, Tensor]:
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
    every = torch.arange(FAKE)
    fakes = bent(torch.stack([mixed, cut, blob])[kinds, every], 0.08, draw)
    if fine:
        close = torch.stack(_nearly(true, a, b, x, y, draw))[torch.randint(5, (FAKE,), generator=draw), every]
        fakes = torch.where((every % 4 > 0)[:, None, None], bent(close, 0.06, draw), fakes)
    labels = torch.cat([torch.arange(8), names, torch.full((FAKE,), NONE)])
    return torch.cat([true, wobbly, fakes]), labels


def _nearly(true: Tensor, a: Tensor, b: Tensor, x: Tensor, y: Tensor, draw: Generator) -> list[Tensor]:
    """Five fine fakes of shapes ``a``: bitten, grown, pierced (rings: filled in part), trimmed, halved with ``b``."""

    def between(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(len(a), 1, 1, generator=draw)

    def disc(distance: Tensor, radius: Tensor) -> Tensor:
        turn = between(0, 2 * math.pi)
        return torch.hypot(x - distance * turn.cos(), y - distance * turn.sin()) - radius

    turn = between(0, 2 * math.pi)
    side = x * turn.cos() + y * turn.sin()
    shape, other = true[a], true[b]
    pierced = torch.maximum(shape, -disc(between(0, 0.15), between(0.25, 0.4)))
    bitten = torch.maximum(shape, -disc(between(0.55, 0.85), between(0.3, 0.45)))
    grown = torch.minimum(shape, disc(between(0.75, 0.95), between(0.3, 0.45)))
    filled = torch.minimum(shape, disc(between(0.25, 0.5), between(0.3, 0.45)))
    holed = torch.where((a == SHAPES.index("ring"))[:, None, None], filled, pierced)
    trimmed = torch.maximum(shape, side - between(0.2, 0.45))
    halved = torch.where(side + between(-0.15, 0.15) < 0, shape, other)
    return [bitten, grown, holed, trimmed, halved]


def bend(scenes: world.Scenes, draw: Generator, fakes: float = 0.2, fine: bool = False) -> tuple[Tensor, Tensor]:
    """Bend two in three things a little, and make a share of them fakes.

    Args:
        scenes: changed in place: their shapes now index the atlas that is returned.
        draw: the source of randomness.
        fakes: share of the things that become fakes.
        fine: most of the fakes are fine ones.

    Returns:
        The atlas for `world.render`, and the true name of each thing's shape (n, 3), `NONE` for fakes.
    """
    n = len(scenes)
    shapes, labels = _atlas(draw, fine)
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
