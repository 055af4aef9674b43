"""Draws the pictures of docs/how-it-works.md with the pocket zoo; some minutes on two cores.

    python tools/pictures.py
    python tools/pictures.py --steps 20 --seeds 2 --out elsewhere

The same numbers on every machine, but for rounding; so the pictures need no drawing again unless the zoo changes.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from PIL import Image
from torch import Tensor

import referee
from referee.pixels import to_pillow
from referee.randomness import generator

PROMPT = "a red circle and a blue striped square"
SIDE = 128
"""Pixels of one picture on a sheet: twice the pocket's 64."""
GAP = 8


def sheet(rows: list[list[Tensor]], path: Path) -> None:
    """Rows of pictures (3, H, W) in [0, 1] on a transparent ground, as WebP."""
    width = max(len(row) for row in rows) * (SIDE + GAP) - GAP
    paper = Image.new("RGBA", (width, len(rows) * (SIDE + GAP) - GAP), (0, 0, 0, 0))
    for i, row in enumerate(rows):
        for j, x in enumerate(row):
            tile = to_pillow(x).resize((SIDE, SIDE), Image.Resampling.NEAREST)
            paper.paste(tile, (j * (SIDE + GAP), i * (SIDE + GAP)))
    paper.save(path, "WEBP", quality=80, method=6)
    print(f"{path} {path.stat().st_size:,} bytes")


def heat(found: Tensor) -> Tensor:
    """A map (H, W) from black to white, its largest value white."""
    return (found / found.max().clamp_min(1e-12)).sqrt().expand(3, -1, -1)


def main() -> None:
    options = argparse.ArgumentParser(description="Draw the pictures of the documentation.")
    options.add_argument("--steps", type=int, default=200)
    options.add_argument("--views", type=int, default=10)
    options.add_argument("--seeds", type=int, default=4)
    options.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "docs" / "images")
    given = options.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)

    rules = {"steps": given.steps, "views": given.views, "tail": given.steps // 20}
    parts = referee.load(referees=["blip2", "clip"], settings={"rules": rules})
    shown = [0, given.steps // 20, given.steps // 8, given.steps // 3, given.steps * 2 // 3]
    way: list[Tensor] = []

    def keep(step: referee.Step) -> None:
        if step.k in shown:
            way.append(step.image[0])

    made = referee.generate(PROMPT, parts, n=given.seeds, on_step=keep)
    sheet([[*way, made.images[0]]], given.out / "way.webp")

    alone = referee.sample(PROMPT, parts, n=given.seeds)
    sheet([list(alone.images), list(made.images)], given.out / "prior-and-referees.webp")

    assert parts.augmentation is not None
    views = parts.augmentation(made.images[:1].repeat(5, 1, 1, 1), [generator(0, i, "view") for i in range(5)])
    sheet([[made.images[0], *views.clamp(0, 1)]], given.out / "views.webp")

    maps = [heat(made.maps[name][0]) for name in ("blip2", "clip", "prior")]
    sheet([[made.images[0], *maps]], given.out / "maps.webp")

    free = parts.rules.model_copy(
        update={"prior_weight": referee.constant(0), "tail": 0, "noise": referee.constant(0), "restart_every": 0}
    )
    fooled = referee.generate(PROMPT, replace(parts, rules=free), n=given.seeds)
    sheet([list(fooled.images)], given.out / "without-prior.webp")
    print("losses with the prior   ", {name: v[0] for name, v in made.history[-rules["tail"] - 1]["losses"].items()})
    print("losses without the prior", {name: v[0] for name, v in fooled.history[-1]["losses"].items()})


if __name__ == "__main__":
    main()
