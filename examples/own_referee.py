"""A referee of your own, beside BLIP-2: no plug-in, no registration, an object with two names.

    python examples/own_referee.py
    python examples/own_referee.py --steps 60 --out calm.png

To offer yours to everybody by name, see examples/referee-hello.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import referee
from referee.contract import Loss, Losses, Prompt, Views


class Calm:
    """Likes large plain areas: the loss is the mean squared step between neighbouring pixels."""

    input_size = 64

    def read(self, prompt: Prompt) -> Loss:
        def loss(views: Views) -> Losses:  # (b, 3, 64, 64) in [0, 1] -> (b,), lower is better
            across, down = views.diff(dim=3), views.diff(dim=2)
            return across.square().mean((1, 2, 3)) + down.square().mean((1, 2, 3))

        return loss


def main() -> None:
    options = argparse.ArgumentParser(description="Draw with BLIP-2 and a referee of your own.")
    options.add_argument("prompt", nargs="?", default="a red circle and a blue striped square")
    options.add_argument("--steps", type=int, default=160)
    options.add_argument("--views", type=int, default=10)
    options.add_argument("--out", default="calm.png")
    given = options.parse_args()

    rules = {"steps": given.steps, "views": given.views, "tail": given.steps // 16}
    parts = referee.load(referees=["blip2"], settings={"rules": rules})
    calm = referee.Seat("calm", Calm(), weight=referee.linear(0, 0.5))  # says nothing at first, more and more later
    result = referee.generate(given.prompt, replace(parts, seats=(*parts.seats, calm)))

    result.pictures[0].save(given.out)
    print(given.out)


if __name__ == "__main__":
    main()
