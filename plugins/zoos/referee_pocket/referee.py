"""The pocket judge as a referee, `pocket-judge`: how far its detector doubts that a picture shows what was asked for.

Made for ``--judge``, as it shares nothing with the zoo's referees. It can play, too: then it is no judge any more.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from referee.contract import Loss, Losses, Prompt, Views
from referee_pocket.judge import SIZES, Detector
from referee_pocket.words import Wanted, parse

SIDE = 64


class DetectorReferee:
    """A `referee.contract.Referee`.

    Args:
        detector: a pocket judge's.
        device: where it computes; in float32.
    """

    input_size = SIDE

    def __init__(self, detector: Detector, device: str = "cpu") -> None:
        self.detector = detector.to(device).eval().requires_grad_(False)

    def read(self, prompt: Prompt) -> Loss:
        """What is wanted is read once; PromptError if the prompt is not in the world's grammar."""
        wanted = parse(prompt.text)

        def loss(views: Views) -> Losses:
            dtype = next(self.detector.parameters()).dtype
            return doubt(self.detector(views.to(dtype).clamp(0, 1)), wanted)

        return loss


def doubt(logits: Float[Tensor, "n 22 16 16"], wanted: Wanted) -> Losses:
    """Mean of -log P over all that is asked for, in nats, at least 0: each thing, and the relation.

    P of a thing is that of the one cell that shows it best: that something is there, and has its shape, its colour and
    its texture. A thing's place is the mean of the cells, each weighed by that P. P of a relation is a sigmoid, one
    cell of 4 pixels wide, of how much further apart the two lie the way that was asked for than across it: above 1/2
    where `referee_pocket.judge.verdict` finds it right. Two things that are alike are not told apart, and what was not
    asked for costs nothing.
    """
    heat = functional.logsigmoid(logits[:, 0])
    shape, colour, texture = (part.log_softmax(1) for part in logits[:, 1:].split(SIZES[1:], 1))
    cells = torch.arange(logits.shape[-1], device=logits.device, dtype=logits.dtype)
    terms, places = [], []
    for thing in wanted.things:
        there = heat + shape[:, thing.shape] + colour[:, thing.colour] + texture[:, thing.texture]
        terms.append(-there.flatten(1).amax(1))
        share = there.flatten(1).softmax(1).view_as(there)
        places.append([(share.sum(across) * cells).sum(1) for across in (1, 2)])
    if wanted.relation is not None:
        x, y = (first - second for first, second in zip(*places[:2], strict=True))
        along, across = (x, y) if wanted.relation < 2 else (y, x)
        away = along if wanted.relation % 2 else -along
        terms.append(-functional.logsigmoid(away - across.abs()))
    return torch.stack(terms).mean(0)
