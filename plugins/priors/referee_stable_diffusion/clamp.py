"""Clamp to [0, 1] whose gradient lets saturated pixels come back.

A plain clamp has no gradient outside its range, so a pixel once too bright stays so (as in the paper's
released code). A plain straight-through gradient lets it drift off for ever. This one passes a gradient to a
pixel outside [0, 1] exactly if descending along it moves the pixel back inside.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor


class _Clamp(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, y: Tensor) -> Tensor:
        ctx.save_for_backward(y)
        return y.clamp(0, 1)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Tensor:
        (y,) = ctx.saved_tensors
        (grad,) = grads
        # Descent moves y by -grad: a too bright pixel needs grad > 0 to come down, a too dark one grad < 0.
        stuck = ((y > 1) & (grad < 0)) | ((y < 0) & (grad > 0))
        return cast(Tensor, grad.masked_fill(stuck, 0))


def clamp(y: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
    """Values limited to [0, 1]; the gradient as told in this module's docstring.

    >>> y = torch.tensor([-0.5, 0.5, 1.5, 1.5], requires_grad=True)
    >>> clamp(y).tolist()
    [0.0, 0.5, 1.0, 1.0]
    >>> torch.autograd.grad(clamp(y) @ torch.tensor([1.0, 1.0, 1.0, -1.0]), y)[0]
    tensor([0., 1., 1., 0.])
    """
    return cast(Tensor, _Clamp.apply(y))
