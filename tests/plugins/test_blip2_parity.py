"""BLIP-2 against LAVIS, the reference implementation: losses, gradients, names.

The data are numbers that LAVIS computed with a small random model; they are looked for in
``$REFEREE_TEST_DATA``, else in ``shared/data`` beside the repository.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import BertTokenizer, Blip2Config

from referee.errors import WeightsError
from referee_blip2.lavis import from_lavis
from referee_blip2.loss import matching_loss, token_losses
from referee_blip2.model import Blip2

SIBLING = Path(__file__).parents[2].parent / "shared" / "data"
CASE = Path(os.environ.get("REFEREE_TEST_DATA", SIBLING)) / "blip2_parity" / "case_a"
needs_data = pytest.mark.skipif(not CASE.is_dir(), reason="no parity data: set REFEREE_TEST_DATA")


def read_case(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((CASE / name).read_text())
    return content


def lavis_model(attention: Any) -> Blip2:
    """The parity case's weights in our model."""
    case = read_case("config.json")
    vision, qformer = case["vision"], case["qformer"]
    shared = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
    config = Blip2Config(
        vision_config={
            **{key: vision[key] for key in (*shared, "image_size", "patch_size")},
            "layer_norm_eps": vision["block_layer_norm_eps"],
        },
        qformer_config={
            **{key: qformer[key] for key in (*shared, "vocab_size", "max_position_embeddings")},
            "layer_norm_eps": qformer["layer_norm_eps"],
            "cross_attention_frequency": qformer["cross_attention_freq"],
        },
        text_config={"model_type": "opt"},
        num_query_tokens=qformer["num_query_tokens"],
        image_text_hidden_size=qformer["embed_dim"],
    )
    names = (CASE / "vocab.txt").read_text().split()
    words = BertTokenizer(vocab={name: i for i, name in enumerate([*names, "[DEC]"])}, bos_token="[DEC]")
    model = Blip2.fresh(config, words, attention=attention).eval()
    network, head = from_lavis(load_file(CASE / "weights.safetensors"))
    model.network.load_state_dict(network, strict=True)
    model.head.load_state_dict(head, strict=True)
    return model


@needs_data
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("packed", [True, False], ids=["packed", "two-calls"])
@pytest.mark.parametrize(
    ("dtype", "gradients", "loss_bound", "gradient_bound"),
    [(torch.float32, "grad", 5e-6, 2e-5), (torch.float64, "grad64", 1e-12, 1e-12)],
    ids=["float32", "float64"],
)
def test_parity_with_lavis(
    attention: str,
    packed: bool,
    dtype: torch.dtype,
    gradients: str,
    loss_bound: float,
    gradient_bound: float,
) -> None:
    model = lavis_model(attention).to(dtype)
    inputs = load_file(CASE / "inputs.safetensors")
    expected = read_case("expected.json")[str(dtype).removeprefix("torch.")]
    ids, mask, caption = (inputs[k] for k in ("input_ids", "attention_mask", "decoder_input_ids"))
    assert torch.equal(model.opened(ids), caption)
    pixels = inputs["pixel_values"].to(dtype).requires_grad_()
    embeds = model.vision(pixels)
    if packed:
        itm_logits, caption_logits, _ = model.both(embeds, ids, mask, caption, mask)
    else:
        itm_logits = model.itm_logits(embeds, ids, mask)
        caption_logits = model.caption_logits(embeds, caption, mask)
    itm = matching_loss(itm_logits).mean()
    lm = token_losses(caption_logits, caption, mask).sum() / mask[:, 1:].sum()  # LAVIS: over the batch's tokens

    assert itm.item() == pytest.approx(expected["itm"], rel=loss_bound)
    assert lm.item() == pytest.approx(expected["lm"], rel=loss_bound)
    itc = model.itc(embeds, ids, mask)
    torch.testing.assert_close(itc, torch.tensor(expected["itc_sim"], dtype=dtype), rtol=0, atol=loss_bound)
    (gradient,) = torch.autograd.grad(itm + lm, pixels)
    wanted = load_file(CASE / "expected_grad.safetensors")[f"{gradients}_total"]
    assert (gradient - wanted).abs().max() / wanted.abs().max() <= gradient_bound


@needs_data
def test_float64_parity_sees_the_last_layer_norms_epsilon() -> None:
    model = lavis_model("sdpa").double()
    model.network.vision_model.post_layernorm.eps = 1e-6
    inputs = load_file(CASE / "inputs.safetensors")
    embeds = model.vision(inputs["pixel_values"].double())
    itm = matching_loss(model.itm_logits(embeds, inputs["input_ids"], inputs["attention_mask"])).mean()
    assert itm.item() != pytest.approx(read_case("expected.json")["float64"]["itm"], rel=1e-9)


@needs_data
@pytest.mark.parametrize(
    ("lost", "message"),
    [
        ("visual_encoder.blocks.0.attn.v_bias", "v_bias is missing"),
        ("Qformer.cls.predictions.transform.dense.weight", "lacks dense.weight"),
        ("Qformer.cls.predictions.decoder.bias", "lacks bias"),
    ],
)
def test_lavis_names_that_are_missing(lost: str, message: str) -> None:
    state = load_file(CASE / "weights.safetensors")
    del state[lost]
    with pytest.raises(WeightsError, match=message):
        from_lavis(state)


@needs_data
def test_lavis_names_that_are_unknown_or_untied() -> None:
    state = load_file(CASE / "weights.safetensors")
    with pytest.raises(WeightsError, match=r"visual_encoder\.surprise"):
        from_lavis({**state, "visual_encoder.surprise": torch.zeros(1)})
    decoder = "Qformer.cls.predictions.decoder.weight"
    with pytest.raises(WeightsError, match="not the same matrix"):
        from_lavis({**state, decoder: state["Qformer.bert.embeddings.word_embeddings.weight"] + 1})
