"""Peers of inversion in the pocket world, as methods of a bench: layers over the preset.

Each costs as many FLOPs as a run of the preset does: `referee.bench.compute` found the numbers, and a test finds them
again. Learning rates were chosen on prompts for tuning; how, and what came of it, is in docs/peers.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

METHODS: Mapping[str, Mapping[str, Any]] = {
    "best-of": {"draw": {"name": "best-of", "options": {"n": 85}}},
    "noise-1": {"draw": {"name": "noise", "options": {"steps": 1, "iterations": 262, "lr": 4.0}}},
    "noise-4": {"draw": {"name": "noise", "options": {"steps": 4, "iterations": 164, "lr": 4.0}}},
    "noise-8": {"draw": {"name": "noise", "options": {"steps": 8, "iterations": 110, "lr": 8.0}}},
}
"""By name; `draw` is of `referee.bench.draws.DRAWS`."""
