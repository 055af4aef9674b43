"""The contract between the loop and its parts: six nouns, as types.

A latent ``z`` is optimised until frozen *referees* agree that its image matches the prompt, while a *prior* keeps
it real. A part is any object with the methods below; nothing has to be inherited. Whatever a part computes, it owns:
its own resize and normalisation, its own tokenizer, its own device. The loop hands it images in [0, 1] and takes
numbers (or gradients) back, which is why a referee may as well live in another process.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Generator, Tensor

from referee.prompt import Prompt

__all__ = [
    "Augmentation", "Balancer", "Denoise", "Encoder", "FewStep", "Image", "Latent", "Loss", "Losses", "Memory", "Prior",
    "Progress", "Prompt", "Pull", "Referee", "Remembering", "Sampler", "Viewer", "Views",
]  # fmt: skip

Latent = Float[Tensor, "n c h w"]
"""What is optimised: float32, one row per seed."""
Image = Float[Tensor, "n 3 H W"]
"""Decoded latents, RGB in [0, 1]."""
Views = Float[Tensor, "b 3 S S"]
"""Augmented images at a referee's own input size, RGB; in [0, 1] but for added noise."""
Losses = Float[Tensor, "b"]
"""One number per view, lower is better."""

Loss = Callable[[Views], Losses]
"""A referee that has read the prompt. Differentiable with respect to the views."""
Pull = Callable[[Latent, "Progress", Sequence[Generator]], Latent]
"""A prior that has read the prompt: the gradient that keeps ``z`` real, detached. One CPU generator per row of z."""
Denoise = Callable[[Latent], Latent]
"""A prior's sampler of few steps that has read the prompt: standard normal noise to latents, both (n, c, h, w), each
row on its own. Differentiable with respect to the noise; nothing is drawn."""
Memory = dict[str, Tensor]
"""What the parts of one run keep from step to step, by name: "panel/..." and "balancer/...", one row per seed. An entry
is replaced, never changed in place: a copy of the dictionary is a snapshot, and safetensors can hold it."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a run stands: step ``k`` of ``steps``, counted from 0."""

    k: int
    steps: int

    @property
    def fraction(self) -> float:
        """Progress in [0, 1): what schedules are functions of."""
        return self.k / self.steps


@runtime_checkable
class Referee(Protocol):
    """A frozen discriminative model that says how badly an image matches a prompt."""

    @property
    def input_size(self) -> int:
        """Side of the square views it wants, in pixels."""

    def read(self, prompt: Prompt) -> Loss:
        """Encode the prompt once; the returned function scores views, each on its own.

        Raises:
            NothingToJudge: the prompt has nothing of what it judges (see `referee.errors`): others play without it.
        """


@runtime_checkable
class Viewer(Protocol):
    """A referee that makes its own view of a whole picture, as its model was taught to see them: for scoring."""

    def view(self, image: Image) -> Views:
        """Resized, cropped or padded to the square input size; differentiable."""


@runtime_checkable
class Prior(Protocol):
    """A generative model that owns the latent space and pulls latents towards real images."""

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        """(c, h, w) of the latent of an image of that many pixels; OptionError if the size does not fit."""

    def decode(self, z: Latent) -> Image:
        """The image of a latent, in [0, 1], differentiable."""

    def read(self, prompt: Prompt) -> Pull:
        """Encode the prompt once; the returned function gives the gradient of the prior at a latent."""


@runtime_checkable
class Encoder(Protocol):
    """A prior that finds an image's latent: runs of it can begin with a picture, see `referee.control.canvas`."""

    def encode(self, x: Image) -> Latent:
        """The latent of an image, at the scale on which ``z`` lives (standard deviation about 1). The same image gives
        the same latent: nothing is drawn."""


@runtime_checkable
class Sampler(Protocol):
    """A prior that can also draw on its own: the baseline that `referee sample` shows."""

    def sample(self, prompt: Prompt, height: int, width: int, generators: Sequence[Generator]) -> Image:
        """One plain sample per generator, with no referee."""


@runtime_checkable
class FewStep(Protocol):
    """A prior that can also go from noise to latents in few steps, with a gradient: so the noise can be optimised."""

    def denoiser(self, prompt: Prompt, steps: int, guidance: float | None = None) -> Denoise:
        """Encode the prompt once; the returned function samples in that many model calls.

        Args:
            prompt: what to draw.
            steps: at least 1.
            guidance: how strongly it follows the prompt; None for as strongly as a plain sample.

        Raises:
            OptionError: the prior cannot sample in so many steps.
        """


@runtime_checkable
class Augmentation(Protocol):
    """A random image transform that keeps the meaning."""

    def __call__(self, x: Image, generators: Sequence[Generator]) -> Views:
        """One view per row of x, of the same size. Row b draws from ``generators[b]`` (CPU) alone, so that a
        view is the same whatever it is batched with. Differentiable with respect to x."""


@runtime_checkable
class Balancer(Protocol):
    """The rule that makes one direction of several gradients."""

    def __call__(
        self, rows: Mapping[str, Latent], weights: Mapping[str, Float[Tensor, "n"]], pull: Latent | None
    ) -> Latent:
        """The push on z. ``rows``: each referee's gradient; ``weights``: per sample, 0 where the referee sits
        out this step; ``pull``: the prior's gradient, if there is a prior: the push takes its length from it, and
        has unit root mean square without. A rule whose push has a length of its own, like a plain sum, says so by
        an attribute ``own_length = True``."""


@runtime_checkable
class Remembering(Protocol):
    """A balancer that looks back at earlier steps."""

    def with_memory(self, memory: Memory) -> Balancer:
        """The same rule for one run, which keeps all that it remembers in ``memory``, and nothing elsewhere: empty at
        the start of a run, as it was left where a run goes on. Names begin with "balancer/"."""
