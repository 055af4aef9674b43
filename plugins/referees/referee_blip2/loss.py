"""The referee's two losses, one number per view: the paper's L_ITM and L_CG (arXiv 2402.16305, Algorithm 1;
after Li et al. 2023, "BLIP-2", section 3.1).

L_ITM is a true cross entropy against "matched". The released code's ``-log(p + 1e-8)`` is bounded by 18.4 and
its gradient dies where p is about 1e-8: where it is needed most.
"""

from __future__ import annotations

from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

IGNORED = -100
SMOOTHING = 0.1
"""Label smoothing of the caption loss, as in BLIP-2's training."""


def matching_loss(logits: Float[Tensor, "b 2"]) -> Float[Tensor, " b"]:
    """-log p(matched); class 1 is "matched"."""
    matched = logits.new_ones(len(logits)).long()
    return functional.cross_entropy(logits, matched, reduction="none")


def token_losses(
    logits: Float[Tensor, "b T V"], ids: Int[Tensor, "b T"], mask: Int[Tensor, "b T"]
) -> Float[Tensor, "b T-1"]:
    """Label-smoothed cross entropy of each next token; 0 at padding.

    Args:
        logits: of the caption run; position t predicts token t + 1.
        ids: the caption; the first one, [DEC], is never a target.
        mask: 1 where there is a token, 0 where there is padding.
    """
    targets = ids[:, 1:].masked_fill(mask[:, 1:] == 0, IGNORED)
    losses = functional.cross_entropy(
        logits[:, :-1].flatten(0, 1), targets.flatten(),
        ignore_index=IGNORED, label_smoothing=SMOOTHING, reduction="none",
    )  # fmt: skip
    return losses.view(targets.shape)


def caption_loss(
    logits: Float[Tensor, "b T V"], ids: Int[Tensor, "b T"], mask: Int[Tensor, "b T"]
) -> Float[Tensor, " b"]:
    """Mean of `token_losses` over each view's own tokens.

    With one prompt for all views the mean over views equals the paper's mean over the batch's tokens.
    """
    counts = mask[:, 1:].sum(dim=1)
    return token_losses(logits, ids, mask).sum(dim=1) / counts
