"""The CLIP referee: a cosine, differentiable, for any folder that open_clip writes."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from open_clip.push_to_hf_hub import save_for_hf
from open_clip.tokenizer import HFTokenizer, SimpleTokenizer
from pydantic import ValidationError
from torch import Tensor
from transformers import CLIPTokenizer

from referee.contract import Prompt, Referee
from referee.errors import OptionError, WeightsError
from referee.hooks import Place
from referee.plugins import discover
from referee.testing import check_referee
from referee_clip import Options
from referee_clip.referee import ClipReferee

WORDS = ["a", "red", "blue", "circle", "square", "and", "above", "photo", "of"]
SIZE = 32
CONTEXT = 8
MEAN, STD = [0.5, 0.4, 0.3], [0.2, 0.3, 0.4]
CONFIG: dict[str, Any] = {
    "embed_dim": 8,
    "vision_cfg": {"image_size": SIZE, "layers": 2, "width": 16, "head_width": 8, "patch_size": 8},
    "text_cfg": {
        "context_length": CONTEXT, "vocab_size": 200, "width": 16, "heads": 2, "layers": 2,
        "hf_tokenizer_name": ".",
    },
}  # fmt: skip


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def words() -> CLIPTokenizer:
    """Byte-pair encoding in which each of WORDS is one token."""
    vocabulary: dict[str, int] = {}
    merges: list[tuple[str, str]] = []
    for letter in "abcdefghijklmnopqrstuvwxyz":
        vocabulary |= {letter: len(vocabulary), f"{letter}</w>": len(vocabulary) + 1}
    for word in WORDS:
        pieces = [*word[:-1], f"{word[-1]}</w>"]
        joined = pieces[0]
        for piece in pieces[1:]:
            if (joined, piece) not in merges:
                merges.append((joined, piece))
            joined += piece
            vocabulary.setdefault(joined, len(vocabulary))
    for mark in ("<|startoftext|>", "<|endoftext|>"):
        vocabulary[mark] = len(vocabulary)
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=CONTEXT)


def write(folder: Path, **changes: Any) -> Path:
    """A small random CLIP in open_clip's own format, by its own function."""
    torch.manual_seed(0)
    config = {**CONFIG, **changes}
    model = open_clip.CLIP(**config)
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    open_clip.factory.set_model_preprocess_cfg(model, {"size": SIZE, "mean": MEAN, "std": STD})
    folder.mkdir(exist_ok=True)
    save_for_hf(model, words(), config, str(folder), safe_serialization=True)
    return folder


@cache
def saved(folder: Path) -> Path:
    return write(folder)


@pytest.fixture
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.getbasetemp() / "clip")


def make(model: object, place: Place | None = None, **options: Any) -> Any:
    """The referee as the command line makes it."""
    spec = discover().find("referee", "clip")
    chosen = spec.options(model=str(model), **options)
    spec.check(chosen)
    return spec.factory(chosen, place or Place())


def pictures(count: int, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))


# --- the loss -----------------------------------------------------------------------------------------------


def test_it_passes_the_checks_of_a_referee(checkpoint: Path) -> None:
    outcomes = check_referee(discover().find("referee", "clip"), {"model": str(checkpoint)})
    found = {outcome.check: outcome for outcome in outcomes}
    assert {outcome.status for outcome in outcomes} == {"ok"}
    assert found["gradient_is_the_slope"].says == "in float64"


def test_it_keeps_the_contract_and_is_frozen(checkpoint: Path) -> None:
    referee = make(checkpoint)
    assert isinstance(referee, Referee)
    assert referee.input_size == SIZE
    assert not any(p.requires_grad for p in referee.model.parameters())
    assert not any(m.training for m in referee.model.modules())
    views = pictures(3).requires_grad_()
    losses = referee.read(Prompt("a red circle"))(views)
    assert losses.shape == (3,)
    assert losses.dtype == torch.float32
    assert ((losses >= 0) & (losses <= 2)).all()
    (gradient,) = torch.autograd.grad(losses.sum(), views)
    assert (gradient.flatten(1).norm(dim=1) > 0).all()


def test_the_loss_is_one_minus_open_clips_cosine(checkpoint: Path) -> None:
    model, preprocess = open_clip.create_model_from_pretrained(f"local-dir:{checkpoint}")
    tokens = open_clip.get_tokenizer(f"local-dir:{checkpoint}")(["a photo of a red circle"])
    normalise = preprocess.transforms[-1]
    views = pictures(2)
    with torch.no_grad():
        image = model.encode_image(normalise(views), normalize=True)
        wanted = 1 - image @ model.encode_text(tokens, normalize=True)[0]
    read = make(checkpoint, text_template="a photo of {prompt}").read(Prompt("a red circle"))
    torch.testing.assert_close(read(views), wanted)
    assert not torch.allclose(make(checkpoint).read(Prompt("a red circle"))(views), wanted)


def test_gradient_against_finite_differences(checkpoint: Path) -> None:
    referee = make(checkpoint)
    referee.model.double()
    loss = referee.read(Prompt("a red circle"))
    views = pictures(1).double().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(views).sum(), views)
    generator, step = torch.Generator().manual_seed(1), 1e-5
    for _ in range(5):
        way = torch.randn(views.shape, generator=generator, dtype=torch.float64)
        with torch.no_grad():
            slope = (loss(views + step * way) - loss(views - step * way)).item() / (2 * step)
        assert (gradient * way).sum().item() == pytest.approx(slope, rel=1e-6)


def test_a_view_is_judged_alone(checkpoint: Path) -> None:
    loss = make(checkpoint).read(Prompt("a red circle"))
    views = pictures(4)
    together = loss(views)
    torch.testing.assert_close(together, torch.cat([loss(view[None]) for view in views]))
    assert together.unique().numel() == 4


def test_half_precision_touches_the_image_tower_only(checkpoint: Path) -> None:
    prompt, views = Prompt("a red circle"), pictures(2).requires_grad_()
    exact = make(checkpoint).read(prompt)(views)
    referee = make(checkpoint, Place(dtype="bfloat16"))
    assert {p.dtype for p in referee.model.parameters()} == {torch.float32}
    losses = referee.read(prompt)(views)
    assert losses.dtype == torch.float32
    assert not torch.equal(losses, exact)
    torch.testing.assert_close(losses, exact, rtol=0.05, atol=0.05)
    (gradient,) = torch.autograd.grad(losses.sum(), views)
    assert gradient.isfinite().all()


def test_views_of_another_size_are_refused(checkpoint: Path) -> None:
    loss = make(checkpoint).read(Prompt("a red circle"))
    with pytest.raises(ValueError, match=r"\(b, 3, 32, 32\)"):
        loss(torch.rand(1, 3, 16, 16))


# --- the prompt ---------------------------------------------------------------------------------------------


def test_what_is_cut_off_a_prompt_is_named(checkpoint: Path) -> None:
    referee = make(checkpoint)  # 8 tokens: 6 words
    with pytest.warns(UserWarning, match="'above blue' is cut"):
        long = referee.read(Prompt("red and red and red and above blue"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        short = referee.read(Prompt("red and red and red and"))
        referee.read(Prompt("red red red"))
    torch.testing.assert_close(long(pictures(2)), short(pictures(2)))


def test_open_clips_own_tokenizer_serves_folders_that_name_none(tmp_path: Path) -> None:
    text = {**CONFIG["text_cfg"], "vocab_size": 49408, "context_length": 77}
    del text["hf_tokenizer_name"]
    write(tmp_path, text_cfg=text)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).unlink()
    referee = make(tmp_path)
    assert isinstance(referee._tokenizer, SimpleTokenizer)
    with pytest.warns(UserWarning, match="'blue square' is cut"):
        loss = referee.read(Prompt("red " * 75 + "blue square"))
    assert loss(pictures(1)).isfinite().all()


def test_the_folders_tokenizer_is_read(checkpoint: Path) -> None:
    tokenizer = make(checkpoint)._tokenizer
    assert isinstance(tokenizer, HFTokenizer)
    assert (tokenizer(["a red circle"])[0, 4:] == tokenizer.tokenizer.eos_token_id).all()


# --- the plug-in --------------------------------------------------------------------------------------------


def test_weights_stored_in_half_precision_are_computed_in_float32(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    file = write(tmp_path) / "open_clip_model.safetensors"
    save_file({name: tensor.half() for name, tensor in load_file(file).items()}, file)
    assert {p.dtype for p in make(tmp_path).model.parameters()} == {torch.float32}


@pytest.mark.parametrize("options", [{"text_template": "a photo"}, {"colour": "red"}, {"model": 3}])
def test_options_that_make_no_sense(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Options.model_validate(options)


def test_no_model_given() -> None:
    with pytest.raises(OptionError, match="--zoo pocket"):
        make("")


def test_unknown_names_of_open_clip() -> None:
    with pytest.raises(OptionError, match="Did you mean 'ViT-B-32'"):
        make("ViT-B-33", pretrained="openai")
    with pytest.raises(OptionError, match="laion2b_s34b_b79k"):
        make("ViT-B-32", pretrained="laion2b_s34b_b79")
    with pytest.raises(WeightsError, match="pretrained=TAG"):
        make("ViT-B-32")


@pytest.mark.parametrize("name", ["open_clip_config.json", "open_clip_model.safetensors", "tokenizer.json"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    (write(tmp_path) / name).unlink()
    with pytest.raises(WeightsError, match=f"{name} is missing"):
        make(tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", '{"model_cfg": {}}', '{"model_cfg": {"text_cfg": 3}}'])
def test_a_broken_configuration_is_named(tmp_path: Path, text: str) -> None:
    (write(tmp_path) / "open_clip_config.json").write_text(text)
    with pytest.raises(WeightsError, match="no model_cfg with a text_cfg"):
        make(tmp_path)


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    write(tmp_path)
    file = tmp_path / "open_clip_config.json"
    content = json.loads(file.read_text())
    content["model_cfg"]["vision_cfg"]["layers"] = 3
    file.write_text(json.dumps(content))
    with pytest.raises(WeightsError, match="resblocks"):
        make(tmp_path)


def test_images_that_are_not_square_are_refused(tmp_path: Path) -> None:
    vision = {**CONFIG["vision_cfg"], "image_size": [SIZE, 2 * SIZE]}
    with pytest.raises(WeightsError, match="32 x 64"):
        make(write(tmp_path, vision_cfg=vision))


def test_an_unknown_type_is_refused() -> None:
    with pytest.raises(OptionError, match="float8"):
        ClipReferee(open_clip.CLIP(**CONFIG), None, "{prompt}", Place(dtype="float8"))


def test_importing_the_plug_in_is_light() -> None:
    code = (
        "import sys, referee_clip; heavy = {'torch', 'open_clip', 'transformers'} & sys.modules.keys(); "
        "sys.exit(str(heavy) if heavy else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
