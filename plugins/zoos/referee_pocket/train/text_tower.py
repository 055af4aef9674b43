"""An open_clip text tower as transformers' CLIPTextModel: same numbers, the format that diffusers' pipelines read."""

from __future__ import annotations

import open_clip
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer


def to_clip_text_model(model: open_clip.CLIP, tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """Convert; open_clip keeps query, key and value in one matrix, transformers in three."""
    vocabulary, width = model.token_embedding.weight.shape
    block = model.transformer.resblocks[0]
    config = CLIPTextConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=block.mlp.c_fc.out_features,
        projection_dim=model.text_projection.shape[1],
        num_hidden_layers=len(model.transformer.resblocks),
        num_attention_heads=block.attn.num_heads,
        max_position_embeddings=len(model.positional_embedding),
        hidden_act="gelu",
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    tower = CLIPTextModel(config).eval()
    prefix = "text_model." if any(name.startswith("text_model.") for name in tower.state_dict()) else ""
    state = {prefix + name: tensor.detach().clone() for name, tensor in _renamed(model).items()}
    missing, unexpected = tower.load_state_dict(state, strict=False)
    if unexpected or any("position_ids" not in name for name in missing):
        raise ValueError(f"The text tower does not fit: missing {missing}, unexpected {unexpected}")
    return tower


def _renamed(model: open_clip.CLIP) -> dict[str, Tensor]:
    state: dict[str, Tensor] = {
        "embeddings.token_embedding.weight": model.token_embedding.weight,
        "embeddings.position_embedding.weight": model.positional_embedding,
        "final_layer_norm.weight": model.ln_final.weight,
        "final_layer_norm.bias": model.ln_final.bias,
    }
    for i, block in enumerate(model.transformer.resblocks):
        layer = f"encoder.layers.{i}."
        for kind in ("weight", "bias"):
            parts = getattr(block.attn, f"in_proj_{kind}").chunk(3)
            for name, part in zip("qkv", parts, strict=True):
                state[f"{layer}self_attn.{name}_proj.{kind}"] = part
            state[f"{layer}self_attn.out_proj.{kind}"] = getattr(block.attn.out_proj, kind)
            state[f"{layer}layer_norm1.{kind}"] = getattr(block.ln_1, kind)
            state[f"{layer}layer_norm2.{kind}"] = getattr(block.ln_2, kind)
            state[f"{layer}mlp.fc1.{kind}"] = getattr(block.mlp.c_fc, kind)
            state[f"{layer}mlp.fc2.{kind}"] = getattr(block.mlp.c_proj, kind)
    return state
