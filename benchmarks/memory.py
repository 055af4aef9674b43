"""The forecast of memory against torch's own allocator: one real step of the pocket zoo on the CPU.

    python benchmarks/memory.py [--size 64x64] [--set rules.micro_batch=4] ...

The allocator's count is that of ``torch.profiler``: what is allocated beside the weights, at its highest.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch.profiler import ProfilerActivity, profile

from referee.command.layer import flag_layer
from referee.inversion import invert
from referee.layers import parse_set, preset
from referee.parts import assemble, check
from referee.planning.preflight import Scales, outlined
from referee.plugins import discover
from referee.prompt import Prompt
from referee.settings import build

PROMPT = Prompt("a red circle and a blue striped square")


def main() -> None:
    """Print forecast, count and their ratio."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--size", default="64x64")
    arguments.add_argument("--set", action="append", default=[], metavar="a.b=value")
    given = arguments.parse_args()
    torch.set_num_threads(1)
    registry = discover()
    layers = [preset("pocket", registry), flag_layer(size=given.size, device="cpu"), *map(parse_set, given.set)]
    settings = build(layers)
    zoo = registry.find("zoo", "pocket")
    with outlined(zoo) as shelf:
        forecast = Scales(registry, PROMPT, zoo, shelf).weigh(settings).activations
    parts = assemble(check(settings, registry, PROMPT))
    steps = invert(
        PROMPT, parts.seats, parts.prior, rules=parts.rules, augmentation=parts.augmentation, size=parts.size
    )
    next(steps)  # what is allocated once
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found:
        next(steps)
    counted = allocated(found)
    print(f"forecast {forecast / 1e6:.1f} MB, allocator {counted / 1e6:.1f} MB, ratio {forecast / counted:.2f}")


def allocated(found: profile) -> float:
    """The most that was allocated at a time, in bytes above the start."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        found.export_chrome_trace(str(path))
        events = json.loads(path.read_text(encoding="utf-8"))["traceEvents"]
    memory = sorted((event["ts"], event["args"]["Bytes"]) for event in events if event.get("name") == "[memory]")
    now = most = 0
    for _, size in memory:
        now += size
        most = max(most, now)
    return most


if __name__ == "__main__":
    main()
