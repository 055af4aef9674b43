"""Score distillation's relatives, each against its equation written out by hand, one text and one row at a time."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from pydantic import ValidationError
from torch import Tensor

from referee import generate, parts_of
from referee.contract import Progress, Prompt
from referee.errors import OptionError, PromptError
from referee.hooks import Place
from referee.layers import preset
from referee.parts import check as check_all
from referee.plugins import discover
from referee.rules import Rules
from referee.settings import Part, build
from referee.testing import ToyReferee
from referee.typed import parse_part
from referee_stable_diffusion import Options
from referee_stable_diffusion.distillation import Distillation
from referee_stable_diffusion.files import check
from referee_stable_diffusion.load import load
from referee_stable_diffusion.prior import StableDiffusionPrior

PROMPT = Prompt("a red circle")
NEGATIVE, SOURCE = "big square", "{prompt} and striped"
FIDELITY = Path(__file__).parents[2] / "docs" / "fidelity.md"
KINDS = ["sd15", "sd21", "sdxl"]
"""Their UNets predict noise, v, and noise; the last is told pooled texts and sizes as well."""
RELATIVES: dict[str, dict[str, Any]] = {
    "csd": {"distil": "csd"},
    "csd, negative": {"distil": "csd", "negative": NEGATIVE},
    "csd, annealed": {"distil": "csd", "negative": NEGATIVE, "negative_share": "linear(1, 0.5)"},
    "nfsd": {"distil": "nfsd", "negative": NEGATIVE},
    "nfsd, no negative": {"distil": "nfsd"},
    "bridge": {"distil": "bridge", "source": SOURCE},
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory, save_pipeline: Callable[..., None]) -> Path:
    torch.set_num_threads(1)
    path = tmp_path_factory.mktemp("relatives")
    for kind in KINDS:
        save_pipeline(path / kind, kind)
    return path


@pytest.fixture(scope="module")
def make(folders: Path) -> Callable[..., StableDiffusionPrior]:
    def make(kind: str = "sd15", dtype: str = "float32", **options: Any) -> StableDiffusionPrior:
        settings: dict[str, Any] = {"cfg": 5.0, "template": "{prompt}", "sample_steps": 3, "t_min": 0, "t_max": 0.4}
        settings |= {"model": str(folders / kind)} | options
        return load(Options.model_validate(settings), Place("cpu", dtype))

    return make


def generators(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def latents(n: int = 4, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(n, 4, 8, 8, generator=torch.Generator().manual_seed(n), dtype=dtype)


def pull_of(prior: StableDiffusionPrior) -> Distillation:
    pull = prior.read(PROMPT)
    assert isinstance(pull, Distillation)
    return pull


@torch.no_grad()
def found(prior: StableDiffusionPrior, text: str, noisy: Tensor, t: Tensor) -> Tensor:
    """e(text): the noise that the model finds in one noisy latent (c, h, w)."""
    told, added = prior.text([text]), {}
    if told.pooled is not None:
        sizes = torch.tensor([[8.0 * prior.factor, 8.0 * prior.factor, 0, 0, 8.0 * prior.factor, 8.0 * prior.factor]])
        added = {"added_cond_kwargs": {"text_embeds": told.pooled, "time_ids": sizes}}
    out: Tensor = prior.unet(noisy[None], t, encoder_hidden_states=told.hidden, **added).sample[0]
    if prior.scheduler.config.prediction_type == "v_prediction":
        bar = prior.scheduler.alphas_cumprod[t].double()
        out = bar.sqrt() * out + (1 - bar).sqrt() * noisy
    return out


def by_hand(name: str, e: Callable[[str], Tensor], t: int, u: float, s: float = 5.0) -> Tensor:
    """The papers' equations, where u is the run's progress."""
    prompt, null, negative = "a red circle", "", NEGATIVE
    share = 1 - 0.5 * u
    if name == "csd":
        return s * (e(prompt) - e(null))
    if name == "csd, negative":
        return s * (e(prompt) - e(null)) + s * (e(null) - e(negative))
    if name == "csd, annealed":
        return s * (e(prompt) - e(null)) + share * s * (e(null) - e(negative))
    if name == "bridge":
        return s * (e(prompt) - e("a red circle and striped"))
    domain = e(null) if t < 200 else e(null) - e(negative if name == "nfsd" else null)
    return domain + s * (e(prompt) - e(null))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", RELATIVES)
def test_each_is_its_equation_in_float64(make: Callable[..., StableDiffusionPrior], name: str, kind: str) -> None:
    prior = make(kind, "float64", **RELATIVES[name])
    z, progress = latents(6, torch.float64), Progress(3, 5)
    got = prior.read(PROMPT)(z, progress, generators(*range(6)))
    assert got.dtype == torch.float64
    times = []
    for b in range(6):
        (g,) = generators(b)
        t, eps = torch.randint(0, 400, (), generator=g), torch.randn(z.shape[1:], generator=g).double()
        bar = prior.scheduler.alphas_cumprod[t].double()
        noisy = bar.sqrt() * z[b] + (1 - bar).sqrt() * eps
        direction = by_hand(name, lambda text: found(prior, text, noisy, t), int(t), progress.fraction)  # noqa: B023
        torch.testing.assert_close(got[b], 2 * direction / 64, rtol=1e-7, atol=1e-10)
        times.append(int(t))
    assert min(times) < 200 <= max(times), "both of nfsd's cases are seen"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("options", [{}, {"negative": NEGATIVE}, {"distil": "sds"}])
@torch.no_grad()
def test_the_default_is_bit_for_bit_what_it_was(
    make: Callable[..., StableDiffusionPrior], kind: str, options: dict[str, str]
) -> None:
    """Classic score distillation in the very order of operations that it was released with here."""
    prior, z, at = make(kind, **options), latents(2), generators(1, 2)
    got = prior.read(PROMPT)(z, Progress(1, 5), generators(1, 2))
    t = torch.stack([torch.randint(0, 400, (), generator=g) for g in at])
    eps = torch.stack([torch.randn(z.shape[1:], generator=g) for g in at])
    bar = prior.scheduler.alphas_cumprod[t][:, None, None, None]
    alpha, sigma = bar.sqrt(), (1 - bar).sqrt()
    noisy = alpha * z + sigma * eps
    told = prior.text([options.get("negative", ""), PROMPT.text])
    added: dict[str, Any] = {}
    if told.pooled is not None:
        side = 8.0 * prior.factor
        sizes = torch.tensor([[side, side, 0, 0, side, side]]).repeat(4, 1)
        added = {"added_cond_kwargs": {"text_embeds": told.pooled.repeat_interleave(2, 0), "time_ids": sizes}}
    out = prior.unet(
        noisy.repeat(2, 1, 1, 1), t.repeat(2), encoder_hidden_states=told.hidden.repeat_interleave(2, 0), **added
    ).sample
    plain, guided = out.chunk(2)
    eps_hat = plain + 5.0 * (guided - plain)
    if kind == "sd21":
        eps_hat = alpha * eps_hat + sigma * noisy
    assert torch.equal(got, (eps_hat - eps) * (2 / 64))


@pytest.mark.parametrize("name", RELATIVES)
def test_before_its_time_it_is_sds_and_after_it_is_itself(make: Callable[..., StableDiffusionPrior], name: str) -> None:
    options = RELATIVES[name]
    late, whole = make(**options, distil_from=0.5).read(PROMPT), make(**options).read(PROMPT)
    sds = make(negative=options.get("negative", "")).read(PROMPT)
    z = latents()
    for k, want, other in ((0, sds, whole), (4, sds, whole), (5, whole, sds), (9, whole, sds)):
        got = late(z, Progress(k, 10), generators(1, 2, 3, 4))
        assert torch.equal(got, want(z, Progress(k, 10), generators(1, 2, 3, 4)))
        assert (got - other(z, Progress(k, 10), generators(1, 2, 3, 4))).abs().max() > 1e-4


def test_a_source_without_the_prompt_is_a_negative_text(make: Callable[..., StableDiffusionPrior]) -> None:
    bridge = make(distil="bridge", source=NEGATIVE).read(PROMPT)
    csd = make(distil="csd", negative=NEGATIVE).read(PROMPT)
    at = Progress(0, 5), generators(1, 2, 3, 4)
    torch.testing.assert_close(bridge(latents(), *at), csd(latents(), Progress(0, 5), generators(1, 2, 3, 4)))


def test_only_texts_that_weigh_something_are_asked_for(make: Callable[..., StableDiffusionPrior]) -> None:
    calls: list[int] = []

    def unet(noisy: Tensor, t: Tensor, **rest: Any) -> tuple[Tensor]:
        assert len(rest["encoder_hidden_states"]) == len(noisy) == len(t)
        calls.append(len(noisy))
        return (noisy,)

    def asked(u: int = 0, **options: Any) -> int:
        replace(pull_of(make(**options)), unet=unet)(latents(2), Progress(u, 4), generators(1, 2))
        return calls.pop() // 2

    share = {"distil": "csd", "negative": NEGATIVE, "negative_share": "linear(1, 0)"}
    assert [asked(u, **share) for u in (0, 2)] == [2, 3]
    assert asked(distil="csd", negative=NEGATIVE, negative_share=0) == 2
    assert asked(distil="bridge", source=SOURCE) == 2
    assert asked(distil="nfsd", negative=NEGATIVE, t_min=0.3) == 3
    assert asked(distil="nfsd", negative=NEGATIVE, t_max=0.2) == 2
    assert asked(distil="nfsd", t_min=0.3) == 2
    idle = replace(pull_of(make(distil="nfsd", t_min=0.3, cfg=0)), unet=unet)
    assert not idle(latents(2), Progress(0, 4), generators(1, 2)).any()
    assert not calls


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", RELATIVES)
def test_a_row_alone_is_the_row_in_a_batch(make: Callable[..., StableDiffusionPrior], kind: str, name: str) -> None:
    pull, z = make(kind, **RELATIVES[name]).read(PROMPT), latents(3)
    together = pull(z, Progress(1, 5), generators(1, 2, 3))
    for b in range(3):
        alone = pull(z[b : b + 1], Progress(1, 5), generators(b + 1))
        torch.testing.assert_close(alone[0], together[b], atol=1e-5, rtol=0)
    assert (together.dtype, together.requires_grad) == (torch.float32, False)


@pytest.mark.parametrize("kind", KINDS)
def test_plain_samples_keep_away_from_the_negative_text(make: Callable[..., StableDiffusionPrior], kind: str) -> None:
    """As diffusers' own pipeline does when it is given both texts as words."""
    prior, plain = make(kind, negative=NEGATIVE), make(kind)
    made: Any
    if kind == "sdxl":
        one, two = prior.text.first, prior.text.second
        made = StableDiffusionXLPipeline(
            vae=prior.vae, unet=prior.unet, scheduler=prior.scheduler, text_encoder=one.encoder,
            tokenizer=one.tokenizer, text_encoder_2=two.encoder, tokenizer_2=two.tokenizer, add_watermarker=False,
        )  # fmt: skip
    else:
        made = StableDiffusionPipeline(
            vae=prior.vae, unet=prior.unet, scheduler=prior.scheduler, text_encoder=prior.text.encoder,
            tokenizer=prior.text.tokenizer, safety_checker=None, feature_extractor=None, requires_safety_checker=False,
        )  # fmt: skip
    made.set_progress_bar_config(disable=True)
    want = made(
        PROMPT.text, negative_prompt=NEGATIVE, height=32, width=32, num_inference_steps=3, guidance_scale=7.5,
        generator=generators(1), output_type="pt",
    ).images  # fmt: skip
    got = prior.sample(PROMPT, 32, 32, generators(1))
    torch.testing.assert_close(got, want, atol=1e-4, rtol=0)
    assert (got - plain.sample(PROMPT, 32, 32, generators(1))).abs().max() > 1e-3


@pytest.mark.parametrize(("name", "kind"), list(zip(RELATIVES, KINDS * 2, strict=True)))
def test_a_whole_run(make: Callable[..., StableDiffusionPrior], name: str, kind: str) -> None:
    rules = Rules(steps=6, tail=2, views=2, lr=0.1, noise=0.01, tail_noise=0, prior_weight=0.01)
    prior = make(kind, **RELATIVES[name], distil_from=0.4)
    result = generate(PROMPT, parts_of(prior, [ToyReferee()], rules=rules, size=(32, 32)))
    assert all(not row["sat_out"] for row in result.history)
    assert all(norm > 0 for row in result.history for norm in row["norms"]["prior"])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"distil": "vsd"}, "'sds', 'csd', 'nfsd' or 'bridge'"),
        ({"distil": "bridge"}, 'needs a source.*source="{prompt}, oversaturated'),
        ({"distil": "csd", "source": "a"}, "distil=csd reads no source: add distil=bridge"),
        ({"source": "a"}, "distil=sds reads no source"),
        ({"distil": "nfsd", "negative": "a", "negative_share": 0.5}, "negative_share is csd's"),
        ({"distil": "csd", "negative_share": 0.5}, "negative_share is csd's share of a negative text"),
        ({"distil": "csd", "negative": "a", "negative_share": "linear(1.5, 0)"}, "must stay between 0 and 1"),
        ({"distil_from": 0.5}, "distil_from says when sds ends"),
        ({"distil": "csd", "distil_from": 1}, "less than 1"),
        ({"distil": "csd", "cfg": 0}, "guidance alone, and cfg is 0"),
        ({"negative": "a\0b"}, "control characters"),
        ({"negative": "a" * 1001}, "1001 characters; at most 1000"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Options.model_validate({"model": "x"} | options)


def test_blanks_are_no_text() -> None:
    assert Options(model="x", negative="  ").negative == ""
    assert Options(model="x", negative=" a \n b ").negative == "a b"


@pytest.mark.parametrize("kind", KINDS)
def test_a_text_that_would_be_cut_is_refused_before_a_model_loads(folders: Path, kind: str) -> None:
    model = str(folders / kind)
    fits = "a red circle and a big striped circle"
    check(Options(model=model, negative=fits))
    with pytest.raises(OptionError, match=r"option negative has 10 tokens and 8 are read: 'blue square' would be cut"):
        check(Options(model=model, negative=f"{fits} blue square"))
    with pytest.raises(OptionError, match=r"option source has 9 tokens and 8 are read: 'blue' would be cut"):
        check(Options(model=model, distil="bridge", source=f"{{prompt}} {fits} blue"))


def test_a_source_that_only_the_prompt_makes_too_long_is_told(make: Callable[..., StableDiffusionPrior]) -> None:
    prior = make(distil="bridge", source="{prompt} and a big striped circle blue square")
    with pytest.warns(UserWarning, match="will not see: 'blue square'"):
        prior.read(PROMPT)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        prior.read(Prompt("a"))


@pytest.mark.parametrize(
    ("options", "unknown"),
    [({"negative": "a blurry circle"}, "'blurry'"), ({"distil": "bridge", "source": "{prompt}, hazy"}, "'hazy'")],
)
def test_words_that_the_pocket_zoo_does_not_know_are_refused(options: dict[str, str], unknown: str) -> None:
    registry = discover()
    layer = {"prior": {"name": "stable-diffusion", "options": options}}
    with pytest.raises(PromptError, match=f"does not know {unknown}"):
        check_all(build([preset("pocket", registry), layer]), registry, PROMPT)
    layer = {"prior": {"name": "stable-diffusion", "options": {"negative": "a black circle, a dotted ring"}}}
    check_all(build([preset("pocket", registry), layer]), registry, PROMPT)


def test_the_documented_ways_are_read() -> None:
    written = re.findall(r"`(stable-diffusion:[^`]+)`", FIDELITY.read_text(encoding="utf-8"))
    ways = [Options.model_validate(parse_part(way, Part)["options"] | {"model": "x"}) for way in written]
    assert {way.distil for way in ways} == {"sds", "csd", "nfsd", "bridge"}
    assert any(way.t_max.curve != "constant" for way in ways)
