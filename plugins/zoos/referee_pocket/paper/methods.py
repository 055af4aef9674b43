"""What the tables share: which of our values stands for which of the paper's, the methods that several have, and the
words of their comparisons.

Methods are layers over the pocket preset, which is Algorithm 1 at this world's scale. What the paper varies is varied
by the same factor here.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from referee.bench.contract import Layer
from referee_pocket.paper.claims import ATTRIBUTES, Beside, Number, Part, Row

UNITS = (
    ("iterations", "160, tail 10", "300, tail 10", "iteration numbers times 1.875"),
    ("views", "30", "10", "the released code's number"),
    ("lr", "1.0 to 0.5", "0.12 to 0.05", "the preset's"),
    ("noise", "0.2", "0.1 to 0.01", "the preset's falls; other rows are multiples of it"),
    ("w2", "800 to 400 on 64 x 64", "32 to 16 on 8 x 8", "0.39 and 1.0 times (eps_hat - eps), before lr"),
    ("CFG of the prior's gradient", "30", "5", "divided by 6"),
    ("CFG of plain sampling", "7.5", "4", "each is the usual one of its prior; 30 is four times it, as 16 is"),
    ("EMA-restart", "first at 40, each 60", "first at 75, each 110", "iteration numbers, as above"),
    ("score", "BLIP-VQA", "share of pictures in which an independent detector finds all attributes right", ""),
)
"""What, the paper's, ours, how."""

METHOD, ALONE, BARE, SDS, PLAIN, STRONG = "blip2-sds", "blip2", "blip2-noaug", "sds", "plain-4", "plain-16"
"""The method of the paper; the referee without the prior; that without augmentations; the prior without referees; its
plain samples, and those of strong guidance."""
MAIN, FEW = 100, 40
"""Prompts of the rows that carry the paper (a share's standard error is at most .05), and of an ablation."""
COIN = 0.693
"""ITM loss of a referee that does not know: ln 2."""

LAYERS: Mapping[str, Layer] = {
    **tomllib.loads((Path(__file__).parents[1] / "methods" / "main.toml").read_text(encoding="utf-8")),
    STRONG: {"draw": "sample", "prior": {"options": {"sample_cfg": 16.0}}},
}
"""Those of the bench `pocket`, and one more."""


def rules(**values: Any) -> Layer:
    """A layer of rules."""
    return {"rules": values}


def row(title: str, method: str, paper: Mapping[str, str], why: str = "") -> Row:
    """One of the methods that several tables share."""
    return Row(title, method, paper, LAYERS[method], why)


def by_kind(colour: str, shape: str, texture: str, *others: str) -> dict[str, str]:
    """The paper's numbers of its suites, in its order."""
    headings = ("colour", "shape", "texture", "spatial", "non-spatial", "complex")
    return dict(zip(headings, (colour, shape, texture, *others), strict=False))


KINDS = (
    Beside("colour", (ATTRIBUTES, "colours")),
    Beside("shape", (ATTRIBUTES, "shapes")),
    Beside("texture", (ATTRIBUTES, "textures")),
)
SCORE = (Beside("score", unit=0.01),)


def beats(first: str, second: str, column: str = "binding", suite: str = ATTRIBUTES, aside: bool = False) -> Part:
    """The first method is better than the second."""
    words = {
        "binding": "has more pictures with all attributes right",
        "relation": "puts things where they belong more often",
        "right": "has more pictures that are all as asked",
    }
    says = f"`{first}` {words.get(column, f'has more {column} right')} than `{second}`"
    where = "" if suite == ATTRIBUTES else f", {suite}"
    return Part(says + where, Number(first, column, suite), Number(second, column, suite), aside=aside)


def equals(first: str, second: str) -> Part:
    """Two methods do not differ by what counts. An aside."""
    return Part(f"`{first}` and `{second}` do not differ", Number(first), Number(second), "same", aside=True)
