"""Stable Diffusion XL as a prior: two text encoders and told sizes, held against diffusers' own pipeline."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionXLPipeline
from safetensors.torch import load_file, save_file

from referee import generate, parts_of
from referee.contract import Prior, Progress, Prompt, Sampler
from referee.errors import WeightsError
from referee.hooks import Place
from referee.rules import Rules
from referee.testing import ToyReferee
from referee_stable_diffusion import Options
from referee_stable_diffusion.asking import added, guided
from referee_stable_diffusion.files import check
from referee_stable_diffusion.load import load
from referee_stable_diffusion.prior import StableDiffusionPrior

PROMPT = Prompt("a red circle")
STEP = Progress(0, 10)
KINDS = ["sd15", "sd21", "sdxl"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory, save_pipeline: Callable[..., None]) -> Path:
    torch.set_num_threads(1)
    path = tmp_path_factory.mktemp("folders")
    for kind in KINDS:
        save_pipeline(path / kind, kind)
    return path


@pytest.fixture
def copies(folders: Path, tmp_path: Path) -> Callable[[str], Path]:
    return lambda kind: Path(shutil.copytree(folders / kind, tmp_path / kind))


def make(folder: Path, dtype: str = "float32", **options: Any) -> StableDiffusionPrior:
    settings: dict[str, Any] = {"model": str(folder), "cfg": 5.0, "template": "{prompt}", "sample_steps": 3}
    return load(Options.model_validate(settings | options), Place("cpu", dtype))


@pytest.fixture(scope="module")
def xl(folders: Path) -> StableDiffusionPrior:
    return make(folders / "sdxl")


@pytest.fixture(scope="module")
def pipeline(xl: StableDiffusionPrior) -> Any:
    """diffusers' pipeline of the same models, put together by diffusers."""
    one, two = xl.text.first, xl.text.second
    made = StableDiffusionXLPipeline(
        vae=xl.vae, unet=xl.unet, scheduler=xl.scheduler, text_encoder=one.encoder, tokenizer=one.tokenizer,
        text_encoder_2=two.encoder, tokenizer_2=two.tokenizer, add_watermarker=False,
    )  # fmt: skip
    made.set_progress_bar_config(disable=True)
    return made


def generators(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def test_the_folder_says_which_pipeline_it_is(xl: StableDiffusionPrior) -> None:
    assert isinstance(xl, Prior)
    assert isinstance(xl, Sampler)
    for model in (xl.vae, xl.unet, xl.text.first.encoder, xl.text.second.encoder):
        assert not model.training
        assert not any(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("negative", ["", "big square"])
@torch.no_grad()
def test_embeddings_are_those_of_diffusers(folders: Path, pipeline: Any, negative: str) -> None:
    prior = make(folders / "sdxl", negative=negative)
    told = prior.read(PROMPT).text
    want = pipeline.encode_prompt(PROMPT.text, negative_prompt=negative or None, do_classifier_free_guidance=True)
    positive, negative_hidden, pooled, negative_pooled = want
    torch.testing.assert_close(told.hidden, torch.cat([negative_hidden, positive]), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(told.pooled, torch.cat([negative_pooled, pooled]), atol=1e-6, rtol=1e-5)
    assert told.hidden.shape == (2, 10, 48)
    assert bool(told.hidden[0].any()) == bool(negative)


@torch.no_grad()
def test_an_empty_text_is_zero_only_if_the_checkpoint_says_so(copies: Callable[[str], Path], pipeline: Any) -> None:
    folder = copies("sdxl")
    index = {"_class_name": "StableDiffusionXLPipeline", "force_zeros_for_empty_prompt": False}
    (folder / "model_index.json").write_text(json.dumps(index))
    told = make(folder).read(PROMPT).text
    _, negative, _, negative_pooled = pipeline.encode_prompt("a", negative_prompt="")
    torch.testing.assert_close(told.hidden[:1], negative, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(told.pooled[:1], negative_pooled, atol=1e-6, rtol=1e-5)
    assert negative.abs().max() > 0.1


@pytest.mark.parametrize(("height", "width"), [(32, 32), (32, 64)])
@torch.no_grad()
def test_the_unet_is_asked_as_diffusers_asks_it(
    xl: StableDiffusionPrior, pipeline: Any, monkeypatch: pytest.MonkeyPatch, height: int, width: int
) -> None:
    """The same noisy latents and timestep through the pipeline's own loop and through the pull: the same prediction."""
    calls: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []
    forward = xl.unet.forward

    def spy(sample: torch.Tensor, t: torch.Tensor, *args: Any, **rest: Any) -> Any:
        out = forward(sample, t, *args, **rest)
        calls.append((sample, torch.as_tensor(t), out[0]))
        return out

    monkeypatch.setattr(xl.unet, "forward", spy)
    size = {"height": height, "width": width}
    pipeline(PROMPT.text, **size, num_inference_steps=2, guidance_scale=5.0, generator=generators(1)[0])
    noisy, t, want = calls[0]
    pull = xl.read(PROMPT)
    negative, positive = want.chunk(2)
    got = guided(xl.unet, pull.text, noisy[:1], t.reshape(1), 5.0, pull.factor)
    torch.testing.assert_close(got, negative + 5.0 * (positive - negative), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(calls[-1][2], want, atol=1e-6, rtol=1e-5)


def test_the_sizes_matter(xl: StableDiffusionPrior) -> None:
    """A check of the check above: told another size, the UNet answers otherwise."""
    noisy, t = torch.randn(1, 4, 8, 8, generator=generators(0)[0]), torch.tensor([500])
    pull = xl.read(PROMPT)
    sizes = added(pull.text.pooled, noisy, pull.factor)["added_cond_kwargs"]["time_ids"]
    assert sizes.tolist() == [[32, 32, 0, 0, 32, 32]] * 2
    with torch.no_grad():
        one, other = (guided(xl.unet, pull.text, noisy, t, 5.0, factor) for factor in (pull.factor, 8))
    assert (one - other).abs().max() > 1e-5


def test_rows_of_a_batch_are_told_their_own(xl: StableDiffusionPrior) -> None:
    z = torch.randn(3, 4, 8, 16, generator=generators(0)[0])
    pull = xl.read(PROMPT)
    together = pull(z, STEP, generators(1, 2, 3))
    for b in range(3):
        torch.testing.assert_close(pull(z[b : b + 1], STEP, generators(b + 1))[0], together[b], atol=1e-5, rtol=0)


def test_plain_samples_are_diffusers_own(xl: StableDiffusionPrior, pipeline: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        got = xl.sample(PROMPT, 32, 64, generators(1, 2))
    want = pipeline(
        PROMPT.text, height=32, width=64, num_inference_steps=3, guidance_scale=7.5, num_images_per_prompt=2,
        generator=generators(1, 2), output_type="pt",
    ).images  # fmt: skip
    assert got.shape == (2, 3, 32, 64)
    torch.testing.assert_close(got, want, atol=1e-4, rtol=0)


@pytest.mark.parametrize("vae", ["vae", "taesd"])
def test_either_vae_decodes_the_unets_latents(folders: Path, vae: str) -> None:
    """z is on the UNet's scale: the VAE's own scale is undone, whichever VAE it is; also where height is not width."""
    prior = make(folders / "sdxl", vae=str(folders / "sdxl" / vae))
    z = torch.randn(1, *prior.latent_shape(32, 64), generator=generators(0)[0])
    raw = prior.vae.decode(z / prior.vae.config.scaling_factor).sample
    x = prior.decode(z)
    torch.testing.assert_close(x, (raw / 2 + 0.5).clamp(0, 1))
    assert x.shape == (1, 3, 32, 64)
    assert prior.encode(x).shape == z.shape
    assert prior.sample(PROMPT, 32, 64, generators(1)).shape == x.shape


def test_half_precision(folders: Path) -> None:
    for dtype, vae in (("bfloat16", torch.bfloat16), ("float16", torch.float32)):
        prior = make(folders / "sdxl", dtype)
        assert prior.text.second.encoder.dtype == prior.unet.dtype == getattr(torch, dtype)
        assert prior.vae.dtype == vae, "its VAE overflows in float16"
        assert prior.read(PROMPT)(torch.zeros(1, 4, 8, 8), STEP, generators(1)).dtype == torch.float32


def test_a_prompt_that_is_too_long_is_told_once(xl: StableDiffusionPrior) -> None:
    with pytest.warns(UserWarning, match=r"will not see: 'blue square'") as caught:
        xl.read(Prompt("a red circle and a big striped circle blue square"))
    assert len(caught) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_whole_run(folders: Path, kind: str) -> None:
    """Saved, loaded, inverted: pictures that the referee likes better, of the size that was asked for."""
    prior = make(folders / kind)
    rules = Rules(steps=12, tail=2, views=2, lr=0.1, noise=0.01, tail_noise=0, prior_weight=0.01)
    result = generate("a red circle", parts_of(prior, [ToyReferee()], rules=rules, size=(16, 32)), n=2)
    assert result.images.shape == (2, 3, 16, 32)
    assert all(not row["sat_out"] for row in result.history)
    losses = [row["losses"]["ToyReferee"][0] for row in result.history if row["losses"]]
    assert losses[-1] < losses[0]
    assert all(norm > 0 for row in result.history for norm in row["norms"]["prior"])


@pytest.mark.parametrize(
    "missing",
    ["text_encoder_2/model.safetensors", "text_encoder_2/config.json", "tokenizer_2/tokenizer_config.json"],
)
def test_a_missing_file_is_named(copies: Callable[[str], Path], missing: str) -> None:
    folder = copies("sdxl")
    (folder / missing).unlink()
    with pytest.raises(WeightsError, match=f"{missing} is missing"):
        check(Options(model=str(folder)))


def test_a_pipeline_of_another_kind_is_refused_before_it_loads(copies: Callable[[str], Path]) -> None:
    folder = copies("sd15")
    for kind in ("StableDiffusion3Pipeline", "StableDiffusionXLImg2ImgPipeline", None):
        (folder / "model_index.json").write_text(json.dumps({"_class_name": kind}))
        with pytest.raises(WeightsError, match=f"holds a {kind}; known are StableDiffusionPipeline and StableDiff"):
            check(Options(model=str(folder)))


def test_a_component_of_another_class_is_refused_before_it_loads(copies: Callable[[str], Path]) -> None:
    folder = copies("sdxl")
    for component, key, wrong in (
        ("unet", "_class_name", "UNet3DConditionModel"),
        ("vae", "_class_name", "UNet2DConditionModel"),
        ("text_encoder", "architectures", ["T5EncoderModel"]),
        ("text_encoder_2", "architectures", ["CLIPTextModel"]),
    ):
        path = folder / component / "config.json"
        before = path.read_text()
        path.write_text(json.dumps(json.loads(before) | {key: wrong}))
        said = wrong if isinstance(wrong, str) else wrong[0]
        with pytest.raises(WeightsError, match=rf"{component} holds a {said}; known are"):
            check(Options(model=str(folder)))
        path.write_text(before)
    check(Options(model=str(folder)))
    with pytest.raises(WeightsError, match=r"model_index.json is missing.*diffusers pipeline folder"):
        check(Options(model=str(folder / "unet")))


def test_a_pickle_is_not_opened(copies: Callable[[str], Path]) -> None:
    folder = copies("sd15")
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    torch.save(load_file(weights), weights.with_suffix(".bin"))
    weights.unlink()
    with pytest.raises(WeightsError, match=r"is missing; diffusion_pytorch_model.bin beside it is a pickle"):
        check(Options(model=str(folder)))


@pytest.mark.parametrize(
    ("component", "name"),
    [("unet", "conv_in.weight"), ("text_encoder_2", "text_projection.weight"), ("vae", "decoder.conv_in.weight")],
)
def test_a_weight_of_another_shape_is_refused(copies: Callable[[str], Path], component: str, name: str) -> None:
    folder = copies("sdxl")
    path = next((folder / component).glob("*.safetensors"))
    weights = load_file(path)
    weights[name] = weights[name][:-1].contiguous()
    save_file(weights, path, {"format": "pt"})
    with pytest.raises(WeightsError, match=rf"{component} have 1 tensors of another shape .* first {name}: .* Get"):
        make(folder)


def test_a_missing_projection_is_not_drawn_at_random(copies: Callable[[str], Path]) -> None:
    path = copies("sdxl") / "text_encoder_2" / "model.safetensors"
    weights = load_file(path)
    del weights["text_projection.weight"]
    save_file(weights, path, {"format": "pt"})
    with pytest.raises(WeightsError, match=r"lack 1 tensors of a CLIPTextModelWithProjection, first text_.* Get both"):
        make(path.parents[1])


def test_parts_that_do_not_fit_are_refused(copies: Callable[[str], Path]) -> None:
    plain, xl = copies("sd15"), copies("sdxl")
    index = (xl / "model_index.json").read_text()
    (plain / "model_index.json").write_text(index)
    for name in ("text_encoder_2", "tokenizer_2"):
        shutil.copytree(xl / name, plain / name)
    with pytest.raises(WeightsError, match="has width 48, its UNet wants 32"):
        make(plain)
    shutil.rmtree(xl / "unet")
    shutil.copytree(plain / "unet", xl / "unet")
    config = json.loads((xl / "unet" / "config.json").read_text())
    assert config["addition_embed_type"] is None
    (xl / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusionPipeline"}))
    assert not hasattr(make(xl).text, "second"), "with one encoder it is a whole Stable Diffusion 1"


def test_vaes_of_another_latent_space_are_told_where_they_can(copies: Callable[[str], Path]) -> None:
    folder = copies("sdxl")
    other = folder / "other"
    shutil.copytree(folder / "vae", other)
    make(folder, vae=str(other))
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"scaling_factor": 0.18215}))
    with pytest.raises(WeightsError, match=rf"{other} scales .* by 0.18215, .*{folder} .* by 0.7: .* different"):
        make(folder, vae=str(other))
    (other / "config.json").write_text(json.dumps(config | {"latents_mean": [0, 0, 0, 0], "latents_std": [1, 1, 1, 1]}))
    with pytest.raises(WeightsError, match="has a mean for each latent channel"):
        make(folder, vae=str(other))


def test_tiny_vaes_are_told_apart_where_the_models_own_is_one(copies: Callable[[str], Path]) -> None:
    folder = copies("sdxl")
    make(folder, vae=str(folder / "taesd"))  # in place of a whole one: it cannot be told
    shutil.rmtree(folder / "vae")
    shutil.copytree(folder / "taesd", folder / "vae")
    make(folder, vae=str(folder / "taesd"))
    config = json.loads((folder / "taesd" / "config.json").read_text())
    (folder / "taesd" / "config.json").write_text(json.dumps(config | {"scaling_factor": 0.5}))
    with pytest.raises(WeightsError, match=r"scales its latents by 0.5, .* by 1.3: .* different"):
        make(folder, vae=str(folder / "taesd"))
