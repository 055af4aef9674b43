"""EVA-CLIP's vision tower, which LAVIS' stage-1 file leaves out because it stays frozen: ``eva_vit_g.pth``.

LAVIS (``create_eva_vit_g``) takes the blocks but the last (39 of 40) and none of what follows them, and stretches the
position embedding where the image size differs.
"""

from __future__ import annotations

import re

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from referee.errors import WeightsError

State = dict[str, Tensor]
PREFIX = "visual_encoder."
BLOCK = re.compile(r"blocks\.(\d+)\..+")
UNUSED = re.compile(r"(norm|fc_norm|head)\.(weight|bias)|mask_token")
"""What EVA-CLIP makes of the last block; mask_token is of its training."""


def from_eva(state: State, blocks: int) -> State:
    """The tower under LAVIS' names, with its first ``blocks`` blocks.

    Raises:
        WeightsError: there are fewer blocks.
    """
    numbers = [int(found[1]) for name in state if (found := BLOCK.fullmatch(name))]
    there = max(numbers, default=-1) + 1
    if there < blocks:
        raise WeightsError(
            f"The EVA file has {there} blocks and LAVIS takes {blocks}: "
            "give LAVIS' eva_vit_g.pth, or for a tower of another size say --eva-blocks N (all but its last)."
        )
    kept = {}
    for name, tensor in state.items():
        found = BLOCK.fullmatch(name)
        if not UNUSED.fullmatch(name) and not (found and int(found[1]) >= blocks):
            kept[PREFIX + name] = tensor
    return kept


def stretch(positions: Float[Tensor, "1 P d"], side: int) -> Float[Tensor, "1 Q d"]:
    """The position embedding for side x side patches: bicubic, the class token's kept, as LAVIS does it."""
    own, patches = positions[:, :1].float(), positions[:, 1:].float()
    old = round(patches.shape[1] ** 0.5)
    grid = patches.reshape(1, old, old, -1).permute(0, 3, 1, 2)
    grid = functional.interpolate(grid, size=(side, side), mode="bicubic", align_corners=False)
    return torch.cat([own, grid.permute(0, 2, 3, 1).flatten(1, 2)], dim=1)
