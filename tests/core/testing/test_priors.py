"""Every check of a prior can fail: one with one fault fails the check that looks for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Generator, Tensor

from referee.contract import Denoise, Image, Latent, Progress, Prompt, Pull
from referee.hooks import Spec
from referee.testing import (
    Outcome,
    ToyPrior,
)

Outcomes = Callable[..., dict[str, Outcome]]
Make = Callable[..., Spec]


class Bad(ToyPrior):
    """A toy prior with one thing done otherwise."""

    def __init__(self, **otherwise: Any) -> None:
        super().__init__()
        self.otherwise = otherwise

    def latent_shape(self, height: int, width: int) -> Any:
        return self.otherwise.get("shape", super().latent_shape)(height, width)

    def decode(self, z: Latent) -> Image:
        return self.otherwise["decode"](super().decode(z)) if "decode" in self.otherwise else super().decode(z)

    def encode(self, x: Image) -> Latent:
        return self.otherwise["encode"](super().encode(x)) if "encode" in self.otherwise else super().encode(x)

    def denoiser(self, prompt: Prompt, steps: int, guidance: float | None = None) -> Denoise:
        inner = super().denoiser(prompt, steps, guidance)
        return lambda noise: self.otherwise.get("denoise", inner)(inner(noise))

    def read(self, prompt: Prompt) -> Pull:
        inner = super().read(prompt)

        def pull(z: Latent, progress: Progress, generators: Sequence[Generator]) -> Latent:
            given = inner(z, progress, generators)
            return self.otherwise["pull"](given, z, progress, generators) if "pull" in self.otherwise else given

        return pull


def in_place(pull: Tensor, z: Tensor, progress: Progress, generators: Any) -> Tensor:
    z += 1
    return pull


PRIORS: dict[str, tuple[str, str, dict[str, Any] | None]] = {
    "no prior": ("keeps_the_contract", "is no prior: it needs latent_shape", None),
    "two numbers": ("latent_shape_fits", "three ints above 0", {"shape": lambda h, w: (h // 2, w // 2)}),
    "takes all": ("latent_shape_fits", "takes the size 65 x 67 and draws", {"shape": lambda h, w: (3, h // 2, w // 2)}),
    "any error": (
        "latent_shape_fits",
        "ends in ZeroDivisionError",
        {"shape": lambda h, w: (3, 32, 32) if (h, w) == (64, 64) else 1 // 0},
    ),
    "range": ("decodes_images", r"expected is \[0, 1\]", {"decode": lambda x: x * 2 - 1}),
    "grey": (
        "decodes_images",
        r"expected is torch.float32 \(3, 3, 64, 64\)",
        {"decode": lambda x: x.mean(1, keepdim=True)},
    ),
    "detached": ("decode_has_a_gradient", "carries no gradient", {"decode": lambda x: x.detach()}),
    "rounded": ("decode_has_a_gradient", "zero or not finite", {"decode": lambda x: (x * 255).round() / 255}),
    "encoded shape": ("encodes_latents", "An image is encoded to", {"encode": lambda z: z[:, :2]}),
    "encoded draw": ("encodes_latents", "take the mean, do not sample", {"encode": lambda z: z + torch.randn(z.shape)}),
    "denoised shape": ("denoises_with_a_gradient", "In 1 steps it makes", {"denoise": lambda z: z[:, :2]}),
    "denoised alone": ("denoises_with_a_gradient", "carry no gradient", {"denoise": lambda z: z.detach()}),
    "denoised draw": (
        "denoises_with_a_gradient",
        "a denoiser draws nothing",
        {"denoise": lambda z: z + torch.randn(z.shape)},
    ),
    "denoised batch": ("denoises_with_a_gradient", "depend on its batch", {"denoise": lambda z: z - z.mean(0)}),
    "one draw": (
        "rows_stand_alone",
        "The pull of a row depends on its batch",
        {"pull": lambda p, z, k, g: p + torch.randn(z.shape, generator=g[0])},
    ),
    "batch's mean": ("rows_stand_alone", "The image of a row depends", {"decode": lambda x: (x + x.mean(0)) / 2}),
    "batch's latent": ("rows_stand_alone", "The latent of a row depends", {"encode": lambda z: z - z.mean(0)}),
    "pull's shape": ("pull_is_a_detached_gradient", "The pull has the shape", {"pull": lambda p, z, k, g: p[:, :2]}),
    "pull's graph": ("pull_is_a_detached_gradient", "carries a graph", {"pull": lambda p, z, k, g: p.requires_grad_()}),
    "pull's end": ("pull_is_a_detached_gradient", "At step 9 of 10", {"pull": lambda p, z, k, g: p / (9 - k.k)}),
    "in place": ("pull_is_a_detached_gradient", "changes z in place", {"pull": in_place}),
    "global draw": ("leaves_global_seeds_alone", "It draws", {"pull": lambda p, z, k, g: p + torch.randn(z.shape)}),
    "no repetition": ("repeats_itself", "Two calls", {"pull": lambda p, z, k, g: p + torch.randn(z.shape)}),
}


@pytest.mark.parametrize("fault", PRIORS)
def test_a_prior_with_a_fault_is_caught(fault: str, spec: Make, outcomes: Outcomes) -> None:
    check, says, otherwise = PRIORS[fault]
    found = outcomes("prior", spec(object if otherwise is None else lambda: Bad(**otherwise)))[check]
    assert found.status == "failed", found
    with pytest.raises(AssertionError, match=says):
        raise AssertionError(found.says)
