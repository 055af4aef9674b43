"""The Stable Diffusion prior, on random tiny models in the real file formats."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderTiny, UNet2DConditionModel
from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from transformers import CLIPTokenizer

from referee.contract import Prior, Progress, Prompt, Sampler
from referee.errors import OptionError, WeightsError
from referee.hooks import Place
from referee.planning.meter import Meter
from referee.plugins import discover
from referee.schedules import constant
from referee.testing import check_prior
from referee_stable_diffusion import Options
from referee_stable_diffusion.clamp import clamp
from referee_stable_diffusion.distillation import Distillation, draw
from referee_stable_diffusion.files import check
from referee_stable_diffusion.load import load
from referee_stable_diffusion.prior import StableDiffusionPrior

STEP = Progress(0, 10)
PROMPT = Prompt("a red circle")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, save_pipeline: Callable[..., None]) -> Path:
    torch.set_num_threads(1)
    path = tmp_path_factory.mktemp("sd") / "pipeline"
    save_pipeline(path)
    return path


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "copy"))


@pytest.fixture(scope="module")
def make(folder: Path) -> Callable[..., StableDiffusionPrior]:
    def make(dtype: str = "float32", **options: Any) -> StableDiffusionPrior:
        settings: dict[str, Any] = {
            "model": str(folder),
            "cfg": 5.0,
            "template": "{prompt}",
            "sample_steps": 3,
        }
        return load(Options.model_validate(settings | options), Place("cpu", dtype))

    return make


@pytest.fixture(scope="module")
def kl(make: Callable[..., StableDiffusionPrior]) -> StableDiffusionPrior:
    return make()


@pytest.fixture(scope="module")
def tiny(make: Callable[..., StableDiffusionPrior], folder: Path) -> StableDiffusionPrior:
    return make(vae=str(folder / "taesd"))


@pytest.fixture(params=["kl", "tiny"])
def prior(request: pytest.FixtureRequest) -> StableDiffusionPrior:
    found: StableDiffusionPrior = request.getfixturevalue(request.param)
    return found


def generators(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def latents(prior: StableDiffusionPrior, n: int = 2, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    shape = prior.latent_shape(32, 32)
    return torch.randn(n, *shape, generator=torch.Generator().manual_seed(n), dtype=dtype)


def pull_of(prior: StableDiffusionPrior, **changes: Any) -> Distillation:
    pull = prior.read(PROMPT)
    assert isinstance(pull, Distillation)
    return replace(pull, **changes)


@pytest.mark.parametrize("vae", ["", "taesd"])
def test_it_passes_the_checks_of_a_prior(folder: Path, vae: str) -> None:
    options = {"model": str(folder), "vae": str(folder / vae) if vae else ""}
    found = check_prior(discover().find("prior", "stable-diffusion"), options, size=(32, 32))
    assert {outcome.status for outcome in found} == {"ok"}


def test_it_is_a_prior_and_a_sampler_with_everything_frozen(prior: StableDiffusionPrior) -> None:
    assert isinstance(prior, Prior)
    assert isinstance(prior, Sampler)
    for model in (prior.vae, prior.unet, prior.text.encoder):
        assert not model.training
        assert not any(p.requires_grad for p in model.parameters())


def test_sizes(kl: StableDiffusionPrior, tiny: StableDiffusionPrior) -> None:
    assert kl.latent_shape(32, 64) == (4, 8, 16)
    assert tiny.latent_shape(32, 64) == (4, 4, 8)
    assert tiny.decode(torch.zeros(1, 4, 4, 8)).shape == (1, 3, 32, 64)
    assert kl.decode(torch.zeros(1, 4, 8, 16)).shape == (1, 3, 32, 64)
    with pytest.raises(OptionError, match="height 60 is not a multiple of 8: take 56 or 64"):
        tiny.latent_shape(60, 64)
    with pytest.raises(OptionError, match="width 3 is not a multiple of 8: take 8"):
        tiny.latent_shape(64, 3)


def test_decode_is_the_vae_at_its_own_scale(prior: StableDiffusionPrior) -> None:
    z = latents(prior)
    x = prior.decode(z)
    raw = prior.vae.decode(z / prior.vae.config.scaling_factor).sample
    torch.testing.assert_close(x, (raw / 2 + 0.5).clamp(0, 1))
    assert x.dtype == torch.float32
    torch.testing.assert_close(prior.decode(z[1:])[0], x[1], atol=1e-5, rtol=0)


def test_encode_is_the_mean_at_the_same_scale(kl: StableDiffusionPrior, tiny: StableDiffusionPrior) -> None:
    x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(kl.encode(x), kl.vae.encode(x * 2 - 1).latent_dist.mean * 0.7)
    torch.testing.assert_close(tiny.encode(x), tiny.vae.encode(x * 2 - 1).latents * 1.3)
    assert torch.equal(kl.encode(x), kl.encode(x))


def test_a_vaes_shift_is_undone_and_applied(kl: StableDiffusionPrior) -> None:
    z, x = latents(kl), torch.rand(1, 3, 32, 32)
    plain, encoded = kl.decode(z), kl.encode(x)
    kl.vae.register_to_config(shift_factor=0.3)
    try:
        torch.testing.assert_close(kl.decode(z - 0.3 * 0.7), plain)
        torch.testing.assert_close(kl.encode(x), encoded - 0.3 * 0.7)
    finally:
        kl.vae.register_to_config(shift_factor=None)


@pytest.mark.parametrize("vae", ["vae", "taesd"])
def test_decode_gradient_against_finite_differences(
    make: Callable[..., StableDiffusionPrior], folder: Path, vae: str
) -> None:
    """In float64, along random directions, on the pixels that are not saturated."""
    prior = make("float64", vae=str(folder / vae))
    z = (latents(prior, dtype=torch.float64) * 0.3).requires_grad_()
    x = prior.decode(z)
    assert x.dtype == torch.float64
    free = (x > 0.01) & (x < 0.99)
    assert free.float().mean() > 0.5
    weight = torch.randn(x.shape, generator=torch.Generator().manual_seed(1), dtype=x.dtype) * free
    (gradient,) = torch.autograd.grad((x * weight).sum(), z)
    for seed in range(4):
        direction = torch.randn(z.shape, generator=torch.Generator().manual_seed(seed), dtype=z.dtype)
        with torch.no_grad():
            ends = [(prior.decode(z + h * direction) * weight).sum() for h in (1e-6, -1e-6)]
        torch.testing.assert_close((gradient * direction).sum(), (ends[0] - ends[1]) / 2e-6, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("vae", ["", "taesd"])
def test_a_decoder_that_keeps_less_gives_the_same_gradients_every_time(
    make: Callable[..., StableDiffusionPrior], folder: Path, vae: str
) -> None:
    found: list[torch.Tensor] = []
    kept = []
    for recompute in (False, True):
        prior = make(vae=vae and str(folder / vae), recompute=recompute)
        z = latents(prior).requires_grad_()
        with Meter() as meter:
            x = prior.decode(z)
            kept.append(meter.now)
        torch.manual_seed(5)
        for weight in (x.detach(), 1 - x.detach()):  # each referee's gradient goes through the same graph
            found += torch.autograd.grad(x, z, weight, retain_graph=True)
    assert torch.equal(found[0], found[2])
    assert torch.equal(found[1], found[3])
    assert kept[1] < kept[0] / 2


def test_clamp_passes_exactly_the_gradients_that_lead_back() -> None:
    y = torch.tensor([-0.5, -0.5, 0.0, 0.5, 0.5, 1.0, 1.5, 1.5], requires_grad=True)
    push = torch.tensor([1.0, -1.0, 1.0, 1.0, -1.0, -1.0, 1.0, -1.0])
    x = clamp(y)
    assert x.tolist() == [0, 0, 0, 0.5, 0.5, 1, 1, 1]
    (gradient,) = torch.autograd.grad(x @ push, y)
    assert gradient.tolist() == [0, -1, 1, 1, -1, -1, 1, 0]


def test_descent_brings_saturated_pixels_back() -> None:
    y = torch.tensor([3.0, -2.0], requires_grad=True)
    for _ in range(200):
        (gradient,) = torch.autograd.grad((clamp(y) - 0.5).square().sum(), y)
        y = (y - 0.1 * gradient).detach().requires_grad_()
    torch.testing.assert_close(y, torch.tensor([0.5, 0.5]), atol=1e-3, rtol=0)


def test_the_pull_is_the_formula(prior: StableDiffusionPrior) -> None:
    """2 (e_uncond + s (e_text - e_uncond) - eps) / (h w), row by row and half by half."""
    z = latents(prior)
    got = prior.read(PROMPT)(z, STEP, generators(1, 2))
    for b in range(2):
        (g,) = generators(b + 1)
        t = torch.randint(50, 950, (), generator=g)
        eps = torch.randn(z.shape[1:], generator=g)
        bar = prior.scheduler.alphas_cumprod[t]
        noisy = (bar.sqrt() * z[b] + (1 - bar).sqrt() * eps)[None]
        halves = prior.text(["", PROMPT.text]).hidden
        uncond, text = (prior.unet(noisy, t, encoder_hidden_states=h[None]).sample[0] for h in halves)
        want = 2 * (uncond + 5.0 * (text - uncond) - eps) / (z.shape[-1] * z.shape[-2])
        torch.testing.assert_close(got[b], want, atol=1e-5, rtol=1e-4)
    assert got.dtype == torch.float32
    assert not got.requires_grad


def test_a_row_alone_is_the_row_in_a_batch(kl: StableDiffusionPrior) -> None:
    z, pull = latents(kl, 3), kl.read(PROMPT)
    together = pull(z, STEP, generators(1, 2, 3))
    for b in range(3):
        torch.testing.assert_close(pull(z[b : b + 1], STEP, generators(b + 1))[0], together[b], atol=1e-5, rtol=0)
    assert torch.equal(together, pull(z, STEP, generators(1, 2, 3)))


def test_the_global_random_state_stays(kl: StableDiffusionPrior) -> None:
    before = torch.get_rng_state()
    kl.read(PROMPT)(latents(kl), STEP, generators(1, 2))
    kl.sample(PROMPT, 32, 32, generators(1))
    assert torch.equal(before, torch.get_rng_state())


def test_guidance_0_and_1_are_the_two_halves_and_the_rest_is_a_line(kl: StableDiffusionPrior) -> None:
    z = latents(kl)
    at = {s: pull_of(kl, guidance=constant(s))(z, STEP, generators(1, 2)) for s in (0.0, 1.0, 3.0)}
    assert (at[1.0] - at[0.0]).abs().max() > 1e-6
    torch.testing.assert_close(at[3.0], at[0.0] + 3 * (at[1.0] - at[0.0]), atol=1e-6, rtol=1e-4)
    calls: list[int] = []

    def unet(noisy: torch.Tensor, t: torch.Tensor, **_: Any) -> tuple[torch.Tensor]:
        calls.append(len(noisy))
        return (noisy,)

    for guidance in (0.0, 1.0, 3.0):
        pull_of(kl, unet=unet, guidance=constant(guidance))(z, STEP, generators(1, 2))
    assert calls == [2, 2, 4], "one UNet call a step, and no half that is not needed"


@pytest.mark.parametrize("prediction", ["v_prediction", "sample"])
def test_all_kinds_of_prediction_give_the_same_pull(kl: StableDiffusionPrior, prediction: str) -> None:
    """A model of v (or of x0) made out of the model of eps; v = alpha eps - sigma x0."""
    bars, z = kl.scheduler.alphas_cumprod, latents(kl)

    def other(noisy: torch.Tensor, t: torch.Tensor, **rest: Any) -> tuple[torch.Tensor]:
        alpha, sigma = (v.sqrt()[:, None, None, None] for v in (bars[t], 1 - bars[t]))
        eps = kl.unet(noisy, t, **rest)[0]
        x0 = (noisy - sigma * eps) / alpha
        return (alpha * eps - sigma * x0 if prediction == "v_prediction" else x0,)

    want = pull_of(kl)(z, STEP, generators(1, 2))
    got = pull_of(kl, unet=other, prediction=prediction)(z, STEP, generators(1, 2))
    torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-4)


def test_a_perfect_model_does_not_pull(kl: StableDiffusionPrior) -> None:
    z, (t, eps) = latents(kl), draw(latents(kl), generators(1, 2), 50, 950)
    pull = pull_of(kl, unet=lambda noisy, t, **_: (eps.repeat(2, 1, 1, 1),))
    assert pull(z, STEP, generators(1, 2)).abs().max() < 1e-6
    assert t.dtype == torch.int64


def test_timesteps_are_uniform_in_their_range(make: Callable[..., StableDiffusionPrior]) -> None:
    pull = make(t_min=0.2, t_max=0.3).read(PROMPT)
    assert isinstance(pull, Distillation)
    seen: list[int] = []

    def unet(noisy: torch.Tensor, t: torch.Tensor, **_: Any) -> tuple[torch.Tensor]:
        seen.extend(t.tolist())
        return (noisy,)

    replace(pull, unet=unet, guidance=constant(1))(torch.zeros(2000, 4, 1, 1), STEP, generators(*range(2000)))
    assert (min(seen), max(seen)) == (200, 299)
    assert sum(seen) / len(seen) == pytest.approx(249.5, abs=3)


def test_noise_levels_and_guidance_follow_their_schedules(make: Callable[..., StableDiffusionPrior]) -> None:
    pull = make(t_min="linear(0.4, 0.1)", t_max="linear(0.9, 0.2)", cfg="linear(0, 2)").read(PROMPT)
    assert isinstance(pull, Distillation)
    seen: list[tuple[int, int]] = []

    def unet(noisy: torch.Tensor, t: torch.Tensor, **_: Any) -> tuple[torch.Tensor]:
        seen.append((int(t.min()), int(t.max())))
        return (noisy,)

    for k in (0, 50):
        replace(pull, unet=unet)(torch.zeros(2000, 4, 1, 1), Progress(k, 100), generators(*range(2000)))
    assert seen == [(400, 899), (250, 549)]
    at = {
        k: make(cfg="linear(0, 2)").read(PROMPT)(latents(make()), Progress(k, 100), generators(1, 2)) for k in (0, 50)
    }
    for k, guidance in ((0, 0.0), (50, 1.0)):
        want = make(cfg=guidance).read(PROMPT)(latents(make()), STEP, generators(1, 2))
        torch.testing.assert_close(at[k], want)


def test_bfloat16_computes_in_bfloat16_and_returns_float32(make: Callable[..., StableDiffusionPrior]) -> None:
    half = make("bfloat16")
    z = latents(half).requires_grad_()
    assert half.unet.dtype == half.vae.dtype == torch.bfloat16
    pull = half.read(PROMPT)(z, STEP, generators(1, 2))
    assert (pull.dtype, pull.requires_grad) == (torch.float32, False)
    x = half.decode(z)
    assert x.dtype == torch.float32
    x.sum().backward()
    assert z.grad is not None
    assert z.grad.dtype == torch.float32
    assert half.sample(PROMPT, 32, 32, generators(1)).dtype == torch.float32


def test_a_vae_that_overflows_in_float16_stays_in_float32(make: Callable[..., Any], folder: Path) -> None:
    assert make("float16").vae.dtype == torch.float32
    assert make("float16", vae=str(folder / "taesd")).vae.dtype == torch.float16


def test_the_template_wraps_the_prompt_of_the_pull(make: Callable[..., StableDiffusionPrior]) -> None:
    wrapped = make(template="a photo contains {prompt}", negative="big square").read(PROMPT)
    assert isinstance(wrapped, Distillation)
    want = make().text(["big square", "a photo contains a red circle"])
    torch.testing.assert_close(wrapped.text.hidden, want.hidden)


def test_a_prompt_that_is_too_long_names_the_words_cut(kl: StableDiffusionPrior) -> None:
    with pytest.warns(UserWarning, match=r"reads 8 tokens.*will not see: 'blue square'"):
        kl.read(Prompt("a red circle and a big striped circle blue square"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        kl.read(Prompt("a red circle and a big striped circle"))


def test_samples_come_from_their_generators_alone(prior: StableDiffusionPrior) -> None:
    both = prior.sample(PROMPT, 32, 32, generators(1, 2))
    assert both.shape == (2, 3, 32, 32)
    assert both.min() >= 0
    assert both.max() <= 1
    assert not both.requires_grad
    assert torch.equal(both, prior.sample(PROMPT, 32, 32, generators(1, 2)))
    torch.testing.assert_close(prior.sample(PROMPT, 32, 32, generators(2))[0], both[1], atol=1e-4, rtol=0)
    assert (both[0] - both[1]).abs().max() > 1e-3


def test_sampling_is_silent(kl: StableDiffusionPrior, capfd: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        kl.sample(PROMPT, 32, 32, generators(1))
    assert capfd.readouterr() == ("", "")


def test_loading_is_silent(make: Callable[..., Any], capfd: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make()
    assert capfd.readouterr() == ("", "")


def test_the_checkpoints_scheduler_may_be_another_with_the_same_noise(copy: Path) -> None:
    path = copy / "scheduler" / "scheduler_config.json"
    betas = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
    path.write_text(json.dumps({"_class_name": "PNDMScheduler", "skip_prk_steps": True, **betas}))
    prior = load(Options(model=str(copy)), Place())
    want = torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    torch.testing.assert_close(prior.scheduler.alphas_cumprod, (1 - want).cumprod(0))
    path.write_text(json.dumps({"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0}))
    with pytest.raises(WeightsError, match=r"FlowMatchEulerDiscreteScheduler.*beta_schedule"):
        load(Options(model=str(copy)), Place())
    path.write_text(json.dumps({"prediction_type": "flow", **betas}))
    with pytest.raises(WeightsError, match="prediction_type flow; known are epsilon"):
        load(Options(model=str(copy)), Place())


@pytest.mark.parametrize(
    "missing",
    [
        "model_index.json",
        "scheduler/scheduler_config.json",
        "text_encoder/model.safetensors",
        "tokenizer/tokenizer_config.json",
        "unet/config.json",
        "unet/diffusion_pytorch_model.safetensors",
        "vae/diffusion_pytorch_model.safetensors",
    ],
)
def test_a_missing_file_is_named_before_anything_loads(copy: Path, missing: str) -> None:
    check(Options(model=str(copy)))
    (copy / missing).unlink()
    with pytest.raises(WeightsError, match=missing):
        check(Options(model=str(copy)))


def test_a_truncated_file_is_refused(copy: Path) -> None:
    path = copy / "unet" / "diffusion_pytorch_model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(WeightsError, match=r"diffusion_pytorch_model.safetensors is not a whole safetensors file"):
        check(Options(model=str(copy)))
    with pytest.raises(WeightsError, match="There is no folder"):
        check(Options(model=str(copy / "nowhere")))


def test_half_variants_and_shards_are_found(copy: Path) -> None:
    unet, text = copy / "unet", copy / "text_encoder"
    (text / "model.safetensors").rename(text / "model.fp16.safetensors")
    model = UNet2DConditionModel.from_pretrained(unet)
    (unet / "diffusion_pytorch_model.safetensors").unlink()
    model.save_pretrained(unet, max_shard_size="300KB")
    prior = load(Options(model=str(copy)), Place())
    torch.testing.assert_close(dict(prior.unet.named_parameters()), dict(model.named_parameters()))
    shard = sorted(unet.glob("*-00002-of-*.safetensors"))[0]
    shard.unlink()
    with pytest.raises(WeightsError, match=shard.name):
        check(Options(model=str(copy)))


def test_a_missing_weight_is_not_drawn_at_random(copy: Path) -> None:
    path = copy / "unet" / "diffusion_pytorch_model.safetensors"
    weights = load_file(path)
    del weights["conv_in.weight"]
    save_file(weights, path, {"format": "pt"})
    with pytest.raises(WeightsError, match=r"unet lack 1 tensors of a UNet2DConditionModel, first conv_in.*Get"):
        load(Options(model=str(copy)), Place())


def test_the_vaes_old_names_of_attention_weights_are_read(copy: Path, kl: StableDiffusionPrior) -> None:
    """As in the published Stable Diffusion 1.5."""
    path = copy / "vae" / "diffusion_pytorch_model.safetensors"
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    weights = load_file(path)
    for new, name in old.items():
        weights = {key.replace(f"attentions.0.{new}.", f"attentions.0.{name}."): v for key, v in weights.items()}
    assert any("proj_attn" in key for key in weights)
    save_file(weights, path, {"format": "pt"})
    prior, z = load(Options(model=str(copy)), Place()), latents(kl)
    torch.testing.assert_close(prior.decode(z), kl.decode(z))


def test_parts_that_do_not_fit_are_refused(copy: Path) -> None:
    blocks: dict[str, Any] = {"encoder_block_out_channels": (8,), "decoder_block_out_channels": (8,)}
    blocks |= {"num_encoder_blocks": (1,), "num_decoder_blocks": (1,)}
    AutoencoderTiny(latent_channels=8, **blocks).save_pretrained(copy / "eight")
    with pytest.raises(WeightsError, match=r"8 latent channels, the UNet in .* wants 4"):
        load(Options(model=str(copy), vae=str(copy / "eight")), Place())
    config = json.loads((copy / "vae" / "config.json").read_text())
    (copy / "vae" / "config.json").write_text(json.dumps(config | {"_class_name": "AsymmetricAutoencoderKL"}))
    with pytest.raises(WeightsError, match="holds a AsymmetricAutoencoderKL; known are AutoencoderKL and"):
        load(Options(model=str(copy)), Place())


def test_a_tokenizer_without_words_or_with_too_many_is_refused(copy: Path) -> None:
    tokenizer = CLIPTokenizer.from_pretrained(copy / "tokenizer")
    (copy / "tokenizer" / "tokenizer.json").unlink()
    assert load(Options(model=str(copy)), Place()).text.tokenizer.get_vocab() == tokenizer.get_vocab()
    (copy / "tokenizer" / "vocab.json").unlink()
    with pytest.raises(WeightsError, match=r"vocab.json is missing"):
        check(Options(model=str(copy)))
    tokenizer.add_tokens(["triangle"])
    tokenizer.save_pretrained(copy / "tokenizer")
    with pytest.raises(WeightsError, match=r"has \d+ tokens, its text encoder knows \d+"):
        load(Options(model=str(copy)), Place())


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"model": "x", "t_min": 0.5, "t_max": 0.5},
        {"model": "x", "t_max": "cosine(0.95, 0.04)"},
        {"model": "x", "t_max": 1.5},
        {"model": "x", "cfg": -1},
        {"model": "x", "cfg": "linear(5, -1)"},
        {"model": "x", "cfg": float("inf")},
        {"model": "x", "template": "hello"},
        {"model": "x", "steps": 3},
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Options.model_validate(options)


def test_a_home_folder_is_found() -> None:
    assert Options(model="~/a", vae="~/b") == Options(model=str(Path.home() / "a"), vae=str(Path.home() / "b"))
    assert Options(model="x").vae == ""


def test_the_plugin_offers_it_by_name(folder: Path) -> None:
    spec = discover(environment={"REFEREE_LOAD_PLUGINS": "stable-diffusion"}).find("prior", "stable-diffusion")
    options = spec.options(model=str(folder))
    spec.check(options)
    assert isinstance(spec.factory(options, Place()), Prior)


def test_importing_the_plugin_imports_no_torch() -> None:
    code = (
        "import sys, referee_stable_diffusion as p; p.Options(model='x'); "
        "bad = {'torch', 'diffusers', 'transformers', 'numpy'} & set(sys.modules); assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("component", "key", "value"),
    [
        ("unet", "norm_num_groups", 0),
        ("unet", "block_out_channels", None),
        ("unet", "down_block_types", [3]),
        ("vae", "block_out_channels", {}),
        ("text_encoder", "num_attention_heads", 0),
        ("text_encoder", "hidden_size", "wide"),
    ],
)
def test_a_damaged_configuration_is_a_sentence(copy: Path, component: str, key: str, value: object) -> None:
    path = copy / component / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    with pytest.raises(WeightsError, match=f"{component} cannot be loaded"):
        load(Options(model=str(copy)), Place())
