"""The referee's two losses, one number per view.

Attributes: T2I-CompBench's BLIP-VQA (arXiv 2307.06350, section 4.1) scores an image by the product over the phrases of
``s = sigmoid(l_yes - l_no)``; the loss is the mean of ``-log s``: the benchmark's score is ``exp(-phrases * loss)``. A
mean, not a sum: the weights of the two halves then mean the same whatever the number of phrases.

Relations: a phrase's soft centre is the mean of all boxes' centres under a softmax of its logits over the grid, and a
relation costs what its signed distance lacks to the margin, and how far aside the thing lies: T2I-CompBench counts a
thing as left only where |dx| > |dy|, GenEval (arXiv 2310.11513) within 60 degrees. Nothing is picked, so the gradient
is exact.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

DIRECTIONS: dict[str, tuple[float, float]] = {
    "left of": (-1.0, 0.0), "right of": (1.0, 0.0), "above": (0.0, -1.0), "below": (0.0, 1.0),
}  # fmt: skip
"""Where the first thing lies as seen from the second; x to the right, y downwards."""
NEAR = "near"
SLOPE = 0.5
"""How far aside a thing may lie, of its distance along the relation: 27 degrees, well within both benchmarks."""
REACH = 150 / 479
"""How far apart, as a share of the side, two centres may be and still be near: T2I-CompBench's 150 of 479 px."""


def attribute_loss(answers: Float[Tensor, "b q"]) -> Float[Tensor, " b"]:
    """Mean over the phrases of -log s, from ``l_yes - l_no``; at least 0."""
    return functional.softplus(-answers).mean(dim=1)


def soft_centres(
    logits: Float[Tensor, "b P k"], boxes: Float[Tensor, "b P 4"], temperature: float
) -> Float[Tensor, "b k 2"]:
    """Where each phrase is: x and y in [0, 1] of the image, y downwards."""
    weights = (logits / temperature).softmax(dim=1)
    return weights.transpose(1, 2) @ boxes[..., :2]


def relation_loss(
    first: Float[Tensor, "b 2"], second: Float[Tensor, "b 2"], relation: str, margin: float, aside: float
) -> Float[Tensor, " b"]:
    """What the first centre lacks to stand in that relation to the second, as a share of the image's side.

    Args:
        aside: weight of what it lies too far aside.
    """
    offset = first - second
    if relation == NEAR:
        return functional.relu((offset.square().sum(dim=1) + 1e-12).sqrt() - REACH)
    x, y = DIRECTIONS[relation]
    along = x * offset[:, 0] + y * offset[:, 1]
    across = (y * offset[:, 0] + x * offset[:, 1]).abs()
    lacking = functional.relu(margin - along)
    return lacking + aside * functional.relu(across - SLOPE * functional.relu(along))
