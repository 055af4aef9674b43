"""What the framework costs: a step's time over the sum of its bare model calls, and memory against views.

    python benchmarks/step.py                 # both, pocket zoo, one thread
    python benchmarks/step.py --referee blip2 --referee clip

The bare calls are what no inversion can do without: the decoder forward and backward, each referee forward and backward
on the step's views, one guided UNet call. They are timed in turn with whole steps in one process; medians are compared.
Memory is the peak of a fresh process for each number of views, at the preset's micro-batch.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from statistics import median

import torch

from referee.contract import Progress, Prompt
from referee.inversion import invert
from referee.play import load
from referee.randomness import generators

PROMPT = Prompt("a red circle and a blue striped square")


def main() -> None:
    """Print the ratio and the peaks."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--referee", action="append", help="default: blip2")
    arguments.add_argument("--steps", type=int, default=60)
    arguments.add_argument("--threads", type=int, default=1)
    arguments.add_argument("--peak", type=int, help=argparse.SUPPRESS)
    given = arguments.parse_args()
    torch.set_num_threads(given.threads)
    referees = given.referee or ["blip2"]
    if given.peak:
        print(peak(referees, given.peak))
        return
    overhead(referees, given.steps)
    print("\nviews  peak memory (MB)")
    for views in (10, 30, 90):
        command = [sys.executable, __file__, "--peak", str(views), *(f"--referee={name}" for name in referees)]
        print(f"{views:5}  {float(subprocess.run(command, check=True, capture_output=True, text=True).stdout):.0f}")


def overhead(referees: list[str], steps: int) -> None:
    """A step against its bare calls."""
    parts = load(referees=referees, device="cpu", settings={"rules": {"steps": steps + 5, "tail": 0}})
    views = parts.rules.views
    z = torch.randn(1, *parts.prior.latent_shape(*parts.size))
    pull = parts.prior.read(PROMPT)
    losses = [(seat.referee.input_size, seat.referee.read(PROMPT)) for seat in parts.seats]

    def decode() -> None:
        leaf = z.clone().requires_grad_()
        image = parts.prior.decode(leaf)
        torch.autograd.grad(image, leaf, torch.ones_like(image))

    def judge(size: int, loss: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[], None]:
        x = torch.rand(views, 3, size, size)

        def call() -> None:
            leaf = x.clone().requires_grad_()
            torch.autograd.grad(loss(leaf).sum(), leaf)

        return call

    bare: dict[str, Callable[[], None]] = {
        "decode": decode,
        "prior": lambda: void(pull(z, Progress(0, 1), generators([0], 0, "prior"))),
    }
    for seat, (size, loss) in zip(parts.seats, losses, strict=True):
        bare[seat.name] = judge(size, loss)
    run = invert(
        PROMPT,
        parts.seats,
        parts.prior,
        rules=parts.rules,
        augmentation=parts.augmentation,
        size=parts.size,
    )
    times: dict[str, list[float]] = {name: [] for name in ("step", *bare)}
    for k in range(steps + 5):
        found = {"step": timed(lambda: void(next(run))), **{name: timed(call) for name, call in bare.items()}}
        if k >= 5:  # the first few warm up
            for name, seconds in found.items():
                times[name].append(seconds)
    medians = {name: 1000 * median(values) for name, values in times.items()}
    total = sum(medians[name] for name in bare)
    for name, value in medians.items():
        print(f"{name:10} {value:7.1f} ms")
    # Each referee after the first needs the decoder's backward pass again; a "bare" run would too.
    print(f"step / bare calls = {medians['step'] / total:.3f}   (median of {steps}, {views} views)")


def void(_: object) -> None:
    """Drop a result."""


def timed(call: Callable[[], None]) -> float:
    """Seconds that a call takes."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def peak(referees: list[str], views: int) -> float:
    """Peak memory of this process in MB after a few steps."""
    parts = load(referees=referees, device="cpu", settings={"rules": {"steps": 6, "tail": 0, "views": views}})
    for _ in invert(
        PROMPT, parts.seats, parts.prior, rules=parts.rules, augmentation=parts.augmentation, size=parts.size
    ):
        pass
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
