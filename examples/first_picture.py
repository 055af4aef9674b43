"""A first picture, from Python.

python examples/first_picture.py
python examples/first_picture.py "a green star above a black ring" --steps 60 --out star.png
"""

from __future__ import annotations

import argparse

import referee


def main() -> None:
    options = argparse.ArgumentParser(description="Draw a prompt with the embedded zoo.")
    options.add_argument("prompt", nargs="?", default="a red circle and a blue striped square")
    options.add_argument("--steps", type=int, default=160)
    options.add_argument("--views", type=int, default=10)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--out", default="picture.png")
    given = options.parse_args()

    rules = {"steps": given.steps, "views": given.views, "tail": given.steps // 16}
    parts = referee.load(referees=["blip2", "clip"], settings={"rules": rules})  # loaded once, played at will
    result = referee.generate(given.prompt, parts, seed=given.seed)

    result.pictures[0].save(given.out)
    played = [row["losses"] for row in result.history if row["losses"]]
    for name in played[0]:
        print(f"{name:6} loss {played[0][name][0]:.3f} -> {played[-1][name][0]:.3f}")
    print(given.out)


if __name__ == "__main__":
    main()
