"""Colour jitter and erasing, each as a few numbers per view.

Brightness, contrast, saturation and channel shift are linear in the colour once the image's mean is known, so
they are one 3 x 3 matrix and one offset per view: the composition of kornia.enhance's
``adjust_brightness_accumulative``, ``adjust_contrast_with_mean_subtraction`` and
``adjust_saturation_with_gray_subtraction``, in this order, clipped to [0, 1] once at the end instead of after
each.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64
from kornia.enhance import adjust_hue
from torch import Tensor

from .draws import Draws, Row, either_way, happens
from .options import Options

Images = Float[Tensor, "b 3 H W"]
GREY = (0.299, 0.587, 0.114)
"""kornia's (and ITU-R BT.601's) weights of red, green and blue in a pixel's grey."""
_EYE, _TO_GREY = np.eye(3), np.tile(GREY, (3, 1))


def colour_map(draws: Draws, options: Options) -> tuple[Float64[np.ndarray, "b 3 3"], Float64[np.ndarray, "b 3 4"]]:
    """The matrix on a pixel's colour, and the one that makes the offset out of (mean r, mean g, mean b, 1).

    With brightness b, contrast c, saturation s, shift t, grey weights w and the image's mean colour m:
    ``y = b c (s I + (1 - s) 1 w') x + (1 - c) b (w' m) + t``.
    """
    on = happens(draws["jitter"], options.jitter_p)
    b = 1 + on * either_way(draws["brightness"], options.brightness)
    c = 1 + on * either_way(draws["contrast"], options.contrast)
    s = 1 + on * either_way(draws["saturation"], options.saturation)
    shift = np.stack([on * either_way(draws[f"shift_{k}"], options.channel_shift) for k in "rgb"], axis=1)
    b, c, s = b[:, None, None], c[:, None, None], s[:, None, None]
    matrix = b * c * (s * _EYE + (1 - s) * _TO_GREY)
    of_mean = (1 - c) * b * _TO_GREY
    return matrix, np.concatenate([of_mean, shift[:, :, None]], axis=2)


def recolour(x: Images, matrix: Float[Tensor, "b 3 3"], offset: Float[Tensor, "b 3 4"]) -> Images:
    """Apply `colour_map`'s result, clipped to [0, 1]."""
    pixels = x.flatten(2)
    bias = torch.baddbmm(offset[:, :, 3:], offset[:, :, :3], pixels.mean(2, keepdim=True))
    return torch.baddbmm(bias, matrix, pixels).clamp(0, 1).view_as(x)


def hue_angle(draws: Draws, options: Options) -> Row:
    """The turn of each view's colours, in radians; 0 where there is no jitter."""
    angle: Row = happens(draws["jitter"], options.jitter_p) * either_way(draws["hue"], options.hue * 2 * math.pi)
    return angle


def turn_hue(x: Images, angle: Row) -> Images:
    """Turn the colours of the views whose angle is not 0; the others cost nothing.

    The way through HSV is exact for its values; its gradient is finite everywhere, grey pixels included.
    """
    (turning,) = angle.nonzero()
    if len(turning) == 0:
        return x
    rows = torch.from_numpy(turning).to(x.device)
    turned: Images = adjust_hue(x[rows], torch.from_numpy(angle[turning]).to(x))
    return x.index_copy(0, rows, turned)


def rectangles(draws: Draws, options: Options, height: int, width: int) -> Float64[np.ndarray, "b 4"]:
    """Left, top, right, bottom (exclusive) of each view's erased rectangle in pixels; empty where none is."""
    on = happens(draws["erase"], options.erase_p)
    low, high = options.erase_area_min, options.erase_area_max
    area = (low + (high - low) * draws["erase_area"]) * height * width
    ratio = np.exp(either_way(draws["erase_ratio"], math.log(options.erase_ratio)))
    w = np.minimum(np.sqrt(area * ratio).round(), width) * on
    h = np.minimum(np.sqrt(area / ratio).round(), height) * on
    left = np.floor(draws["erase_x"] * (width - w + 1))
    top = np.floor(draws["erase_y"] * (height - h + 1))
    return np.stack([left, top, left + w, top + h], axis=1)


def inside(boxes: Float[Tensor, "b 4"], height: int, width: int) -> Bool[Tensor, "b 1 H W"]:
    """True on the pixels of each view's rectangle."""
    side = torch.arange(max(width, height), device=boxes.device)
    within = (side >= boxes[:, :2, None]) & (side < boxes[:, 2:, None])  # of the columns, and of the rows
    return (within[:, 1, :height, None] & within[:, 0, None, :width])[:, None]
