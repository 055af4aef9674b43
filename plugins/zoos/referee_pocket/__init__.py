"""The pocket zoo: a little world and every model that plays in it, small enough to ship.

Vocabulary and grammar are in `words`, the renderer in `world`, the held-out judge in `judge`; ``python -m
referee_pocket.train`` rebuilds the weights. Importing this package imports no torch.
"""

from __future__ import annotations

from pathlib import Path

WEIGHTS = Path(__file__).parent / "weights"

AUGMENTATION: dict[str, object] = {
    "rotation": 15, "translate": 0.12, "scale": 0.15, "shear": 7, "perspective": 0.2, "perspective_p": 1.0,
    "jitter_p": 1.0, "brightness": 0.15, "contrast": 0.2, "saturation": 0.25, "channel_shift": 0.05, "hue": 0.0,
    "erase_p": 0.3, "erase_area_min": 0.006, "erase_area_max": 0.055, "erase_ratio": 3.0, "erase_value": 0.5, "noise": 0.15, "padding": "border",
}  # fmt: skip
"""The paper's five augmentations at this world's scale; colours are its labels, so the hue stays."""
