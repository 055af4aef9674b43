"""Two steps at full size on a GPU: time, peak memory, and the ratio to what the FLOPs alone would take.

    python benchmarks/full_size.py                       # Stable Diffusion 1.5 and BLIP-2 ViT-g, 30 views, bfloat16
    python benchmarks/full_size.py --set rules.views=10
    python benchmarks/full_size.py --tiny                # the pocket zoo's sizes on the CPU: does this file work?

The models are built as published and filled with random weights: nothing is downloaded, and the pictures mean nothing.
"""

from __future__ import annotations

import argparse
import time

import torch

from referee.inversion import invert
from referee.layers import parse_set, preset
from referee.parts import assemble, ordered
from referee.planning.devices import here
from referee.planning.preflight import Scales, outlined
from referee.plugins import discover
from referee.prompt import Prompt
from referee.settings import build

PROMPT = Prompt("a red circle and a blue striped square")


def main() -> None:
    """Print what was forecast and what came."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--tiny", action="store_true")
    arguments.add_argument("--set", action="append", default=[], metavar="a.b=value")
    given = arguments.parse_args()
    if not given.tiny and not torch.cuda.is_available():
        print("Here is no GPU, and at full size a CPU takes an hour: nothing was measured.")
        return
    name, device, dtype = ("pocket", "cpu", "float32") if given.tiny else ("sd15", "cuda", "bfloat16")
    registry = discover()
    few = {"device": device, "dtype": dtype, "rules": {"steps": 3, "tail": 0}}
    settings = build([preset(name, registry), few, *(parse_set(text) for text in given.set)])
    zoo = registry.find("zoo", name)
    with outlined(zoo) as shelf:
        forecast = Scales(registry, PROMPT, zoo, shelf).weigh(settings)
        torch.manual_seed(0)
        parts = assemble(ordered(settings, registry, shelf, zoo), weights=given.tiny)
    steps = invert(
        PROMPT, parts.seats, parts.prior, rules=parts.rules, augmentation=parts.augmentation, size=parts.size,
        device=parts.device,
    )  # fmt: skip
    seconds = []
    for _ in range(3):  # the first warms up
        began = time.perf_counter()
        next(steps)
        if device == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
    machine, step = here(device), sum(seconds[1:]) / 2
    print(f"{machine.title}, {dtype}: {forecast.step / 1e12:.3g} TFLOP a step")
    print(f"time  {step:.3f} s a step")
    if rate := machine.single if dtype == "float32" else machine.half:
        floor = forecast.step / rate / 1e12
        print(f"floor {floor:.4f} s at the data sheet's rate: the step took {step / floor:.1f} times that")
    print(f"memory forecast  {(forecast.weights + forecast.activations) / 2**30:.2f} GiB and torch's own")
    if device == "cuda":
        print(f"memory peak      {torch.cuda.max_memory_allocated() / 2**30:.2f} GiB allocated")


if __name__ == "__main__":
    main()
