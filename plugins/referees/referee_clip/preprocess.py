"""How a CLIP was shown its pictures, in torch and differentiable: open_clip's ``image_transform`` up to its
normalisation, for images in [0, 1] where that takes Pillow's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch.nn import functional

from referee.contract import Image, Views
from referee.errors import WeightsError
from referee.resizing import Filter, resample

Mode = Literal["shortest", "longest", "squash"]
MODES: dict[str, Mode] = {"shortest": "shortest", "longest": "longest", "squash": "squash"}
FILTERS: dict[str, Filter] = {"bicubic": "bicubic", "bilinear": "bilinear", "random": "bicubic"}
"""open_clip takes "random", a training option, for bicubic when it only looks."""


@dataclass(frozen=True, slots=True)
class Framing:
    """A whole picture to the square of pixels that the image tower takes.

    Args:
        size: side of the square.
        mode: shortest: the shorter side is made to fit and the rest of the longer cut off; longest: the longer side
            is made to fit and the shorter padded; squash: both are made to fit.
        how: the filter.
        fill: grey of the padding, in [0, 1].
    """

    size: int
    mode: Mode = "shortest"
    how: Filter = "bicubic"
    fill: float = 0.0

    @classmethod
    def of(cls, config: Mapping[str, Any], size: int) -> Framing:
        """From an open_clip model's ``visual.preprocess_cfg``.

        Raises:
            WeightsError: it names a mode or a filter that open_clip does not have.
        """
        mode, how = config.get("resize_mode") or "shortest", config.get("interpolation") or "bicubic"
        if mode not in MODES or how not in FILTERS:
            known = f"{', '.join(MODES)}; {', '.join(FILTERS)}"
            raise WeightsError(f"This CLIP's preprocess_cfg asks for '{mode}' and '{how}'; there are: {known}.")
        return cls(size, MODES[mode], FILTERS[how], (config.get("fill_color") or 0) / 255)

    def __call__(self, x: Image) -> Views:
        """(n, 3, H, W) in [0, 1] to (n, 3, size, size)."""
        height, width = x.shape[-2:]
        size = self.size
        if self.mode == "squash":
            return resample(x, size, size, self.how)
        if self.mode == "longest":
            most = max(height, width)
            return self._centre(resample(x, round(height * size / most), round(width * size / most), self.how))
        least = min(height, width)
        return self._centre(resample(x, size * height // least, size * width // least, self.how))

    def _centre(self, x: Image) -> Views:
        """Padded where it is too small, with the odd pixel below and to the right; cut where it is too large."""
        lack = [max(self.size - side, 0) for side in x.shape[-2:]]
        left, top = lack[1] // 2, lack[0] // 2
        x = functional.pad(x, (left, lack[1] - left, top, lack[0] - top), value=self.fill)
        y0, x0 = (round((side - self.size) / 2) for side in x.shape[-2:])
        return x[..., y0 : y0 + self.size, x0 : x0 + self.size]
