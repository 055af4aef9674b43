"""The pocket judge: an independent detector that says what is in a picture, and whether that is what was asked for.

It shares nothing with the referees: a convolutional heat-map detector of its own (after CenterNet, Zhou et al. 2019,
arXiv 1904.07850), its own seed and draw of scenes. A ninth shape, "none", lets it refuse a shape that is mis-drawn:
halves, blobs and crosses between two shapes were shown to it under that name.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from itertools import combinations, permutations
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from safetensors.torch import load_file
from torch import Tensor, nn

from referee.errors import WeightsError
from referee.weights import check_folder
from referee_pocket import MEND, WEIGHTS
from referee_pocket.words import COLOURS, SHAPES, TEXTURES, Thing, Wanted, parse

NONE = len(SHAPES)
"""Index of the shape that is none of the world's."""
SIZES = (1, len(SHAPES) + 1, len(COLOURS), len(TEXTURES))
STRIDE = 4
THRESHOLD = 0.4
"""Heat above which a peak counts as a thing."""


class Detector(nn.Module):
    """(n, 3, 64, 64) in [0, 1] to (n, 22, 16, 16): heat, shape, colour and texture logits per cell of 4 pixels."""

    def __init__(self) -> None:
        super().__init__()

        def block(i: int, o: int, stride: int = 1, dilation: int = 1) -> nn.Sequential:
            conv = nn.Conv2d(i, o, 3, stride, dilation, dilation, bias=False)
            return nn.Sequential(conv, nn.BatchNorm2d(o), nn.ReLU())

        self.layers = nn.Sequential(
            block(3, 24), block(24, 40, 2), block(40, 40), block(40, 72, 2),
            block(72, 72), block(72, 72, 1, 2), block(72, 72, 1, 4), block(72, 72, 1, 2),
            nn.Conv2d(72, sum(SIZES), 1),
        )  # fmt: skip

    def forward(self, x: Float[Tensor, "n 3 64 64"]) -> Float[Tensor, "n 22 16 16"]:
        """Logits; the heat first."""
        y: Tensor = self.layers(x * 2 - 1)
        return y


@dataclass(frozen=True, slots=True)
class Found:
    """One thing seen: what, where (pixels), and how surely."""

    thing: Thing
    x: float
    y: float
    heat: float

    def __str__(self) -> str:
        return str(self.thing) if self.thing.shape < NONE else f"something {COLOURS[self.thing.colour]}"


@dataclass(frozen=True, slots=True)
class Verdict:
    """A picture held against what was asked for.

    Attributes:
        found: what was seen.
        binding: every wanted thing is there with all its attributes (others may be there too).
        attributes: share of the wanted attributes that are right, in the best assignment.
        colours, shapes, textures: the same, of each kind alone.
        exact: as many things as wanted.
        swapped: two kinds of attribute are all there, but paired otherwise: mis-bound, not missing.
        relation: the first lies to the second as asked; None if nothing was asked.
    """

    found: tuple[Found, ...]
    binding: bool
    attributes: float
    exact: bool
    swapped: bool
    relation: bool | None
    colours: float
    shapes: float
    textures: float


class Judge:
    """Scores pictures of the pocket world.

    >>> from referee_pocket import world                                # doctest: +SKIP
    >>> Judge().score(picture, "a red circle and a blue star")[0].binding   # doctest: +SKIP
    True
    """

    def __init__(self, folder: Path = WEIGHTS / "judge", device: str = "cpu") -> None:
        """WeightsError if the folder lacks a file or holds a broken one."""
        self.detector = Detector().eval().requires_grad_(False)
        check_folder(folder, ["config.json", "model.safetensors"], mend=MEND)
        try:
            state = {name: tensor.float() for name, tensor in load_file(folder / "model.safetensors").items()}
            self.detector.load_state_dict(state, strict=True)
            self.threshold = float(json.loads((folder / "config.json").read_text())["threshold"])
        except (RuntimeError, ValueError, KeyError, TypeError) as error:
            raise WeightsError(f"{folder} is no judge of the pocket world: {error}. {MEND}") from error

    def see(self, images: Float[Tensor, "n 3 64 64"]) -> list[tuple[Found, ...]]:
        """What is in each picture, most certain first."""
        device = next(self.detector.parameters()).device
        return detections(self.detector(images.to(device, torch.float32).clamp(0, 1)).cpu(), self.threshold)

    def score(self, images: Float[Tensor, "n 3 64 64"], prompt: str | Wanted) -> list[Verdict]:
        """A verdict per picture; PromptError if the prompt is not in the world's grammar."""
        wanted = parse(prompt) if isinstance(prompt, str) else prompt
        return [verdict(found, wanted) for found in self.see(images)]


def detections(logits: Float[Tensor, "n 22 16 16"], threshold: float = THRESHOLD) -> list[tuple[Found, ...]]:
    """Peaks of the heat, with what their cells say."""
    heat = logits[:, 0].sigmoid()
    peaks = (heat == F.max_pool2d(heat[:, None], 5, 1, 2)[:, 0]) & (heat > threshold)
    padded = F.pad(heat, (1, 1, 1, 1))
    results = []
    for i in range(len(logits)):
        found = []
        for row, column in peaks[i].nonzero().tolist():
            shape, colour, texture = (part.argmax().item() for part in logits[i, 1:, row, column].split(SIZES[1:]))
            near = padded[i, row : row + 3, column : column + 3]
            dy = (near.sum(1) @ torch.tensor([-1.0, 0.0, 1.0]) / near.sum()).item()
            dx = (near.sum(0) @ torch.tensor([-1.0, 0.0, 1.0]) / near.sum()).item()
            x, y = (column + 0.5 + dx) * STRIDE, (row + 0.5 + dy) * STRIDE
            found.append(Found(Thing(int(colour), int(shape), int(texture)), x, y, heat[i, row, column].item()))
        results.append(tuple(sorted(found, key=lambda f: -f.heat)))
    return results


def verdict(found: tuple[Found, ...], wanted: Wanted) -> Verdict:
    """Assign what was found to what was wanted so that most attributes agree, and read off the verdict."""

    def agreement(seen: Found | None, thing: Thing) -> tuple[bool, bool, bool]:
        """Of colour, shape and texture."""
        if seen is None:
            return False, False, False
        there = seen.thing
        return there.colour == thing.colour, there.shape == thing.shape, there.texture == thing.texture

    slots: list[Found | None] = [*found[:6], *([None] * len(wanted.things))]
    best = max(
        permutations(slots, len(wanted.things)),
        key=lambda chosen: sum(sum(agreement(s, t)) for s, t in zip(chosen, wanted.things, strict=True)),
    )
    right = [agreement(s, t) for s, t in zip(best, wanted.things, strict=True)]
    colours, shapes, textures = (sum(of) / len(right) for of in zip(*right, strict=True))
    relation = None
    if wanted.relation is not None:
        first, second = best[:2]
        relation = first is not None and second is not None and _lies(first, second) == wanted.relation
    return Verdict(
        found,
        binding=all(all(of) for of in right),
        attributes=sum(map(sum, right)) / (3 * len(right)),
        exact=len(found) == len(wanted.things),
        swapped=_swapped([f.thing for f in found], list(wanted.things)),
        relation=relation,
        colours=colours,
        shapes=shapes,
        textures=textures,
    )


def _swapped(seen: list[Thing], wanted: list[Thing]) -> bool:
    def values(things: list[Thing], *kinds: str) -> Counter[tuple[int, ...]]:
        return Counter(tuple(getattr(thing, kind) for kind in kinds) for thing in things)

    return any(
        values(seen, a) == values(wanted, a)
        and values(seen, b) == values(wanted, b)
        and values(seen, a, b) != values(wanted, a, b)
        for a, b in combinations(("colour", "shape", "texture"), 2)
    )


def _lies(a: Found, b: Found) -> int:
    """Index of the relation in which a lies to b, by the longer axis."""
    dx, dy = a.x - b.x, a.y - b.y
    if abs(dx) > abs(dy):
        return 0 if dx < 0 else 1
    return 2 if dy < 0 else 3
