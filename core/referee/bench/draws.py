"""How a method makes its picture: a small open table. A way is a function and a line in `DRAWS`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from pydantic import BaseModel

from referee.bench import peers
from referee.hooks import NoOptions

if TYPE_CHECKING:
    from referee.contract import Image
    from referee.parts import Parts
    from referee.prompt import Prompt


class Draw(Protocol):
    """Makes one picture."""

    def __call__(self, parts: Parts, prompt: Prompt, seed: int, options: Any) -> Image:
        """(1, 3, H, W) in [0, 1], on the CPU; all randomness comes from the seed.

        Raises:
            KeyboardInterrupt: it was stopped: half a picture is no result.
        """


@dataclass(frozen=True, slots=True)
class Way:
    """An entry of the table.

    Attributes:
        summary: half a line.
        draw: the function.
        options: its own, a frozen pydantic model.
        referees: they play; if not, they are not even loaded.
        asks: it cannot be without one that has a weight.
    """

    summary: str
    draw: Draw
    options: type[BaseModel] = NoOptions
    referees: bool = True
    asks: bool = False


def invert(parts: Parts, prompt: Prompt, seed: int, options: NoOptions) -> Image:
    """A run, as `referee generate` plays it."""
    from referee.play import drain

    result = drain(prompt, parts, (seed,))
    if not result.complete:
        raise KeyboardInterrupt
    return result.images


def sample(parts: Parts, prompt: Prompt, seed: int, options: NoOptions) -> Image:
    """The prior alone, as `referee sample` plays it."""
    from referee.play import sample_seeds

    return sample_seeds(prompt, parts, (seed,)).images


DRAWS: Mapping[str, Way] = {
    "invert": Way("the run: a latent is optimised until the referees agree", invert),
    "sample": Way("the prior alone, by its own plain sampling", sample, referees=False),
    "best-of": Way("of n plain samples, the one that the referees like best", peers.best_of, peers.BestOf, asks=True),
    "noise": Way(
        "the noise of a few-step sampler, optimised against the referees", peers.noise, peers.Noise, asks=True
    ),
}
