"""BLIP-2 of any size: against transformers' own forward, and attention written out by hand; precision, memory."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional
from transformers import BertTokenizer, Blip2Config

from referee.contract import Prompt, Viewer
from referee.hooks import Place
from referee_blip2 import Options
from referee_blip2.architecture import CONFIGS, empty, published
from referee_blip2.loss import caption_loss, matching_loss
from referee_blip2.model import Blip2
from referee_blip2.referee import Blip2Referee

MARKS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = ["a", "red", "blue", "circle", "square", "and", "above"]
TEXTS = ["a red circle", "a blue square and a red circle above"]

# image, patch, width, heads, layers, mlp | queries, width, heads, layers, mlp, every, positions, shared, more words
ODD: dict[str, tuple[int, ...]] = {
    "one query": (24, 8, 12, 3, 1, 20, 1, 8, 2, 1, 12, 1, 16, 3, 0),
    "every third": (35, 7, 20, 5, 2, 33, 5, 18, 3, 7, 25, 3, 40, 11, 9),
    "once": (30, 10, 16, 2, 3, 17, 3, 24, 4, 3, 31, 5, 33, 1, 1),
    "a rest of pixels": (29, 8, 24, 4, 2, 40, 9, 12, 1, 4, 16, 2, 32, 20, 100),
    "wide towers": (16, 4, 64, 8, 2, 8, 12, 6, 6, 2, 64, 2, 64, 7, 3),
}


def model_of(case: str, seed: int = 0, **options: Any) -> Blip2:
    """An untrained model of odd sizes, all of whose parameters count."""
    size, patch, width, heads, layers, mlp, queries, hidden, own, deep, wide, every, positions, shared, more = ODD[case]
    torch.manual_seed(seed)
    names = [*MARKS, *WORDS, *(f"w{i}" for i in range(more)), "[DEC]"]
    words = BertTokenizer(vocab={name: i for i, name in enumerate(names)}, bos_token="[DEC]")
    config = Blip2Config(
        vision_config={
            "hidden_size": width, "intermediate_size": mlp, "num_hidden_layers": layers, "num_attention_heads": heads,
            "image_size": size, "patch_size": patch,
        },
        qformer_config={
            "hidden_size": hidden, "intermediate_size": wide, "num_hidden_layers": deep, "num_attention_heads": own,
            "vocab_size": len(names), "max_position_embeddings": positions, "cross_attention_frequency": every,
        },
        text_config={"model_type": "opt"}, num_query_tokens=queries, image_text_hidden_size=shared,
        initializer_range=0.3,
    )  # fmt: skip
    model = Blip2.fresh(config, words, **options).eval()
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model


def batch(model: Blip2) -> tuple[Tensor, Tensor, Tensor]:
    read = model.tokenizer(TEXTS, padding=True, return_tensors="pt")
    images = torch.randn(2, 3, model.image_size, model.image_size, generator=torch.Generator().manual_seed(1))
    return images, read.input_ids, read.attention_mask


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("case", ODD)
def test_matching_and_contrast_are_transformers_own(case: str, attention: str, tmp_path: Path) -> None:
    model_of(case).save(tmp_path)
    model = Blip2.load(tmp_path, attention=attention).double()  # type: ignore[arg-type]
    images, ids, mask = batch(model)
    network, images = model.network, images.double().requires_grad_()
    embeds = model.vision(images)
    itm = network(images, ids, mask, use_image_text_matching_head=True).logits_per_image
    packed = model.both(embeds, ids, mask, model.opened(ids), mask)
    for found in (packed.itm, model.itm_logits(embeds, ids, mask)):
        torch.testing.assert_close(found, itm, rtol=1e-12, atol=1e-12)
        one, two = (torch.autograd.grad(x.sum(), images, retain_graph=True)[0] for x in (found, itm))
        torch.testing.assert_close(one, two, rtol=1e-10, atol=1e-12)
    contrast = network(images, ids, mask).logits_per_image  # (images, texts)
    torch.testing.assert_close(model.itc(embeds, ids, mask), contrast.diagonal(), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(packed.queries, model.queries(embeds), rtol=1e-12, atol=1e-12)


def attend(module: Any, x: Tensor, seen: Tensor, allowed: Tensor | None) -> Tensor:
    """Attention with heads, one at a time, and what follows it; allowed: (S, T), row sees column."""
    heads, inner = module.attention.num_attention_heads, module.attention
    q, k, v = inner.query(x), inner.key(seen), inner.value(seen)
    results = []
    for q_h, k_h, v_h in zip(*(t.chunk(heads, dim=-1) for t in (q, k, v)), strict=True):
        scores = q_h @ k_h.transpose(-1, -2) / math.sqrt(q_h.shape[-1])
        if allowed is not None:
            scores = scores.masked_fill(~allowed, -math.inf)
        results.append(scores.softmax(-1) @ v_h)
    out = module.output
    return functional.layer_norm(
        out.dense(torch.cat(results, -1)) + x, x.shape[-1:], out.LayerNorm.weight, out.LayerNorm.bias, 1e-12
    )


def feed(first: Any, last: Any, x: Tensor) -> Tensor:
    hidden = last.dense(functional.gelu(first.dense(x)))
    return functional.layer_norm(hidden + x, x.shape[-1:], last.LayerNorm.weight, last.LayerNorm.bias, 1e-12)


def caption_by_hand(model: Blip2, embeds: Tensor, ids: Tensor) -> Tensor:
    """LAVIS' two steps, for a text without padding: queries first, then the text on what is left of them in each
    layer, as a cache would hold it."""
    network = model.network
    norm = network.qformer.layernorm
    words = network.embeddings.word_embeddings.weight[ids] + network.embeddings.position_embeddings.weight[: len(ids)]
    queries, text = norm(network.query_tokens[0]), norm(words)
    count, length = len(queries), len(text)
    before = torch.ones(length, count, dtype=torch.bool)
    allowed = torch.cat([before, torch.ones(length, length, dtype=torch.bool).tril()], dim=1)
    for layer in network.qformer.encoder.layer:
        whole = torch.cat([queries, text])
        text = feed(layer.intermediate, layer.output, attend(layer.attention, text, whole, allowed))
        queries = attend(layer.attention, queries, queries, None)
        if hasattr(layer, "crossattention"):
            queries = attend(layer.crossattention, queries, embeds, None)
        queries = feed(layer.intermediate_query, layer.output_query, queries)
    head = model.head
    hidden = functional.layer_norm(
        functional.gelu(head.dense(text)), text.shape[-1:], head.LayerNorm.weight, head.LayerNorm.bias, 1e-12
    )
    return hidden @ network.embeddings.word_embeddings.weight.T + head.bias


@pytest.mark.parametrize("case", ODD)
def test_captioning_is_what_lavis_does_written_out(case: str) -> None:
    model = model_of(case).double()
    images, ids, mask = batch(model)
    embeds, caption = model.vision(images.double()), model.opened(ids)
    found = model.both(embeds, ids, mask, caption, mask).caption
    for row, length in enumerate(mask.sum(1).tolist()):
        wanted = caption_by_hand(model, embeds[row], caption[row, :length])
        torch.testing.assert_close(found[row, :length], wanted, rtol=1e-11, atol=1e-11)
        alone = model.caption_logits(
            embeds[row : row + 1], caption[row : row + 1, :length], mask[row : row + 1, :length]
        )
        torch.testing.assert_close(alone[0], wanted, rtol=1e-11, atol=1e-11)


def test_the_last_norms_epsilon_is_lavis_and_survives_saving(tmp_path: Path) -> None:
    model_of("once").save(tmp_path)
    model = Blip2.load(tmp_path)
    assert model.network.vision_model.post_layernorm.eps == 1e-5
    assert {layer.layer_norm1.eps for layer in model.network.vision_model.encoder.layers} == {1e-6}


# --- full size ----------------------------------------------------------------------------------------------


def test_the_published_sizes() -> None:
    network, head = empty(published())
    assert {p.device.type for p in (*network.parameters(), *head.parameters())} == {"meta"}
    parts = {"vision_model": 985_952_256, "qformer": 161_825_280, "embeddings": 23_834_880, "query_tokens": 24_576}
    for name, count in parts.items():
        part = getattr(network, name)
        numbers = [part] if isinstance(part, nn.Parameter) else part.parameters()
        assert sum(p.numel() for p in numbers) == count, name
    assert sum(p.numel() for p in network.parameters()) == 1_172_032_258
    assert sum(p.numel() for p in head.parameters()) == 622_651
    assert [path.name for path in CONFIGS.iterdir()] == ["vit-g.json"]


def test_the_published_size_runs_on_nothing() -> None:
    network, head = empty(published())
    embeds = network.vision_model(torch.empty(2, 3, 224, 224, device="meta")).last_hidden_state
    assert embeds.shape == (2, 257, 1408)
    hidden = network.qformer(network.query_tokens.expand(2, -1, -1), encoder_hidden_states=embeds).last_hidden_state
    assert head(hidden, network.embeddings.word_embeddings.weight).shape == (2, 32, 30523)


# --- precision and memory -----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_the_towers_residual_stream_stays_float32(dtype: str) -> None:
    model = model_of("every third")
    referee = Blip2Referee(model, Options(), Place(dtype=dtype))
    kinds: dict[str, set[torch.dtype]] = {"stream": set(), "products": set(), "qformer": set()}

    def note(kind: str) -> Any:
        return lambda module, given, found: kinds[kind].add(found.dtype)

    tower = model.network.vision_model
    for layer in (tower.embeddings, *tower.encoder.layers, tower.post_layernorm):
        layer.register_forward_hook(note("stream"))
    for layer in tower.encoder.layers:
        for product in (layer.self_attn.qkv, layer.self_attn.projection, layer.mlp.fc1, layer.mlp.fc2):
            product.register_forward_hook(note("products"))
    for layer in model.network.qformer.modules():
        if isinstance(layer, nn.Linear):
            layer.register_forward_hook(note("qformer"))
    views = torch.rand(2, 3, 35, 35, requires_grad=True)
    losses = referee.read(Prompt(TEXTS[0]))(views)
    (gradient,) = torch.autograd.grad(losses.sum(), views)
    assert kinds == {"stream": {torch.float32}, "products": {getattr(torch, dtype)}, "qformer": {torch.float32}}
    assert (losses.dtype, gradient.dtype) == (torch.float32, torch.float32)
    assert gradient.isfinite().all()
    exact = Blip2Referee(model_of("every third"), Options(), Place()).read(Prompt(TEXTS[0]))(views)
    assert not torch.equal(losses, exact)
    torch.testing.assert_close(losses, exact, rtol=0.1, atol=0.1)


@pytest.mark.parametrize("recompute", [False, True])
def test_frozen_weights_get_no_gradient(recompute: bool) -> None:
    referee = Blip2Referee(model_of("once"), Options(itc=1, recompute=recompute), Place())
    views = torch.rand(2, 3, 30, 30, requires_grad=True)
    referee.read(Prompt(TEXTS[0]))(views).sum().backward()
    assert views.grad is not None
    assert views.grad.any()
    assert [name for name, p in referee.model.named_parameters() if p.requires_grad or p.grad is not None] == []


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_recomputing_keeps_less_and_changes_no_bit(dtype: str) -> None:
    found = {}
    for recompute in (False, True):
        referee = Blip2Referee(model_of("every third"), Options(recompute=recompute), Place(dtype=dtype))
        views = torch.rand(2, 3, 35, 35, generator=torch.Generator().manual_seed(3)).requires_grad_()
        kept: list[int] = []

        def keep(tensor: Tensor, kept: list[int] = kept) -> Tensor:
            kept.append(tensor.numel() * tensor.element_size())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            embeds = referee._see(views)
        loss = referee._judge(embeds, referee.tokenize(TEXTS[0]).expand(2, -1), None)
        (gradient,) = torch.autograd.grad(loss.sum(), views)
        found[recompute] = loss.detach(), gradient, sum(kept)
    (loss, gradient, kept_all), (same, again, kept_few) = found[False], found[True]
    assert torch.equal(loss, same)
    assert torch.equal(gradient, again)
    assert kept_few < kept_all / 2


# --- whole pictures -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(50, 70), (29, 29), (20, 100), (200, 31)])
def test_whole_pictures_are_seen_as_lavis_shows_them(size: tuple[int, int]) -> None:
    model = model_of("a rest of pixels")
    referee = Blip2Referee(model, Options(), Place())
    assert isinstance(referee, Viewer)
    x = torch.randint(0, 256, (1, 3, *size), generator=torch.Generator().manual_seed(0)).byte()
    picture = Image.fromarray(x[0].permute(1, 2, 0).numpy()).resize((29, 29), Image.Resampling.BICUBIC)
    found = (referee.view(x / 255)[0].permute(1, 2, 0) * 255).round().int()
    assert (found - torch.from_numpy(np.array(picture)).int()).abs().max() <= 1


def test_losses_of_odd_sizes_are_numbers() -> None:
    for case in ODD:
        model = model_of(case)
        images, ids, mask = batch(model)
        run = model.both(model.vision(images), ids, mask, model.opened(ids), mask)
        losses = matching_loss(run.itm) + caption_loss(run.caption, model.opened(ids), mask)
        assert losses.isfinite().all()
        assert losses.shape == (2,)
