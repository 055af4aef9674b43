"""The paper's figures and propositions that have a counterpart in the pocket world (arXiv 2402.16305).

Figures say no numbers, so what they claim is put in our words and numbers.
"""

from __future__ import annotations

from typing import Any

from referee_pocket.paper.claims import ATTRIBUTES, SPATIAL, Beside, Number, Part, Row, Table
from referee_pocket.paper.methods import BARE, FEW, LAYERS, MAIN, METHOD, beats, row

PANEL = "panel"
CROP = 0.25
"""Smallest share of the picture that a cropped view keeps."""
_crop: dict[str, Any] = {"augmentation": {"options": {"crop": CROP}}}
_flip: dict[str, Any] = {"augmentation": {"options": {"flip": 0.5}}}
FIGURE_6 = Table(
    "f6", "Figure 6: crop and flip among the augmentations",
    "Cropped views lose or double things, and flipped ones mix left and right: pictures get worse.",
    {ATTRIBUTES: FEW, SPATIAL: FEW},
    (
        row("without", METHOD, {}),
        Row("with crops", "crop", {}, _crop, "at least a quarter of the area is kept", (ATTRIBUTES,)),
        Row("with flips", "flip", {}, _flip, "half of the views"),
        Row("two referees, without", PANEL, {}, LAYERS[PANEL],
            "not in the paper: BLIP-2 is blind to place, a detector is not", (SPATIAL,)),
        Row("two referees, with flips", "panel-flip", {}, {**LAYERS[PANEL], **_flip}, "", (SPATIAL,)),
    ),
    (Beside("all attributes"), Beside("as many things as asked", (ATTRIBUTES, "exact")),
     Beside("places", (SPATIAL, "relation"))),
    (
        beats(METHOD, "crop"),
        Part(f"`{METHOD}` draws as many things as asked more often than `crop`", Number(METHOD, "exact"),
             Number("crop", "exact")),
        beats(METHOD, "flip", "relation", SPATIAL),
        beats(PANEL, "panel-flip", "relation", SPATIAL, aside=True),
    ),
    untestable="The paper's figure has pictures and no number: the words are ours.",
)  # fmt: skip

FIGURE_7 = Table(
    "f7", "Figure 7: views in the order of their loss",
    "Of a picture that matches, the views that lose a thing are those of high loss.",
    {ATTRIBUTES: MAIN},
    (row("the method", METHOD, {}),),
    (Beside("ITM on views", (ATTRIBUTES, "itm_augmented")),
     Beside("ITM on cropped views", (ATTRIBUTES, "itm_cropped"))),
    (Part("ITM is higher on views that are cropped as well",
          Number(METHOD, "itm_cropped"), Number(METHOD, "itm_augmented"), margin=0.1),),
    untestable="The paper's figure has pictures and no number: the words are ours.",
)  # fmt: skip

FIGURE_10 = Table(
    "f10", "Figures 10 and 11: how pictures come about",
    "The referee alone, the prior alone and both together, from noise to picture.",
    untestable="A strip of pictures says no number that could be wrong; what it ends with is table 3's. It is shown.",
)  # fmt: skip

FIGURE_12 = Table(
    "f12", "Figure 12: where each pulls",
    "The referee's gradient gathers on the things that the prompt names; the prior's spreads further.",
    parts=(
        Part("of the referee's map, things hold more than their share of the area",
             Number(METHOD, "gathers_blip2"), 1.0, margin=0.1),
        Part("the referee's map gathers more on things than the prior's",
             Number(METHOD, "gathers_blip2"), Number(METHOD, "gathers_prior"), margin=0.1),
    ),
    untestable="The paper's figure has pictures and no number: the words are ours.",
)  # fmt: skip

SPACES, TIMES = ("image", "latent"), ("final", "half")
QUANTITIES = {"slope": "local Lipschitz constant", "bend": "curvature", "steepest": "gradient at the point"}
LOSSES = {"plain": "on the plain picture", "single": "on one view", "averaged": "averaged over views"}
SMOOTHER = 0.1
"""Logarithm of the smallest ratio that counts."""


def place(space: str, when: str, loss: str, quantity: str) -> str:
    """The name of a number that `referee_pocket.paper.landscape` measures; what it names is the logarithm.

    >>> place("latent", "half", "averaged", "bend")
    'latent half averaged bend'
    """
    return f"{space} {when} {loss} {quantity}"


def _smoother(
    space: str, when: str, quantity: str, *, method: str = METHOD, than: str = "plain", aside: bool = True
) -> Part:
    pictures = {"final": "finished", "half": "half-way"}[when]
    first, second = (Number(method, place(space, when, loss, quantity)) for loss in (than, "averaged"))
    return Part(
        f"as a function of the {space}, at {pictures} pictures of `{method}`, the {QUANTITIES[quantity]} of the loss "
        f"{LOSSES[than]} is larger than of that {LOSSES['averaged']}",
        first, second, margin=SMOOTHER, aside=aside,
    )  # fmt: skip


PROPOSITIONS = Table(
    "smooth", "Propositions 3.1 and 3.2: augmentation makes the loss smooth",
    "Averaged over augmentations, the referee's loss is a smoother function of the picture and of the latent: its "
    "local Lipschitz constant and its curvature are smaller.",
    parts=(
        *(_smoother(space, when, quantity, aside=False)
          for space in SPACES for when in TIMES for quantity in ("slope", "bend")),
        *(_smoother(space, "final", "steepest") for space in SPACES),
        *(_smoother(space, "final", quantity, than="single") for space in SPACES for quantity in ("slope", "bend")),
        *(_smoother(space, "final", quantity, method=BARE) for space in SPACES for quantity in QUANTITIES),
    ),
    untestable="The propositions bound constants over all pictures; measured is what they are near some, along some "
    "directions: a lower bound of the constants.",
)  # fmt: skip
