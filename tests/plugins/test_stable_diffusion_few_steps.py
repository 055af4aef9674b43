"""Sampling in few steps with a gradient: held against diffusers' own loop, and against finite differences."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline, StableDiffusionXLPipeline

from referee.contract import FewStep, Prompt
from referee.errors import OptionError
from referee.hooks import Place
from referee.planning.meter import Meter, no_numbers
from referee_stable_diffusion import Options
from referee_stable_diffusion.load import load
from referee_stable_diffusion.prior import StableDiffusionPrior
from referee_stable_diffusion.text import PairReader

PROMPT = Prompt("a red circle")
KINDS = ["sd15", "sd21", "sdxl"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory, save_pipeline: Callable[..., None]) -> Path:
    torch.set_num_threads(1)
    path = tmp_path_factory.mktemp("folders")
    for kind in KINDS:
        save_pipeline(path / kind, kind)
    return path


@pytest.fixture(scope="module")
def make(folders: Path) -> Callable[..., StableDiffusionPrior]:
    def make(kind: str = "sd15", dtype: str = "float32", **options: Any) -> StableDiffusionPrior:
        settings: dict[str, Any] = {"model": str(folders / kind), "sample_cfg": 4.0}
        return load(Options.model_validate(settings | options), Place("cpu", dtype))

    return make


def noise_of(prior: StableDiffusionPrior, n: int = 2, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    shape = prior.latent_shape(32, 32)
    return torch.randn(n, *shape, generator=torch.Generator().manual_seed(n), dtype=dtype)


def pipeline(prior: StableDiffusionPrior) -> Any:
    """diffusers' own, of the same models, with a scheduler as a person would set it up for few steps."""
    scheduler = DDIMScheduler.from_config(prior.scheduler.config, timestep_spacing="trailing")
    if isinstance(prior.text, PairReader):
        one, two = prior.text.first, prior.text.second
        made: Any = StableDiffusionXLPipeline(
            vae=prior.vae, unet=prior.unet, scheduler=scheduler, text_encoder=one.encoder, tokenizer=one.tokenizer,
            text_encoder_2=two.encoder, tokenizer_2=two.tokenizer, add_watermarker=False,
        )  # fmt: skip
    else:
        made = StableDiffusionPipeline(
            vae=prior.vae, unet=prior.unet, scheduler=scheduler, text_encoder=prior.text.encoder,
            tokenizer=prior.text.tokenizer, safety_checker=None, feature_extractor=None, requires_safety_checker=False,
        )  # fmt: skip
    made.set_progress_bar_config(disable=True)
    return made


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("steps", "guidance"), [(1, 4.0), (3, 4.0), (4, 1.0), (8, 7.5)])
def test_it_is_diffusers_own_ddim(
    make: Callable[..., StableDiffusionPrior], kind: str, steps: int, guidance: float
) -> None:
    """The pipeline's whole loop, without noise (eta = 0)."""
    prior = make(kind, negative="blue")
    noise = noise_of(prior)
    with torch.no_grad():
        want = pipeline(prior)(
            prompt=[PROMPT.text] * 2, negative_prompt=["blue"] * 2, latents=noise, height=32, width=32, eta=0.0,
            num_inference_steps=steps, guidance_scale=guidance, output_type="latent",
        ).images  # fmt: skip
        found = prior.denoiser(PROMPT, steps, guidance)(noise)
    torch.testing.assert_close(found, want, atol=1e-4 * float(want.abs().max()), rtol=1e-4)
    assert (found - noise).abs().max() > 0.1


def test_it_begins_where_all_is_noise(make: Callable[..., StableDiffusionPrior]) -> None:
    """diffusers' spacing for Stable Diffusion would begin one step at t = 1."""
    prior = make()
    found = [prior.denoiser(PROMPT, steps).timesteps for steps in (1, 2, 4)]
    assert found == [(999,), (999, 499), (999, 749, 499, 249)]
    prior.scheduler.set_timesteps(1)
    assert prior.scheduler.timesteps.tolist() == [1]


def test_by_default_it_follows_the_prompt_as_a_plain_sample_does(make: Callable[..., StableDiffusionPrior]) -> None:
    prior, noise = make(), noise_of(make())
    with torch.no_grad():
        default, same, other = (prior.denoiser(PROMPT, 2, guidance)(noise) for guidance in (None, 4.0, 2.0))
    assert torch.equal(default, same)
    assert not torch.equal(default, other)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("steps", [1, 3])
def test_the_gradient_on_the_noise(make: Callable[..., StableDiffusionPrior], kind: str, steps: int) -> None:
    """In float64, by central differences along random directions."""
    prior = make(kind, "float64")
    noise = noise_of(prior, dtype=torch.float64).requires_grad_()
    denoise = prior.denoiser(PROMPT, steps)
    z = denoise(noise)
    assert z.dtype == torch.float64
    weight = torch.randn(z.shape, generator=torch.Generator().manual_seed(1), dtype=z.dtype)
    (gradient,) = torch.autograd.grad((z * weight).sum(), noise)
    for seed in range(3):
        direction = torch.randn(z.shape, generator=torch.Generator().manual_seed(seed), dtype=z.dtype)
        with torch.no_grad():
            ends = [(denoise(noise + h * direction) * weight).sum() for h in (1e-5, -1e-5)]
        torch.testing.assert_close((gradient * direction).sum(), (ends[0] - ends[1]) / 2e-5, rtol=1e-5, atol=1e-6)


def test_a_row_alone_is_the_row_in_a_batch(make: Callable[..., StableDiffusionPrior]) -> None:
    noise, denoise = noise_of(make(), 3), make().denoiser(PROMPT, 2)
    with torch.no_grad():
        together = denoise(noise)
        for b in range(3):
            torch.testing.assert_close(denoise(noise[b : b + 1])[0], together[b], atol=1e-4, rtol=1e-4)


def test_keeping_less_changes_no_gradient(make: Callable[..., StableDiffusionPrior]) -> None:
    """And its memory does not grow with the steps."""
    kept, gradients = {}, {}
    for thrifty in (False, True):
        for steps in (2, 6):
            noise = noise_of(make()).requires_grad_()
            denoise = make(recompute=thrifty).denoiser(PROMPT, steps)
            with Meter() as meter:
                z = denoise(noise)
                kept[thrifty, steps] = meter.now
            (gradients[thrifty, steps],) = torch.autograd.grad(z.square().sum(), noise)
    assert all(torch.equal(gradients[False, steps], gradients[True, steps]) for steps in (2, 6))
    assert kept[False, 6] > 2.5 * kept[False, 2]
    assert kept[True, 6] < kept[False, 2] / 5


def test_one_half_is_not_asked_for_where_it_does_not_count(make: Callable[..., StableDiffusionPrior]) -> None:
    prior, flop = make(), {}
    for guidance in (0.0, 1.0, 4.0):
        denoise = prior.denoiser(PROMPT, 2, guidance)
        with no_numbers(), Meter() as meter:
            denoise(torch.zeros(1, 4, 8, 8))
        flop[guidance] = meter.flop
    assert flop[0.0] == flop[1.0]
    assert flop[4.0] == pytest.approx(2 * flop[1.0], rel=0.01)


def test_half_precision_gives_float32_latents_with_a_gradient(make: Callable[..., StableDiffusionPrior]) -> None:
    prior = make(dtype="bfloat16")
    noise = noise_of(prior).requires_grad_()
    z = prior.denoiser(PROMPT, 2)(noise)
    assert z.dtype == torch.float32
    (gradient,) = torch.autograd.grad(z.sum(), noise)
    assert gradient.dtype == torch.float32
    assert gradient.isfinite().all()


def test_nothing_is_drawn_and_nothing_is_changed(make: Callable[..., StableDiffusionPrior]) -> None:
    prior, noise = make(), noise_of(make())
    before, kept = torch.get_rng_state(), noise.clone()
    prior.scheduler.set_timesteps(5)
    with torch.no_grad():
        assert torch.equal(prior.denoiser(PROMPT, 3)(noise), prior.denoiser(PROMPT, 3)(noise))
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(noise, kept)
    assert prior.scheduler.num_inference_steps == 5


def test_numbers_of_steps_that_there_are_not(make: Callable[..., StableDiffusionPrior]) -> None:
    assert isinstance(make(), FewStep)
    for steps in (0, 1001):
        with pytest.raises(OptionError, match=f"cannot sample in {steps} steps: take 1 to 1000"):
            make().denoiser(PROMPT, steps)
