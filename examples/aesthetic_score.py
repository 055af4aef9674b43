"""An aesthetic score as a referee: a linear head on CLIP's image features, beside BLIP-2.

    python examples/aesthetic_score.py --head head.safetensors

The file holds `weight`, one number per feature, and `bias`: what a linear regression of people's ratings on the
normalised features of this very CLIP gives. A head for another CLIP wants that CLIP.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.functional import normalize

import referee
from referee.contract import Loss, Losses, Prompt, Views


class Aesthetic:
    """The higher the score, the lower the loss: minus (weight . features + bias).

    Args:
        clip: a model of open_clip, frozen.
        size: side of its images, in pixels.
        head: `weight` (1, e) or (e,), and `bias` (1,).
    """

    def __init__(self, clip: Any, size: int, head: dict[str, Tensor]) -> None:
        self.clip, self.input_size = clip, size
        self.weight, self.bias = head["weight"].flatten().float(), head["bias"].float()
        self.mean, self.std = (torch.tensor(v).view(3, 1, 1) for v in (clip.visual.image_mean, clip.visual.image_std))

    def read(self, prompt: Prompt) -> Loss:
        def loss(views: Views) -> Losses:
            features = self.clip.encode_image((views - self.mean.to(views)) / self.std.to(views))
            return -(normalize(features, dim=-1) @ self.weight.to(views) + self.bias.to(views))

        return loss


def main() -> None:
    options = argparse.ArgumentParser(description="Draw with BLIP-2 and an aesthetic score.")
    options.add_argument("prompt", nargs="?", default="a red circle and a blue striped square")
    options.add_argument("--head", required=True, help="safetensors: weight and bias")
    options.add_argument("--steps", type=int, default=160)
    options.add_argument("--views", type=int, default=10)
    options.add_argument("--out", default="aesthetic.png")
    given = options.parse_args()

    rules = {"steps": given.steps, "views": given.views, "tail": given.steps // 16}
    parts = referee.load(referees=["blip2", "clip"], settings={"rules": rules})
    blip2, clip = parts.seats
    aesthetic = Aesthetic(clip.referee.model, clip.referee.input_size, load_file(given.head))
    table = (blip2, referee.Seat("aesthetic", aesthetic, weight=referee.linear(0, 0.3)))  # first the words, then beauty
    result = referee.generate(given.prompt, replace(parts, seats=table))

    result.pictures[0].save(given.out)
    print(f"score {-referee.score(result.images, given.prompt, table)['aesthetic']:.3f}")
    print(given.out)


if __name__ == "__main__":
    main()
