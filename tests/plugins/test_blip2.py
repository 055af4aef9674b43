"""The BLIP-2 referee: what its model computes, what it does with a prompt, and what it refuses."""

from __future__ import annotations

import subprocess
import sys
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import BertTokenizer, Blip2Config

from referee.contract import Prompt, Referee
from referee.errors import OptionError, PromptError, WeightsError
from referee.hooks import Place
from referee.plugins import discover
from referee.testing import check_referee
from referee_blip2 import Options
from referee_blip2.loss import caption_loss, matching_loss
from referee_blip2.model import Blip2
from referee_blip2.preprocess import CLIP_MEAN, clean, load_normalisation
from referee_blip2.referee import Blip2Referee

MARKS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = ["a", "red", "blue", "circle", "square", "and", "above", "s", "##quare", "##s"]
TEXTS = ["a red circle", "a blue square and a red circle"]
SIZE = 32


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def tokenizer(words: list[str] | None = None) -> BertTokenizer:
    names = [*MARKS, *(words or WORDS), "[DEC]"]
    return BertTokenizer(vocab={name: i for i, name in enumerate(names)}, bos_token="[DEC]")


def small(seed: int = 0, **options: Any) -> Blip2:
    """An untrained model whose losses differ from view to view."""
    torch.manual_seed(seed)
    words = tokenizer()
    config = Blip2Config(
        vision_config={
            "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
            "image_size": SIZE, "patch_size": 8,
        },
        qformer_config={
            "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
            "vocab_size": len(words), "max_position_embeddings": 16, "cross_attention_frequency": 1,
        },
        text_config={"model_type": "opt"},
        num_query_tokens=4, image_text_hidden_size=8, initializer_range=0.3,
    )  # fmt: skip
    return Blip2.fresh(config, words, **options).eval()


@cache
def saved(folder: Path) -> Path:
    small(mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4)).save(folder)
    return folder


@pytest.fixture
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.getbasetemp() / "blip2")


def make(folder: Path | None, place: Place | None = None, **options: Any) -> Any:
    """The referee as the command line makes it."""
    spec = discover().find("referee", "blip2")
    chosen = spec.options(model=folder, **options)
    spec.check(chosen)
    return spec.factory(chosen, place or Place())


def batch(model: Blip2, texts: list[str] | None = None) -> tuple[Tensor, Tensor]:
    read = model.tokenizer(texts or TEXTS, padding=True, return_tensors="pt")
    return read.input_ids, read.attention_mask


def pictures(count: int, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))


# --- the model ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_packed_run_equals_single_runs(attention: str) -> None:
    model = small(attention=attention).double()
    ids, mask = batch(model)
    caption = model.opened(ids)
    embeds = model.vision(pictures(2).double())
    itm, words, queries = model.both(embeds, ids, mask, caption, mask)
    torch.testing.assert_close(itm, model.itm_logits(embeds, ids, mask))
    torch.testing.assert_close(words, model.caption_logits(embeds, caption, mask))
    torch.testing.assert_close(queries, model.queries(embeds))


def test_a_caption_is_read_from_the_left_and_images_never_see_it() -> None:
    model = small().double()
    ids, mask = batch(model, [TEXTS[1]])
    caption = model.opened(ids)
    embeds = model.vision(pictures(1).double())
    other = caption.clone()
    other[:, 4] = model.tokenizer.convert_tokens_to_ids("above")
    before, after = (model.both(embeds, ids, mask, c, mask) for c in (caption, other))
    torch.testing.assert_close(after.caption[:, :4], before.caption[:, :4], rtol=0, atol=0)
    assert not torch.allclose(after.caption[:, 4:], before.caption[:, 4:])
    torch.testing.assert_close(after.queries, before.queries, rtol=0, atol=0)
    torch.testing.assert_close(after.itm, before.itm, rtol=0, atol=0)


def test_matching_reads_the_whole_text_both_ways() -> None:
    model = small().double()
    ids, mask = batch(model, [TEXTS[1]])
    other = ids.clone()
    other[:, -2] = model.tokenizer.convert_tokens_to_ids("above")
    embeds = model.vision(pictures(1).double())
    assert not torch.allclose(model.itm_logits(embeds, ids, mask), model.itm_logits(embeds, other, mask))


def test_padding_changes_nothing() -> None:
    model = small().double()
    embeds = model.vision(pictures(1).double())
    (ids, mask), (padded, padded_mask) = batch(model, [TEXTS[0]]), batch(model)
    padded, padded_mask = padded[:1], padded_mask[:1]
    assert padded.shape[1] > ids.shape[1]
    short = model.both(embeds, ids, mask, model.opened(ids), mask)
    long = model.both(embeds, padded, padded_mask, model.opened(padded), padded_mask)
    torch.testing.assert_close(long.itm, short.itm)
    torch.testing.assert_close(
        caption_loss(long.caption, model.opened(padded), padded_mask),
        caption_loss(short.caption, model.opened(ids), mask),
    )
    torch.testing.assert_close(model.itc(embeds, padded, padded_mask), model.itc(embeds, ids, mask))


def test_matching_loss_has_no_floor() -> None:
    logits = torch.tensor([[60.0, 0.0]], requires_grad=True)
    matching_loss(logits).sum().backward()
    assert matching_loss(logits).item() == pytest.approx(60)
    assert logits.grad is not None
    assert logits.grad[0, 1].item() == pytest.approx(-1)


def test_fresh_weights_can_be_trained() -> None:
    model = small().train()
    queries = model.network.query_tokens[0]
    assert not torch.allclose(queries[0], queries[1])
    ids, mask = batch(model)
    caption = model.opened(ids)
    run = model.both(model.vision(model.normalise(pictures(2))), ids, mask, caption, mask)
    text = model.text_features(ids, mask)
    contrast = (model.image_features(run.queries) * text[:, None]).sum()
    (matching_loss(run.itm).sum() + caption_loss(run.caption, caption, mask).sum() + contrast).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_round_trip(checkpoint: Path) -> None:
    before, after = small(), Blip2.load(checkpoint)
    ids, mask = batch(before)
    assert torch.equal(batch(after)[0], ids)
    assert after.decode_id == before.decode_id
    assert after.normalisation == ((0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
    pixels = pictures(2)
    first, second = (m.both(m.vision(pixels), ids, mask, m.opened(ids), mask) for m in (before, after))
    for one, two in zip(first, second, strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=0)
    assert "word_embeddings" not in "".join(load_file(checkpoint / "caption_head.safetensors"))


def test_weights_stored_in_half_precision_are_computed_in_float32(tmp_path: Path) -> None:
    small().half().save(tmp_path)
    model = Blip2.load(tmp_path)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert load_normalisation(tmp_path)[0] == CLIP_MEAN


def test_half_a_checkpoint_is_refused(tmp_path: Path) -> None:
    small().save(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    del state["itm_head.weight"]
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(WeightsError, match=r"lack 1 tensors of a BLIP-2.*, first itm_head\.weight: .* Get"):
        Blip2.load(tmp_path)


def test_a_head_of_another_vocabulary_is_refused(tmp_path: Path) -> None:
    small().save(tmp_path)
    head = load_file(tmp_path / "caption_head.safetensors")
    save_file({**head, "bias": torch.zeros(3)}, tmp_path / "caption_head.safetensors")
    with pytest.raises(WeightsError, match="3 tokens"):
        Blip2.load(tmp_path)
    del head["bias"]
    save_file(head, tmp_path / "caption_head.safetensors")
    with pytest.raises(WeightsError, match="not a caption head"):
        Blip2.load(tmp_path)


# --- the referee --------------------------------------------------------------------------------------------


def test_it_passes_the_checks_of_a_referee(checkpoint: Path) -> None:
    spec = discover().find("referee", "blip2")
    found = check_referee(spec, {"model": checkpoint, "itc": 0.5}, prompt="a red circle and a blue square")
    assert {outcome.check for outcome in found if outcome.status != "ok"} <= {"keeps_prompts_apart"}


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
    (gradient,) = torch.autograd.grad(losses.sum(), views)
    assert (gradient.flatten(1).norm(dim=1) > 0).all()


def test_the_loss_is_the_weighted_sum(checkpoint: Path) -> None:
    views, prompt = pictures(2), Prompt("a red circle above a blue square")
    alone = {
        name: make(checkpoint, **{"itm": 0, "cg": 0, name: 1}).read(prompt)(views) for name in ("itm", "cg", "itc")
    }
    assert all((loss >= 0).all() for loss in alone.values())
    for weights in ({}, {"itm": 0.5, "cg": 2, "itc": 3}, {"itm": 2, "cg": 0, "itc": 1}):
        total = make(checkpoint, **weights).read(prompt)(views)
        torch.testing.assert_close(total, sum(w * alone[n] for n, w in ({"itm": 1, "cg": 1} | weights).items()))


def test_the_referee_is_the_model_on_normalised_views(checkpoint: Path) -> None:
    model, views = small(), pictures(2)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in ((0.5, 0.4, 0.3), (0.2, 0.3, 0.4)))
    ids, mask = batch(model, [TEXTS[0]] * 2)
    caption = model.opened(ids)
    itm, words, _ = model.both(model.vision((views - mean) / std), ids, mask, caption, mask)
    wanted = matching_loss(itm) + caption_loss(words, caption, mask)
    torch.testing.assert_close(make(checkpoint).read(Prompt(TEXTS[0]))(views), wanted)


def test_gradient_against_finite_differences(checkpoint: Path) -> None:
    referee = make(checkpoint, itc=0.7)
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
    loss = make(checkpoint, itc=1).read(Prompt("a red circle"))
    views = pictures(4)
    together = loss(views)
    torch.testing.assert_close(together, torch.cat([loss(view[None]) for view in views]))
    assert together.unique().numel() == 4


def test_attention_back_ends_agree(checkpoint: Path) -> None:
    prompt = Prompt("a red circle")
    one, two = (make(checkpoint, attention=a, itc=1).read(prompt) for a in ("sdpa", "eager"))
    torch.testing.assert_close(one(pictures(2)), two(pictures(2)))


def test_half_precision_touches_the_vision_tower_only(checkpoint: Path) -> None:
    prompt, views = Prompt("a red circle"), pictures(2).requires_grad_()
    exact = make(checkpoint).read(prompt)(views)
    referee = make(checkpoint, Place(dtype="bfloat16"))
    assert {p.dtype for p in referee.model.parameters()} == {torch.float32}
    losses = referee.read(prompt)(views)
    assert losses.dtype == torch.float32
    assert not torch.equal(losses, exact)
    torch.testing.assert_close(losses, exact, rtol=0.05, atol=0.05)
    (gradient,) = torch.autograd.grad(losses.sum(), views)
    assert gradient.dtype == torch.float32
    assert gradient.isfinite().all()


def test_views_of_another_size_are_refused(checkpoint: Path) -> None:
    loss = make(checkpoint).read(Prompt("a red circle"))
    with pytest.raises(ValueError, match=r"\(b, 3, 32, 32\)"):
        loss(torch.rand(1, 3, 16, 16))


def test_prompts_are_read_as_blip_reads_them(checkpoint: Path) -> None:
    referee = make(checkpoint)
    ids = referee.tokenize('A  Red "circle"!')
    assert referee.model.tokenizer.convert_ids_to_tokens(ids[0]) == ["[CLS]", "a", "red", "circle", "[SEP]"]
    with pytest.raises(PromptError, match="punctuation"):
        referee.read(Prompt("..."))


def test_what_is_cut_off_a_prompt_is_named(checkpoint: Path) -> None:
    referee = make(checkpoint)  # 16 positions: 14 word pieces
    with pytest.warns(UserWarning, match="'above blue' is cut"):
        ids = referee.tokenize("red " * 14 + "above blue")
    assert ids.shape == (1, 16)
    with pytest.warns(UserWarning, match="'circles above' is cut"):  # "circle" would fit, "##s" would not
        referee.tokenize("red " * 13 + "circles above")
    with pytest.warns(UserWarning, match="'w50 w51' is cut"):
        assert clean(" ".join(f"w{i}" for i in range(52))).split()[-1] == "w49"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        referee.tokenize("red " * 14)


# --- the plug-in --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [{"itm": -1}, {"cg": float("nan")}, {"itm": 0, "cg": 0}, {"attention": "flash"}, {"colour": "red"}],
)
def test_options_that_make_no_sense(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Options.model_validate(options)


def test_no_checkpoint_given() -> None:
    with pytest.raises(OptionError, match="--zoo pocket"):
        make(None)


@pytest.mark.parametrize("name", ["config.json", "caption_head.safetensors", "tokenizer.json"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    small().save(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(WeightsError, match=f"{name} is missing"):
        make(tmp_path)


def test_a_cut_file_is_named(tmp_path: Path) -> None:
    small().save(tmp_path)
    whole = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(whole[:-100])
    with pytest.raises(WeightsError, match="bytes where its header promises"):
        make(tmp_path)


def test_an_unknown_type_is_refused() -> None:
    with pytest.raises(OptionError, match="float8"):
        Blip2Referee(small(), Options(), Place(dtype="float8"))


def test_importing_the_plug_in_is_light() -> None:
    code = (
        "import sys, referee_blip2; heavy = {'torch', 'transformers', 'jaxtyping'} & sys.modules.keys(); "
        "sys.exit(str(heavy) if heavy else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    "text", ["[]", '{"model": 3}', '{"version": "1.0", "model": {"type": "WordPiece", "vocab": 1}}']
)
def test_a_damaged_tokenizer_is_a_sentence(tmp_path: Path, text: str) -> None:
    small().save(tmp_path)
    (tmp_path / "tokenizer.json").write_text(text)
    with pytest.raises(WeightsError, match="tokenizer"):
        make(tmp_path)
