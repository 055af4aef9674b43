"""Names of a LAVIS checkpoint (``Blip2Qformer``, ``Blip2ITM``) to the names that `model.Blip2` uses.

LAVIS is the reference implementation (Li et al. 2023, "BLIP-2"); its published stage-1 file is the only
source of the caption head's weights.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from referee.errors import WeightsError

State = dict[str, Tensor]

UNUSED = re.compile(r"temp|Qformer\.bert\.embeddings\.position_ids|Qformer\.cls\.predictions\.bias")
"""predictions.bias is decoder.bias under a second name."""

_VIT, _LAYER = r"visual_encoder\.blocks\.(\d+)\.", r"vision_model.encoder.layers.\1."
_BERT = r"Qformer\.bert\.encoder\.layer\.(\d+)\."
NETWORK: tuple[tuple[str, str], ...] = (
    (r"visual_encoder\.cls_token", r"vision_model.embeddings.class_embedding"),
    (r"visual_encoder\.pos_embed", r"vision_model.embeddings.position_embedding"),
    (r"visual_encoder\.patch_embed\.proj\.(weight|bias)", r"vision_model.embeddings.patch_embedding.\1"),
    (_VIT + r"norm([12])\.(\w+)", _LAYER + r"layer_norm\2.\3"),
    (_VIT + r"mlp\.(fc[12]\.\w+)", _LAYER + r"mlp.\2"),
    (_VIT + r"attn\.qkv\.weight", _LAYER + r"self_attn.qkv.weight"),
    (_VIT + r"attn\.proj\.(\w+)", _LAYER + r"self_attn.projection.\2"),
    (r"ln_vision\.(\w+)", r"vision_model.post_layernorm.\1"),
    (r"(query_tokens|itm_head\.\w+)", r"\1"),
    (r"(vision|text)_proj\.(\w+)", r"\1_projection.\2"),
    (r"Qformer\.bert\.embeddings\.((?:word|position)_embeddings\.weight)", r"embeddings.\1"),
    (r"Qformer\.bert\.embeddings\.LayerNorm\.(\w+)", r"qformer.layernorm.\1"),
    (_BERT + r"((?:cross)?attention)\.self\.(.+)", r"qformer.encoder.layer.\1.\2.attention.\3"),
    (_BERT + r"((?:cross)?attention\.output\..+)", r"qformer.encoder.layer.\1.\2"),
    (_BERT + r"((?:intermediate|output)(?:_query)?\..+)", r"qformer.encoder.layer.\1.\2"),
)
HEAD: tuple[tuple[str, str], ...] = (
    (r"Qformer\.cls\.predictions\.transform\.((?:dense|LayerNorm)\.\w+)", r"\1"),
    (r"Qformer\.cls\.predictions\.decoder\.bias", r"bias"),
)
BIAS = re.compile(_VIT + r"attn\.([qv])_bias")
DECODER = "Qformer.cls.predictions.decoder.weight"
WORDS = "Qformer.bert.embeddings.word_embeddings.weight"
HEAD_NAMES = frozenset({"dense.weight", "dense.bias", "LayerNorm.weight", "LayerNorm.bias", "bias"})


def from_lavis(state: Mapping[str, Tensor]) -> tuple[State, State]:
    """Split a LAVIS state dict into that of the transformers network and that of the caption head.

    Load both with ``strict=True``: that finds what is missing in the middle of a stack of layers.

    Raises:
        WeightsError: a name is unknown, half of a query/value bias pair or a tensor of the head is missing,
            or the decoder's matrix is missing or not the word embeddings.
    """
    network: State = {}
    head: State = {}
    biases: dict[str, State] = {}
    unknown: list[str] = []
    for name, tensor in state.items():
        if UNUSED.fullmatch(name) or name == DECODER:
            continue
        if found := BIAS.fullmatch(name):
            biases.setdefault(found[1], {})[found[2]] = tensor
        elif new := _renamed(name, NETWORK):
            network[new] = tensor
        elif new := _renamed(name, HEAD):
            head[new] = tensor
        else:
            unknown.append(name)
    if unknown:
        first = ", ".join(sorted(unknown)[:5])
        raise WeightsError(f"{len(unknown)} names are none of a LAVIS BLIP-2, first {first}.")
    for block, pair in biases.items():
        network[f"vision_model.encoder.layers.{block}.self_attn.qkv.bias"] = _joined(block, pair)
    _check_head(state, head)
    return network, head


def _renamed(name: str, table: tuple[tuple[str, str], ...]) -> str | None:
    for old, new in table:
        if found := re.fullmatch(old, name):
            return found.expand(new)
    return None


def _joined(block: str, pair: State) -> Tensor:
    """LAVIS' vision tower has no key bias; transformers keeps zeros in its place."""
    if missing := {"q", "v"} - pair.keys():
        raise WeightsError(f"visual_encoder.blocks.{block}.attn.{missing.pop()}_bias is missing.")
    return torch.cat([pair["q"], torch.zeros_like(pair["q"]), pair["v"]])


def _check_head(state: Mapping[str, Tensor], head: State) -> None:
    if missing := HEAD_NAMES - head.keys():
        names = ", ".join(sorted(missing))
        raise WeightsError(f"The caption head lacks {names}: is this file a stage-1 checkpoint?")
    if lost := {DECODER, WORDS} - state.keys():
        raise WeightsError(f"{' and '.join(sorted(lost))} missing: is this file a stage-1 checkpoint?")
    if not torch.equal(state[DECODER], state[WORDS]):
        raise WeightsError(f"{DECODER} is not the same matrix as {WORDS}, which this head needs.")
