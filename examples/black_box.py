"""A referee that gives no gradient: a score by forward passes alone, and its slope guessed by SPSA.

    python examples/black_box.py
    python examples/black_box.py --pairs 64

Simultaneous perturbation (Spall 1992, IEEE Transactions on Automatic Control 37(3)): move all pixels at once by +-c at
random, ask twice (there and opposite), and take the difference as the slope along that very direction; the mean over
some pairs points the right way. Here CLIP plays the black box, so that its exact gradient is there to compare with.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

import referee
from referee.contract import Loss, Losses, Prompt, Referee, Views
from referee.randomness import generator


class Guess(torch.autograd.Function):
    """The score as it is; backward, a guess made of forward passes."""

    @staticmethod
    def forward(
        ctx: Any, views: Tensor, score: Loss, pairs: int, step: float, patch: int, draws: torch.Generator
    ) -> Tensor:
        slope = torch.zeros_like(views)
        for _ in range(pairs):
            # Patches, not pixels: few unknowns are guessed with few questions, and referees look at patches anyway.
            signs = torch.randint(0, 2, (len(views), 3, patch, patch), generator=draws).to(views) * 2 - 1
            along = torch.nn.functional.interpolate(signs, views.shape[-2:], mode="nearest")
            rise = (score(views + step * along) - score(views - step * along)) / (2 * step)
            slope += rise[:, None, None, None] * along / pairs
        ctx.save_for_backward(slope)
        return score(views)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:  # type: ignore[override]
        (slope,) = ctx.saved_tensors
        return g[:, None, None, None] * slope, None, None, None, None, None


class BlackBox:
    """Any referee without its gradient: 2 ``pairs`` + 1 forward passes, no graph, no backward pass.

    Args:
        inner: whose losses are asked for.
        pairs: of opposite questions, per call.
        step: c, in [0, 1] of a pixel's range.
        patch: patches per side that move as one.
    """

    def __init__(self, inner: Referee, pairs: int = 32, step: float = 0.05, patch: int = 8) -> None:
        self.inner, self.pairs, self.step, self.patch = inner, pairs, step, patch
        self.input_size = inner.input_size

    def read(self, prompt: Prompt) -> Loss:
        loss, calls = self.inner.read(prompt), 0

        def score(views: Views) -> Losses:
            with torch.no_grad():
                return loss(views)

        def guessed(views: Views) -> Losses:
            nonlocal calls
            calls += 1  # other directions at each step, the same ones in each run
            return Guess.apply(views, score, self.pairs, self.step, self.patch, generator(0, calls, "spsa"))

        return guessed


def compare(exact: Referee, guess: BlackBox, prompt: str) -> str:
    """Cost of one view's gradient, both ways, and the cosine between them, patch by patch."""
    picture = torch.rand(1, 3, exact.input_size, exact.input_size, generator=generator(0, 0, "picture"))
    found, times = [], []
    for each in (exact, guess):
        loss, views = each.read(Prompt(prompt)), picture.clone().requires_grad_()
        start = time.perf_counter()
        (g,) = torch.autograd.grad(loss(views).sum(), views)
        times.append(time.perf_counter() - start)
        found.append(torch.nn.functional.adaptive_avg_pool2d(g, guess.patch).flatten())
    cosine = float(torch.cosine_similarity(*found, dim=0))
    return (
        f"exact gradient {times[0] * 1000:.0f} ms; SPSA with {guess.pairs} pairs {times[1] * 1000:.0f} ms, "
        f"{2 * guess.pairs + 1} forward passes; cosine {cosine:.2f}"
    )


def main() -> None:
    options = argparse.ArgumentParser(description="Draw with a referee that gives no gradient.")
    options.add_argument("prompt", nargs="?", default="a red circle and a blue striped square")
    options.add_argument("--pairs", type=int, default=32)
    options.add_argument("--steps", type=int, default=160)
    options.add_argument("--views", type=int, default=1)
    options.add_argument("--out", default="black_box.png")
    given = options.parse_args()

    rules = {"steps": given.steps, "views": given.views, "tail": given.steps // 16}
    parts = referee.load(referees=["clip"], settings={"rules": rules})
    clip = parts.seats[0].referee
    box = BlackBox(clip, given.pairs)
    print(compare(clip, box, given.prompt))
    result = referee.generate(given.prompt, replace(parts, seats=(referee.Seat("box", box),)))

    result.pictures[0].save(given.out)
    print(given.out)


if __name__ == "__main__":
    main()
