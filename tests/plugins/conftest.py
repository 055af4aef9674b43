"""Random tiny pipelines in the real file formats of Stable Diffusion 1.5, 2.1 and XL."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest

WORDS = ["a", "red", "blue", "circle", "square", "and", "photo", "exactly", "contains", "big", "striped"]
LENGTH = 10
END = "<|endoftext|>"
Kind = Literal["sd15", "sd21", "sdxl"]


def save_tokenizer(folder: Path, pad: str = END) -> None:
    """Whole words are one token each: every merge on the way to "circle</w>" is in the table."""
    from transformers import CLIPTokenizer

    marks = ["!", *(chr(c) for c in range(ord("a"), ord("z") + 1))]
    tokens, merges = marks + [f"{m}</w>" for m in marks], []
    for word in WORDS:
        pieces = [*word[:-1], f"{word[-1]}</w>"]
        while len(pieces) > 1:
            pair = (pieces[0], pieces[1])
            if (merge := " ".join(pair)) not in merges:
                merges.append(merge)
            if "".join(pair) not in tokens:
                tokens.append("".join(pair))
            pieces = ["".join(pair), *pieces[2:]]
    tokens += ["<|startoftext|>", END]
    folder.mkdir(parents=True)
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    tokenizer = CLIPTokenizer(
        str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=LENGTH, pad_token=pad
    )
    tokenizer.save_pretrained(folder)


def _save_encoder(folder: Path, number: str, width: int, projection: int | None = None, pad: str = END) -> None:
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

    save_tokenizer(folder / f"tokenizer{number}", pad)
    tokenizer = CLIPTokenizer.from_pretrained(folder / f"tokenizer{number}")
    text = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=LENGTH,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **({} if projection is None else {"projection_dim": projection}),
    )
    kind = CLIPTextModel if projection is None else CLIPTextModelWithProjection
    kind(text).save_pretrained(folder / f"text_encoder{number}")


def _save_pipeline(folder: Path, kind: Kind = "sd15") -> None:
    """Built as published, but small: v-prediction and linear projections for sd21, two text encoders and sizes told for
    sdxl."""
    import torch
    from diffusers import (
        AutoencoderKL,
        AutoencoderTiny,
        DDIMScheduler,
        EulerDiscreteScheduler,
        UNet2DConditionModel,
    )

    torch.manual_seed(0)
    xl = kind == "sdxl"
    _save_encoder(folder, "", 32)
    unet: dict[str, Any] = {"cross_attention_dim": 32, "attention_head_dim": 8}
    if kind == "sd21":
        unet |= {"attention_head_dim": [2, 4], "use_linear_projection": True}
    if xl:
        _save_encoder(folder, "_2", 16, projection=12, pad="!")
        unet |= {"cross_attention_dim": 48, "attention_head_dim": [2, 4], "use_linear_projection": True}
        unet |= {"transformer_layers_per_block": [1, 2], "addition_embed_type": "text_time"}
        unet |= {"addition_time_embed_dim": 8, "projection_class_embeddings_input_dim": 12 + 6 * 8}
    UNet2DConditionModel(
        sample_size=4,
        block_out_channels=(32, 64),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D")[:: -1 if xl else 1],
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D")[:: -1 if xl else 1],
        norm_num_groups=8,
        **unet,
    ).save_pretrained(folder / "unet")
    AutoencoderKL(
        block_out_channels=(8, 16, 16),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        norm_num_groups=4,
        scaling_factor=0.7,
    ).save_pretrained(folder / "vae")
    betas: dict[str, Any] = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
    betas |= {"steps_offset": 1, "prediction_type": "v_prediction" if kind == "sd21" else "epsilon"}
    scheduler = EulerDiscreteScheduler(**betas) if xl else DDIMScheduler(**betas, clip_sample=False)
    scheduler.save_pretrained(folder / "scheduler")
    name = "StableDiffusionXLPipeline" if xl else "StableDiffusionPipeline"
    (folder / "model_index.json").write_text(json.dumps({"_class_name": name}))
    tiny = AutoencoderTiny(
        encoder_block_out_channels=(8, 8, 8, 8),
        decoder_block_out_channels=(8, 8, 8, 8),
        num_encoder_blocks=(1, 1, 1, 1),
        num_decoder_blocks=(1, 1, 1, 1),
        scaling_factor=1.3,
    )
    with torch.no_grad():  # at random it paints everything black
        tiny.decoder.layers[-1].weight.mul_(0.3)
        tiny.decoder.layers[-1].bias.fill_(0.5)
    tiny.save_pretrained(folder / "taesd")


@pytest.fixture(scope="session")
def save_pipeline() -> Callable[..., None]:
    """``save_pipeline(folder, "sdxl")`` writes a pipeline folder, and beside it ``taesd``."""
    return _save_pipeline
