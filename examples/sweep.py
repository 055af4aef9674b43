"""A sweep over settings and seeds: the parts are loaded once, each setting draws a batch of seeds.

python examples/sweep.py --seeds 4
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import referee


def main() -> None:
    options = argparse.ArgumentParser(description="Which step length suits a prompt?")
    options.add_argument("prompt", nargs="?", default="a red circle and a blue striped square")
    options.add_argument("--seeds", type=int, default=2)
    options.add_argument("--steps", type=int, default=160)
    options.add_argument("--views", type=int, default=10)
    options.add_argument("--out", default="sweep.png")
    given = options.parse_args()

    rules = {"steps": given.steps, "views": given.views, "tail": given.steps // 16}
    parts = referee.load(referees=["blip2"], settings={"rules": rules})
    found = []
    for lr in (0.06, 0.12, 0.24):
        played = parts.rules.model_copy(update={"lr": referee.cosine(lr, lr / 2)})
        result = referee.generate(given.prompt, replace(parts, rules=played), n=given.seeds)
        for seed, x, picture in zip(result.seeds, result.images, result.pictures, strict=True):
            loss = referee.score(x[None], given.prompt, parts.seats)["blip2"]
            found.append((loss, lr, seed, picture))
            print(f"lr {lr:.2f}  seed {seed}  loss {loss:.3f}")

    loss, lr, seed, picture = min(found, key=lambda row: row[0])
    picture.save(given.out)
    print(f"best: lr {lr:.2f}, seed {seed}: {given.out}")


if __name__ == "__main__":
    main()
