"""Crop, flip, affine and perspective as one homography, so that an image is interpolated only once.

Homographies map source pixels to view pixels; pixel centres lie on integers, (x, y) from the top left, as in
kornia.geometry.transform.warp_perspective with ``align_corners=True``.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from kornia.geometry.transform import get_affine_matrix2d, get_perspective_transform
from torch import Tensor

from .draws import Draws, either_way, happens
from .options import Options

Homography = Float[Tensor, "b 3 3"]


def homography(draws: Draws, options: Options, height: int, width: int) -> Homography:
    """Crop, then flip, affine and perspective, composed; float64 on the CPU."""
    right, bottom = width - 1.0, height - 1.0
    total = _affine(draws, options, right, bottom)
    if options.perspective and options.perspective_p:
        total = _perspective(draws, options, right, bottom) @ total
    if options.flip:
        total = total @ _flip(draws, options, right)
    if options.crop < 1:
        total = total @ _crop(draws, options, right, bottom)
    return total


def _affine(draws: Draws, options: Options, right: float, bottom: float) -> Homography:
    on = happens(draws["affine"], options.affine_p)
    shift_x = either_way(draws["shift_x"], options.translate * (right + 1))
    shift_y = either_way(draws["shift_y"], options.translate * (bottom + 1))
    scale = 1 + on * either_way(draws["scale"], options.scale)
    matrix: Homography = get_affine_matrix2d(
        translations=torch.stack([on * shift_x, on * shift_y], dim=1),
        center=torch.tensor([[right / 2, bottom / 2]], dtype=on.dtype).expand(len(on), 2),
        scale=torch.stack([scale, scale], dim=1),
        angle=on * either_way(draws["rotation"], options.rotation),
        sx=(on * either_way(draws["shear"], options.shear)).deg2rad(),
        sy=torch.zeros_like(on),
    )
    return matrix


def _perspective(draws: Draws, options: Options, right: float, bottom: float) -> Homography:
    """Each corner moves towards the inside, as in kornia's RandomPerspective ("basic")."""
    on = happens(draws["perspective"], options.perspective_p)
    u = torch.stack([draws[f"{axis}{corner}"] for corner in range(4) for axis in "xy"], dim=1).view(-1, 4, 2)
    corners = u.new_tensor([[0, 0], [right, 0], [right, bottom], [0, bottom]]).expand_as(u)
    inwards = u.new_tensor([[1, 1], [-1, 1], [-1, -1], [1, -1]])
    reach = u.new_tensor([right + 1, bottom + 1]) * options.perspective / 2
    moved = corners + on[:, None, None] * u * inwards * reach
    matrix: Homography = get_perspective_transform(corners, moved)
    return matrix


def _flip(draws: Draws, options: Options, right: float) -> Homography:
    on = happens(draws["flip"], options.flip)
    matrix = torch.eye(3, dtype=on.dtype).repeat(len(on), 1, 1)
    matrix[:, 0, 0] = 1 - 2 * on
    matrix[:, 0, 2] = on * right
    return matrix


def _crop(draws: Draws, options: Options, right: float, bottom: float) -> Homography:
    """A window of the image's own shape, blown up to the whole: no object is squeezed."""
    side = (options.crop + (1 - options.crop) * draws["crop"]).sqrt()
    matrix = torch.zeros(len(side), 3, 3, dtype=side.dtype)
    matrix[:, 0, 0] = matrix[:, 1, 1] = 1 / side
    matrix[:, 0, 2] = -draws["crop_x"] * (1 - side) * right / side
    matrix[:, 1, 2] = -draws["crop_y"] * (1 - side) * bottom / side
    matrix[:, 2, 2] = 1
    return matrix
