"""T2I-CompBench's scores that are made of numbers: BLIP-VQA from P(yes), and 3-in-1 from three others.

Huang et al. 2023 (arXiv 2307.06350), sections 4.1 and 4.4; roundings and order of operations are those of the published
code, so that equal answers give equal scores to the last digit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

Route = Literal["spatial", "action", "both"]
"""What a prompt of "complex" is about besides attributes, which decides what its score is made of."""
PHRASES = 8
"""How many of a prompt's phrases count. It was 2 until December 2023."""


def rounded(value: float) -> float:
    """To the 4 decimals in which the benchmark writes a number between two of its steps.

    >>> rounded(0.96504999)
    0.965
    """
    return float(f"{value:.4f}")


def attribute_score(answers: Sequence[float], most: int = PHRASES) -> float:
    """BLIP-VQA of a picture: the product of P(yes) over the first phrases, each rounded, in single precision, rounded.

    A prompt without phrases scores 1, as in the benchmark.

    Args:
        answers: P(yes) / (P(yes) + P(no)) of each phrase, in order.
        most: phrases beyond it do not count.

    >>> attribute_score([0.98765432, 0.5])
    0.4938
    """
    product = np.float32(1)
    for answer in answers[:most]:
        product *= np.float32(rounded(answer))
    return rounded(float(product))


def route(prompt: str, spatial: frozenset[str], action: frozenset[str]) -> Route:
    """Which of the three a prompt of "complex" is, by the benchmark's own lists, see `key`; what is in neither is both.

    Args:
        spatial: keys of the prompts of ``complex_val_spatial.txt``.
        action: keys of those of ``complex_val_action.txt``.
    """
    if key(prompt) in spatial:
        return "spatial"
    return "action" if key(prompt) in action else "both"


def key(prompt: str) -> str:
    """A prompt as the benchmark compares it with its lists: up to the first full stop, in lower case.

    >>> key("The red hat was on top of the coat rack.")
    'the red hat was on top of the coat rack'
    """
    return prompt.partition(".")[0].lower()


def three_in_one(attribute: float, spatial: float, similarity: float, kind: Route) -> float:
    """The score of a picture of "complex": a plain mean of those that its prompt is about.

    The three have scales of their own (a cosine of CLIP seldom exceeds 0.4): even a perfect picture stays far from 1.

    Args:
        attribute: BLIP-VQA.
        spatial: the 2D-spatial score in complex mode.
        similarity: CLIP's cosine with the prompt without its adjectives.
        kind: see `route`.
    """
    if kind == "spatial":
        return (attribute + spatial) * 0.5
    if kind == "action":
        return (attribute + similarity) * 0.5
    return (attribute + spatial + similarity) / 3
