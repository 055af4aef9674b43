"""The configuration of a BLIP-2, read off the sizes of its tensors.

What tensors do not tell is LAVIS' own: the number of heads (by default the published), the epsilons, exact GELU.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import isqrt

from torch import Tensor
from transformers import Blip2Config

from referee.errors import WeightsError

VISION, QFORMER = "vision_model.encoder.layers", "qformer.encoder.layer"


def config_of(state: Mapping[str, Tensor], *, vision_heads: int, qformer_heads: int, padding: int) -> Blip2Config:
    """The configuration of a network from its state dict, under transformers' names.

    Args:
        state: of ``Blip2ForImageTextRetrieval``.
        vision_heads: of each attention of the vision tower.
        qformer_heads: of each attention of the Q-Former.
        padding: the id of [PAD].

    Raises:
        WeightsError: a tensor that tells a size is missing, or sizes make no sense.
    """
    width, _, patch, _ = _shape(state, "vision_model.embeddings.patch_embedding.weight", 4)
    hidden = _shape(state, "query_tokens", 3)[2]
    vocabulary = _shape(state, "embeddings.word_embeddings.weight", 2)[0]
    return Blip2Config(
        vision_config={
            "hidden_size": width, "num_attention_heads": _divides(vision_heads, width, "vision"),
            "num_hidden_layers": _count(state, VISION),
            "intermediate_size": _shape(state, f"{VISION}.0.mlp.fc1.weight", 2)[0],
            "patch_size": patch, "image_size": patch * grid_of(state),
            "layer_norm_eps": 1e-6, "qkv_bias": f"{VISION}.0.self_attn.qkv.bias" in state,
        },
        qformer_config={
            "hidden_size": hidden, "num_attention_heads": _divides(qformer_heads, hidden, "qformer"),
            "num_hidden_layers": _count(state, QFORMER),
            "intermediate_size": _shape(state, f"{QFORMER}.0.intermediate_query.dense.weight", 2)[0],
            "cross_attention_frequency": _frequency(state),
            "vocab_size": vocabulary, "pad_token_id": padding,
            "max_position_embeddings": _shape(state, "embeddings.position_embeddings.weight", 2)[0],
            "layer_norm_eps": 1e-12, "use_qformer_text_input": True,
        },
        text_config={"model_type": "opt"},
        num_query_tokens=_shape(state, "query_tokens", 3)[1],
        image_text_hidden_size=_shape(state, "vision_projection.weight", 2)[0],
    )  # fmt: skip


def grid_of(state: Mapping[str, Tensor]) -> int:
    """Patches along a side of the square image."""
    name = "vision_model.embeddings.position_embedding"
    patches = _shape(state, name, 3)[1] - 1
    if patches < 1 or isqrt(patches) ** 2 != patches:
        raise WeightsError(f"{name} is for {patches} patches; a square image's, and one class token, are expected.")
    return isqrt(patches)


def _shape(state: Mapping[str, Tensor], name: str, axes: int) -> tuple[int, ...]:
    if name not in state:
        raise WeightsError(f"{name} (in transformers' names) is missing: not a whole BLIP-2 stage 1.")
    shape = tuple(state[name].shape)
    if len(shape) != axes or 0 in shape:
        raise WeightsError(f"{name} is of shape {shape}; {axes} axes are expected.")
    return shape


def _numbers(state: Mapping[str, Tensor], pattern: str) -> list[int]:
    return sorted({int(found[1]) for name in state if (found := re.match(pattern, name))})


def _count(state: Mapping[str, Tensor], stack: str) -> int:
    numbers = _numbers(state, re.escape(stack) + r"\.(\d+)\.")
    if gap := next((i for i, number in enumerate(numbers) if i != number), None if numbers else 0) is not None:
        raise WeightsError(f"{stack} has the layers {numbers}: one is missing, {gap} or another.")
    return len(numbers)


def _frequency(state: Mapping[str, Tensor]) -> int:
    """Every how many layers the Q-Former looks at the image, from layer 0 on."""
    seeing = _numbers(state, re.escape(QFORMER) + r"\.(\d+)\.crossattention\.")
    layers = _count(state, QFORMER)
    step = seeing[1] - seeing[0] if len(seeing) > 1 else layers
    if seeing != list(range(0, layers, step)):
        raise WeightsError(f"The Q-Former looks at the image in layers {seeing}; every n-th from 0 is expected.")
    return step


def _divides(heads: int, width: int, where: str) -> int:
    if width % heads:
        raise WeightsError(
            f"{heads} heads do not divide a width of {width}. No tensor tells their number: say --{where}-heads N."
        )
    return heads
