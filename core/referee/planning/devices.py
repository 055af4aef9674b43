"""What devices can do, by their makers' data sheets, and what there is here. Estimates, not measurements."""

from __future__ import annotations

import os
from dataclasses import dataclass

GIB = 1 << 30
EFFICIENCY = 0.4
"""Assumed share of the data sheet's rate that a step reaches: half for large matrix products, less for the rest."""
CORE = 0.1
"""TFLOP/s of one CPU core: 16 multiply-adds a cycle (two AVX2 units) at 3 GHz."""


@dataclass(frozen=True, slots=True)
class Device:
    """A device that a run may have.

    Args:
        title: its name.
        memory: bytes that a process can have of it.
        half: TFLOP/s of dense matrix products in bfloat16 or float16, summed up in float32; 0 if nobody said.
        single: the same in float32.
        overhead: bytes that torch takes for itself: its context, and kernels' workspaces.
        apart: its memory is not the CPU's, so weights may rest there.
    """

    title: str
    memory: int
    half: float
    single: float
    overhead: int = GIB
    apart: bool = True

    def seconds(self, flop: float, dtype: str) -> float | None:
        """For so many FLOPs, at `EFFICIENCY`; None if the rate is not known."""
        rate = self.single if dtype == "float32" else self.half
        return flop / (rate * 1e12 * EFFICIENCY) if rate else None


KNOWN = {
    "h200": Device("NVIDIA H200", 139 * GIB, 989, 67),
    "a100": Device("NVIDIA A100 80 GB", 79 * GIB, 312, 19.5),
    "rtx4090": Device("NVIDIA GeForce RTX 4090", int(23.5 * GIB), 165, 82.6),
    "rtx3060": Device("NVIDIA GeForce RTX 3060 12 GB", int(11.7 * GIB), 25.5, 12.7),
}
"""By NVIDIA's data sheets and architecture white papers: Hopper (SXM), Ampere (A100 and GA10x), Ada; without sparsity.
Memory: a little less than is printed on the box, as the driver keeps some."""
SLOWER = ("laptop", "mig")
"""In the names of devices that are called as one of those and are less."""


def known(name: str) -> Device | None:
    """The one of `KNOWN` that a driver calls so.

    >>> known("NVIDIA A100-SXM4-80GB") == KNOWN["a100"], known("NVIDIA GeForce RTX 4090 Laptop GPU")
    (True, None)
    """
    title = name.lower().replace(" ", "")
    if any(word in title for word in SLOWER):
        return None
    return next((found for key, found in KNOWN.items() if key in title), None)


def here(device: str) -> Device:
    """A torch device of this machine."""
    import torch

    if torch.device(device).type == "cuda":
        about = torch.cuda.get_device_properties(torch.device(device))
        sheet = known(about.name)
        half, single = (sheet.half, sheet.single) if sheet else (0.0, 0.0)
        return Device(about.name, about.total_memory, half, single)
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # not on this system
        memory = 0
    if torch.device(device).type != "cpu":
        return Device(device, memory, 0, 0, GIB // 2, apart=False)
    threads = torch.get_num_threads()
    title = f"{device}, {threads} thread{'s' * (threads > 1)}"
    return Device(title, memory, threads * CORE, threads * CORE, GIB // 2, apart=False)
