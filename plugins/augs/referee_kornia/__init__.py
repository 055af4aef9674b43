"""Augmentations by kornia: the plug-in `kornia`. Importing it imports neither torch nor kornia.

The paper (arXiv 2402.16305, section 3.3 and appendix C) names five: random affine, random perspective, colour
jitter, random erasing and Gaussian noise. See `referee_kornia.options` for their values.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from referee.hooks import Place, Register, Spec, hookimpl

from .options import Options

if TYPE_CHECKING:
    from referee.contract import Augmentation

__all__ = ["Options"]


def _make(options: Options, place: Place) -> Augmentation:
    from .augmentation import KorniaAugmentation  # torch and kornia: only now

    return KorniaAugmentation(options)  # computes wherever the images are


@hookimpl
def referee_augmentations(register: Register) -> None:
    register(Spec("kornia", "affine, perspective, jitter, erasing, noise", _make, Options))
