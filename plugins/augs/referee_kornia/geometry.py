"""Crop, flip, affine and perspective as one homography, so that an image is interpolated only once.

Homographies map source pixels to view pixels; pixel centres lie on integers, (x, y) from the top left. Written out in
closed form, they and the warp cost half of what kornia's general functions do, which the tests hold them against:
get_affine_matrix2d, get_perspective_transform and warp_perspective with ``align_corners=True``.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float64
from torch import Tensor

from .draws import Draws, Row, either_way, happens
from .options import Options

Homography = Float64[np.ndarray, "b 3 3"]


def homography(draws: Draws, options: Options, height: int, width: int) -> Homography:
    """Crop, then flip, affine and perspective, composed."""
    right, bottom = width - 1.0, height - 1.0
    total = _affine(draws, options, right, bottom)
    if options.perspective and options.perspective_p:
        total = _perspective(draws, options, right, bottom) @ total
    if options.flip:
        total = total @ _flip(draws, options, right)
    if options.crop < 1:
        total = total @ _crop(draws, options, right, bottom)
    return total


def looking_back(matrix: Homography, height: int, width: int) -> Homography:
    """From view to source, both in [-1, 1] from the first pixel's centre to the last's: what `warp` reads."""
    to_unit = np.array([[2 / max(width - 1, 1), 0, -1], [0, 2 / max(height - 1, 1), -1], [0, 0, 1]])
    return to_unit @ np.linalg.inv(to_unit @ matrix)


def warp(x: Float[Tensor, "b c H W"], back: Float[Tensor, "b 3 3"], padding: str) -> Float[Tensor, "b c H W"]:
    """The views of x through `looking_back`'s homographies, bilinear, differentiable in x."""
    height, width = x.shape[-2:]
    across, down = (torch.linspace(-1, 1, side, device=x.device, dtype=x.dtype) for side in (width, height))
    of_x, of_y, shift = back[:, :, :, None, None].unbind(2)
    u, v, w = (of_x * across + (of_y * down[:, None] + shift)).unbind(1)  # no matmul: TF32 would tear pixels apart
    grid = torch.stack([u / w, v / w], dim=-1)
    return F.grid_sample(x, grid, padding_mode=padding, align_corners=True)


def _affine(draws: Draws, options: Options, right: float, bottom: float) -> Homography:
    """Shear along x, scale and rotation about the centre, then the shift."""
    on, mid_x, mid_y = happens(draws["affine"], options.affine_p), right / 2, bottom / 2
    angle = on * either_way(draws["rotation"], math.radians(options.rotation))
    scale = 1 + on * either_way(draws["scale"], options.scale)
    shear = np.tan(on * either_way(draws["shear"], math.radians(options.shear)))
    cos, sin = scale * np.cos(angle), scale * np.sin(angle)
    of_y, down = -sin - shear * cos, cos - shear * sin
    x = mid_x - cos * mid_x - of_y * mid_y + on * either_way(draws["shift_x"], options.translate * (right + 1))
    y = mid_y - sin * mid_x - down * mid_y + on * either_way(draws["shift_y"], options.translate * (bottom + 1))
    return _matrices((cos, of_y, x), (sin, down, y), (0, 0, 1))


def _perspective(draws: Draws, options: Options, right: float, bottom: float) -> Homography:
    """Each corner moves towards the inside, as in kornia's RandomPerspective ("basic")."""
    on = happens(draws["perspective"], options.perspective_p)
    reach_x, reach_y = (on * side * options.perspective / 2 for side in (right + 1, bottom + 1))
    ax, bx, cx, dx = (
        x + way * draws[f"x{i}"] * reach_x
        for i, x, way in zip(range(4), (0, right, right, 0), (1, -1, -1, 1), strict=True)
    )
    ay, by, cy, dy = (
        y + way * draws[f"y{i}"] * reach_y
        for i, y, way in zip(range(4), (0, 0, bottom, bottom), (1, 1, -1, -1), strict=True)
    )
    # The unit square onto a, b, c, d: P. Heckbert, Fundamentals of Texture Mapping and Image Warping (1989), 2.2.3.
    x, y = ax - bx + cx - dx, ay - by + cy - dy
    area = (bx - cx) * (dy - cy) - (dx - cx) * (by - cy)
    g = (x * (dy - cy) - (dx - cx) * y) / area
    h = ((bx - cx) * y - x * (by - cy)) / area
    square = _matrices((bx - ax + g * bx, dx - ax + h * dx, ax), (by - ay + g * by, dy - ay + h * dy, ay), (g, h, 1))
    square /= np.array([right, bottom, 1])  # from the corners' unit square to pixels
    return square


def _flip(draws: Draws, options: Options, right: float) -> Homography:
    on = happens(draws["flip"], options.flip)
    return _matrices((1 - 2 * on, 0, on * right), (0, 1, 0), (0, 0, 1))


def _crop(draws: Draws, options: Options, right: float, bottom: float) -> Homography:
    """A window of the image's own shape, blown up to the whole: no object is squeezed."""
    side = np.sqrt(options.crop + (1 - options.crop) * draws["crop"])
    x, y = (-draws[f"crop_{axis}"] * (1 - side) * end / side for axis, end in (("x", right), ("y", bottom)))
    return _matrices((1 / side, 0, x), (0, 1 / side, y), (0, 0, 1))


def _matrices(*rows: tuple[Row | float, Row | float, Row | float]) -> Homography:
    """One per view, of entries that are one per view or the same for all; the first is one per view."""
    found = np.empty((np.size(rows[0][0]), 3, 3))
    for i, row in enumerate(rows):
        for j, entry in enumerate(row):
            found[:, i, j] = entry
    return found
