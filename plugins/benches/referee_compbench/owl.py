"""What OWL finds in a picture: boxes by name. The detector is that of `referee_grounding_vqa`.

OWLv2 (Minderer et al. 2023, arXiv 2306.09683) gives a box and a logit per name at each patch; a patch is given to the
name that it likes best, as transformers' post-processing does.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from referee.contract import Image
from referee.resizing import resample
from referee_compbench.boxes import Box, Found, distinct
from referee_grounding_vqa.detector import Detector


class Finder:
    """Looks for things by name.

    Args:
        detector: the model; it is frozen.
        line: what it reads; {name} is replaced by a thing's name.
        device: torch's name.
    """

    def __init__(self, detector: Detector, line: str, device: str) -> None:
        self.detector = detector.to(device).eval().requires_grad_(False)
        self._line = line
        self._device = device
        self._queries: dict[str, Tensor] = {}

    @classmethod
    def load(cls, folder: Path, line: str, device: str) -> Finder:
        """From a transformers folder.

        Raises:
            WeightsError: it is no whole OWL.
        """
        return cls(Detector.load(folder), line, device)

    @torch.inference_mode()
    def __call__(self, image: Image, names: Sequence[str], least: float) -> dict[str, list[Found]]:
        """What is in a picture (1, 3, H, W), by name: the surest first, boxes in its pixels, each thing once.

        Args:
            image: in [0, 1].
            names: all that a patch may be; more names take patches from each other.
            least: confidences up to this one are left out.
        """
        height, width = image.shape[-2:]
        square = squared(image) if self.detector.network.config.model_type == "owlv2" else image
        size = self.detector.image_size
        views = resample(square.to(self._device), size, size, "bilinear")
        logits, boxes = self.detector.find(views, torch.cat([self._query(name) for name in names]))
        sure, which = logits[0].float().sigmoid().max(dim=1)
        found: dict[str, list[Found]] = {name: [] for name in names}
        high, wide = square.shape[-2:]
        for patch in torch.nonzero(sure > least)[:, 0].tolist():
            x, y, w, h = boxes[0, patch].tolist()
            box = Box((x - w / 2) * wide, (y - h / 2) * high, (x + w / 2) * wide, (y + h / 2) * high)
            found[names[int(which[patch])]].append(Found(sure[patch].item(), _within(box, height, width)))
        return {name: distinct(each) for name, each in found.items()}

    def _query(self, name: str) -> Tensor:
        if name not in self._queries:
            self._queries[name] = self.detector.queries([self._line.replace("{name}", name)])
        return self._queries[name]


def squared(image: Image) -> Float[Tensor, "n 3 S S"]:
    """With black below or to the right of it, as OWLv2 is shown what is not square."""
    height, width = image.shape[-2:]
    side = max(height, width)
    return functional.pad(image, (0, side - width, 0, side - height))


def _within(box: Box, height: int, width: int) -> Box:
    x0, x1 = (min(max(x, 0.0), float(width)) for x in (box.x0, box.x1))
    y0, y1 = (min(max(y, 0.0), float(height)) for y in (box.y0, box.y1))
    return Box(x0, y0, x1, y1)
