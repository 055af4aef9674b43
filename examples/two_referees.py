"""Two referees at one table: BLIP-2 all along, CLIP less and less; how far do they agree?

python examples/two_referees.py
python examples/two_referees.py "a green star above a black ring" --steps 60
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import referee


def main() -> None:
    options = argparse.ArgumentParser(description="Draw with BLIP-2 and CLIP.")
    options.add_argument("prompt", nargs="?", default="a red circle and a blue striped square")
    options.add_argument("--steps", type=int, default=160)
    options.add_argument("--views", type=int, default=10)
    options.add_argument("--out", default="two.png")
    given = options.parse_args()

    rules = {"steps": given.steps, "views": given.views, "tail": given.steps // 16}
    parts = referee.load(referees=["blip2", "clip"], settings={"rules": rules})
    blip2, clip = parts.seats
    table = (blip2, replace(clip, weight=referee.linear(1, 0.2)))  # a weight may be any schedule
    result = referee.generate(given.prompt, replace(parts, seats=table))

    result.pictures[0].save(given.out)
    for row in result.history[:: max(1, given.steps // 8)]:
        if row["losses"]:  # not in the tail, in which the prior is alone
            losses = "  ".join(f"{name} {values[0]:.3f}" for name, values in row["losses"].items())
            print(f"step {row['step']:4}  {losses}  agreement {row['agreement'][0]:.2f}")  # 1 unanimous, 0 deadlock
    print(given.out)


if __name__ == "__main__":
    main()
