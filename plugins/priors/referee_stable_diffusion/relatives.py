"""Score distillation's relatives: pulls without the noise that was added, of other parts of the model's answers.

With e(y), e(null) and e(negative) for the noise that the model finds in the same noisy latent when told the prompt,
nothing, or the negative text, and s for the guidance, classic score distillation pulls by

    sds     e(negative) + s (e(prompt) - e(negative)) - eps       eps: the noise that was added; null if no negative

and its relatives by a sum of answers alone. Each function below is one of them: the weight of each text's answer. The
unit is that of `referee_stable_diffusion.distillation`, w(t) = 2; the papers' own w(t) is left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from torch import Tensor

Text = Literal["negative", "prompt", "null", "source"]
"""What a text is for; "null" is the empty one."""
Weights = Mapping[Text, float | Tensor]
"""Of each text's answer; one number, or one for each row of the batch, (n, 1, 1, 1)."""

EARLY = 0.2
"""Below this fraction of all timesteps NFSD takes the noise to be little: t < 200 of 1000."""


def csd(guidance: float, share: float) -> Weights:
    """Classifier Score Distillation (Yu et al., arXiv 2310.19415): guidance alone, eq. 10 with a negative text.

    ``w1 (e(prompt) - e(null)) + w2 (e(null) - e(negative))`` with ``w1 = guidance``, ``w2 = share * guidance``. Where
    negative is the empty text, the second term is none. The authors' refinement lets share fall from 1 to 0.5.
    """
    return {"prompt": guidance, "null": guidance * (share - 1), "negative": -guidance * share}


def bridge(guidance: float) -> Weights:
    """SDS-Bridge (McAllister et al., arXiv 2406.09417): from a text that says what the picture is now to the prompt.

    ``guidance (e(prompt) - e(source))``, the second of the two stages of the authors' code; the first is sds.
    """
    return {"prompt": guidance, "source": -guidance}


def nfsd(guidance: float, early: Tensor) -> Weights:
    """Noise-Free Score Distillation (Katzir et al., arXiv 2310.17590): eq. 6, ``delta_D + guidance delta_C``.

    ``delta_C = e(prompt) - e(null)`` is the direction of the condition. That of the domain, ``delta_D``, is ``e(null)``
    where there is little noise, else ``e(null) - e(negative)``.

    Args:
        guidance: s; the paper's is 7.5.
        early: (n, 1, 1, 1), whether the row's timestep is below 200 of 1000.
    """
    return {"prompt": guidance, "null": 1 - guidance, "negative": early.float() - 1}
