"""The pocket world in pixels: a seeded, vectorised renderer of one to three things on a soft background.

A scene is a row of tensors; rendering is a few tensor operations for a whole batch. Shapes are looked up in an atlas of
signed distances, so that edges are anti-aliased; textures lie on a grid of 8 pixels, the cell of the latent space.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from functools import cache

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor

from referee_pocket.words import COLOURS, SHAPES, Thing, Wanted, held_out, held_pairs

SIZE = 64
"""Pixels a side."""
SLOTS = 3
"""Things a scene can hold."""
RADII = {1: (13.0, 18.0), 2: (12.0, 15.5), 3: (9.5, 12.0)}
"""Range of a thing's radius in pixels, by the number of things."""
COUNTS = (0.18, 0.67, 0.15)
"""Shares of scenes with one, two and three things."""
OUTLINE = 1.4
"""Pixels of plain colour around a textured thing: white patches would melt into the ground and spoil its shape."""
TEXTURE_SHARES = (0.4, 0.2, 0.2, 0.2)
RGB = (
    torch.tensor(
        [
            [222, 30, 30],
            [30, 155, 55],
            [30, 65, 220],
            [248, 215, 20],
            [250, 135, 20],
            [140, 45, 170],
            [30, 195, 225],
            [22, 18, 26],
        ]
    )
    / 255.0
)


@dataclass(slots=True)
class Scenes:
    """A batch of scenes; slots past a scene's count are empty.

    Attributes:
        count: (n,) things in the scene, 1 to 3.
        colour, shape, texture: (n, 3) indices into the words.
        centre: (n, 3, 2) x and y in pixels.  radius: (n, 3) in pixels.
        corners: (n, 3, 2, 2) background colours.  tint: (n, 3, 3) offsets of the things' colours.
    """

    count: Int[Tensor, "n"]
    colour: Int[Tensor, "n 3"]
    shape: Int[Tensor, "n 3"]
    texture: Int[Tensor, "n 3"]
    centre: Float[Tensor, "n 3 2"]
    radius: Float[Tensor, "n 3"]
    corners: Float[Tensor, "n 3 2 2"]
    tint: Float[Tensor, "n 3 3"]

    def __len__(self) -> int:
        return len(self.count)

    @property
    def present(self) -> Bool[Tensor, "n 3"]:
        """Which slots hold a thing."""
        return torch.arange(SLOTS) < self.count[:, None]

    def things(self, i: int) -> list[Thing]:
        """The things of scene i, in slot order."""
        rows = torch.stack([self.colour[i], self.shape[i], self.texture[i]], 1)[: int(self.count[i])]
        return [Thing(*row) for row in rows.tolist()]


def sample(n: int, generator: Generator, *, with_held_out: bool = False, count: int | None = None) -> Scenes:
    """Draw n scenes; without ``with_held_out`` none shows a combination kept from training.

    Args:
        n: how many.
        generator: the one source of randomness.
        with_held_out: also show what training must not (the judge may).
        count: the number of things in each scene; by default 1 to 3 by `COUNTS`.
    """
    shares = torch.tensor(COUNTS)
    counts = torch.multinomial(shares, n, True, generator=generator) + 1 if count is None else torch.full((n,), count)
    colour, shape = _kinds(counts, generator, with_held_out)
    texture = torch.multinomial(torch.tensor(TEXTURE_SHARES), n * SLOTS, True, generator=generator).view(n, SLOTS)
    centre, radius = _places(counts, generator)
    corners = 0.70 + 0.26 * torch.rand(n, 3, 2, 2, generator=generator)
    tint = 0.04 * (2 * torch.rand(n, SLOTS, 3, generator=generator) - 1)
    return Scenes(counts, colour, shape, texture, centre, radius, corners, tint)


@cache
def _allowed() -> Bool[Tensor, "64 64"]:
    """[a, b]: whether training may show kinds a and b (8 * colour + shape) together."""
    allowed = torch.ones(64, 64, dtype=torch.bool)
    for pair in held_pairs():
        a, b = (8 * c + s for c, s in pair)
        allowed[a, b] = allowed[b, a] = False
    for kind in range(64):
        if held_out([divmod(kind, 8)]):
            allowed[kind, :] = allowed[:, kind] = False
    return allowed


def _kinds(counts: Tensor, generator: Generator, with_held_out: bool) -> tuple[Tensor, Tensor]:
    n = len(counts)
    kinds = torch.randint(64, (n, SLOTS), generator=generator)
    while not with_held_out:
        # An empty slot repeats the first thing, which is allowed beside itself, so it forbids nothing.
        filled = torch.where(torch.arange(SLOTS) < counts[:, None], kinds, kinds[:, :1])
        allowed = _allowed()[filled[:, :, None], filled[:, None, :]].flatten(1).all(1)
        if allowed.all():
            break
        again = ~allowed
        kinds[again] = torch.randint(64, (int(again.sum()), SLOTS), generator=generator)
    return kinds // 8, kinds % 8


def _places(counts: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
    """Centres and radii such that things neither overlap nor leave the picture, by rejection."""
    n = len(counts)
    low, high = (torch.tensor([RADII[int(c)][i] for c in (1, 2, 3)])[counts - 1][:, None] for i in (0, 1))
    present = torch.arange(SLOTS) < counts[:, None]
    pairs = present[:, :, None] & present[:, None, :] & ~torch.eye(SLOTS, dtype=torch.bool)
    centre, radius = torch.zeros(n, SLOTS, 2), torch.zeros(n, SLOTS)
    open_ = torch.arange(n)
    while len(open_):
        m = len(open_)
        r = low[open_] + (high - low)[open_] * torch.rand(m, SLOTS, generator=generator)
        margin = r[..., None] + 1.0
        c = margin + (SIZE - 2 * margin) * torch.rand(m, SLOTS, 2, generator=generator)
        gap = torch.cdist(c, c) - r[:, :, None] - r[:, None, :]
        fits = ~((gap < 1.5) & pairs[open_]).flatten(1).any(1)
        centre[open_[fits]], radius[open_[fits]] = c[fits], r[fits]
        open_ = open_[~fits]
    return centre, radius


@torch.no_grad()
def render(scenes: Scenes, atlas: Float[Tensor, "k a a"] | None = None) -> Float[Tensor, "n 3 64 64"]:
    """Draw the scenes, RGB in [0, 1].

    Args:
        scenes: what to draw.
        atlas: signed distances that ``scenes.shape`` indexes, where they are not those of the world's shapes.
    """
    image = F.interpolate(scenes.corners, (SIZE, SIZE), mode="bilinear", align_corners=True)
    patterns = _patterns()
    covers, insides = cover(scenes, atlas), cover(scenes, atlas, inset=OUTLINE)
    for slot in range(SLOTS):
        ink = (RGB[scenes.colour[:, slot]] + scenes.tint[:, slot]).clamp(0, 1)[:, :, None, None]
        white = patterns[scenes.texture[:, slot], None] * insides[:, slot, None]
        image = image + covers[:, slot, None] * (ink + white * (1 - ink) - image)
    return image


@torch.no_grad()
def cover(
    scenes: Scenes, atlas: Float[Tensor, "k a a"] | None = None, inset: float = 0.0
) -> Float[Tensor, "n 3 64 64"]:
    """How much of each pixel each slot's thing covers, in [0, 1]; less a rim of ``inset`` pixels."""
    axis = torch.arange(SIZE) + 0.5
    pixels = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), -1)
    layers = []
    for slot in range(SLOTS):
        radius = scenes.radius[:, slot].clamp_min(1.0)[:, None, None]
        grid = (pixels - scenes.centre[:, slot, None, None]) / radius[..., None] / ATLAS_EXTENT
        lookup = (shape_atlas() if atlas is None else atlas)[scenes.shape[:, slot], None]
        distance = F.grid_sample(lookup, grid, align_corners=False, padding_mode="border")[:, 0]
        layers.append((0.5 - distance * radius - inset).clamp(0, 1) * scenes.present[:, slot, None, None])
    return torch.stack(layers, 1)


@cache
def _patterns() -> Float[Tensor, "4 64 64"]:
    """How white each texture is at each pixel; stripes and checks of 4 pixels, dots every 8."""
    axis = torch.arange(SIZE)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    bands, rows = (x // 4) % 2, (y // 4) % 2
    dots = torch.hypot((x % 8) - 3.5, (y % 8) - 3.5)
    return torch.stack([torch.zeros_like(x), bands, (bands + rows) % 2, (2.9 - dots).clamp(0, 1)]).float()


ATLAS_EXTENT = 1.4
"""The atlas covers [-1.4, 1.4] in units of a thing's radius."""


@cache
def shape_atlas() -> Float[Tensor, "8 160 160"]:
    """Signed distance of each shape of radius 1, negative inside."""
    axis = ((torch.arange(160) + 0.5) / 80 - 1) * ATLAS_EXTENT
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    length = torch.hypot(x, y)
    return torch.stack(
        [
            length - 0.94
            if name == "circle"
            else (length - 0.70).abs() - 0.26
            if name == "ring"
            else _polygon(x, y, _outline(name))
            for name in SHAPES
        ]
    )


def _outline(name: str) -> list[tuple[float, float]]:
    """Corners of a shape of radius about 1, y downwards."""

    def around(k: int, radii: tuple[float, ...]) -> list[tuple[float, float]]:
        turn = [2 * math.pi * i / k - math.pi / 2 for i in range(k)]
        return [(radii[i % len(radii)] * math.cos(a), radii[i % len(radii)] * math.sin(a)) for i, a in enumerate(turn)]

    if name == "square":
        return [(-0.8, -0.8), (0.8, -0.8), (0.8, 0.8), (-0.8, 0.8)]
    if name == "triangle":
        return [(0.0, -0.9), (0.95, 0.8), (-0.95, 0.8)]
    if name == "diamond":
        return [(0.0, -1.0), (0.74, 0.0), (0.0, 1.0), (-0.74, 0.0)]
    if name == "star":
        return around(10, (1.05, 0.44))
    if name == "cross":
        a, b = 0.35, 0.95
        return [
            (-a, -b),
            (a, -b),
            (a, -a),
            (b, -a),
            (b, a),
            (a, a),
            (a, b),
            (-a, b),
            (-a, a),
            (-b, a),
            (-b, -a),
            (-a, -a),
        ]
    turn = [2 * math.pi * i / 48 for i in range(48)]  # heart
    return [
        (
            math.sin(t) ** 3,
            -(13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t) + 2.5) / 15.5,
        )
        for t in turn
    ]


def _polygon(x: Tensor, y: Tensor, corners: list[tuple[float, float]]) -> Tensor:
    """Signed distance to a closed polygon: the nearest edge, with the sign of the even-odd rule."""
    nearest = torch.full_like(x, math.inf)
    inside = torch.zeros_like(x, dtype=torch.bool)
    for (ax, ay), (bx, by) in zip(corners, corners[1:] + corners[:1], strict=True):
        ex, ey = bx - ax, by - ay
        t = (((x - ax) * ex + (y - ay) * ey) / (ex * ex + ey * ey)).clamp(0, 1)
        nearest = torch.minimum(nearest, torch.hypot(x - ax - t * ex, y - ay - t * ey))
        if ey:
            inside ^= ((ay > y) != (by > y)) & (x < (y - ay) * ex / ey + ax)
    return torch.where(inside, -nearest, nearest)


def caption(scenes: Scenes, i: int, draw: random.Random) -> Wanted:
    """A true caption of scene i: its things in a random order or, for half the pairs, how they lie to each other."""
    things = scenes.things(i)
    order = list(range(len(things)))
    draw.shuffle(order)
    relation = None
    if len(things) == 2 and draw.random() < 0.5:
        (dx, dy) = (scenes.centre[i, order[0]] - scenes.centre[i, order[1]]).tolist()
        if max(abs(dx), abs(dy)) > 8:
            relation = (0 if dx < 0 else 1) if abs(dx) > abs(dy) else (2 if dy < 0 else 3)
    return Wanted(tuple(things[j] for j in order), relation)


assert len(RGB) == len(COLOURS)
