"""The pocket CLIP: an open_clip model of 0.6 M parameters, trained contrastively and on captions alone.

Nothing in the contrastive loss rewards binding a colour to its shape while single attributes still tell the captions
of a batch apart; such text encoders read like bags of words, which is what makes real priors mis-bind.
Colours alone tell most captions of a small batch apart, and a tower that learns no more leaves the prior blind to
shapes. The real CLIP's batches of 32 thousand hold many captions that share their colours; here every other batch is
of one palette.
The text tower is exported to transformers' CLIPTextModel: the prior listens to it, frozen, as Stable Diffusion does.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.loss import ClipLoss
from safetensors.torch import save_file
from torch import Generator, Tensor

from referee_pocket import world
from referee_pocket.train.data import augmented, captioned, chance, one_palette, swap, texts
from referee_pocket.train.loop import DEVICE, fit, generator
from referee_pocket.train.text_tower import to_clip_text_model
from referee_pocket.train.tokens import CONTEXT, clip_tokenizer

CONFIG: dict[str, Any] = {
    "embed_dim": 64,
    "vision_cfg": {"image_size": world.SIZE, "layers": 3, "width": 96, "head_width": 32, "patch_size": 8},
    "text_cfg": {
        "context_length": CONTEXT, "vocab_size": 144, "width": 96, "heads": 4, "layers": 2,
        "hf_tokenizer_name": ".", "pool_type": "argmax",
    },
}  # fmt: skip
MEAN = STD = (0.5, 0.5, 0.5)
STEPS = 2400
BATCH = 128
PATCH_DROPOUT = 0.4
"""In training only; half the time, and no part of a picture is leant on alone (FLIP, arXiv 2212.00794)."""


def build() -> open_clip.CLIP:
    """An untrained CLIP of the pocket's size."""
    vision = open_clip.CLIPVisionCfg(**CONFIG["vision_cfg"], patch_dropout=PATCH_DROPOUT)
    return open_clip.CLIP(CONFIG["embed_dim"], vision, open_clip.CLIPTextCfg(**CONFIG["text_cfg"]))


def train(work: Path, out: Path) -> dict[str, float]:
    """Train and save to ``out/clip``; returns retrieval on held-out scenes."""
    torch.manual_seed(1)
    model = build()
    tokenizer = clip_tokenizer()
    contrast = ClipLoss()

    def loss(step: int, draw: Generator) -> Tensor:
        scenes, captions = (one_palette if step % 2 else captioned)(BATCH, draw)
        x = augmented(world.render(scenes), draw).to(DEVICE)
        tokens = tokenize(tokenizer, texts(captions, chance(draw))).to(DEVICE)
        images, words, scale = model((x - 0.5) / 0.5, tokens)
        value: Tensor = contrast(images, words, scale)
        return value

    fit("clip", model, loss, steps=STEPS, lr=1.5e-3, work=work, decay=0.995, warm=0.1)
    return finish(model, out)


def tokenize(tokenizer: Any, lines: list[str]) -> Tensor:
    """(n, CONTEXT) ids, padded with the end mark."""
    found = tokenizer(lines, padding="max_length", max_length=CONTEXT, truncation=True, return_tensors="pt")
    ids: Tensor = found.input_ids
    return ids


@torch.no_grad()
def finish(model: open_clip.CLIP, out: Path) -> dict[str, float]:
    """Save in open_clip's format, and the text tower in transformers'; measure retrieval among 100 scenes."""
    model.half().float()  # measured as it is stored
    folder = out / "clip"
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = clip_tokenizer()
    tokenizer.save_pretrained(folder)
    preprocess = {"mean": MEAN, "std": STD, "interpolation": "bicubic", "resize_mode": "squash"}
    (folder / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": CONFIG, "preprocess_cfg": preprocess}, indent=2) + "\n"
    )
    state = {name: tensor.cpu().half().contiguous() for name, tensor in model.state_dict().items()}
    save_file(state, folder / "open_clip_model.safetensors")
    tokenizer.save_pretrained(out / "prior" / "tokenizer")
    to_clip_text_model(model.cpu(), tokenizer).half().save_pretrained(out / "prior" / "text_encoder")
    model.to(DEVICE)
    right, sides = [], []
    for trial in range(8):
        draw = generator("clip", "test", trial)
        scenes, captions = captioned(100, draw, with_held_out=True, count=2)
        tokens = tokenize(tokenizer, [str(caption) for caption in captions]).to(DEVICE)
        images, words, _ = model((world.render(scenes).to(DEVICE) - 0.5) / 0.5, tokens)
        right.append((images @ words.T).argmax(1).cpu() == torch.arange(100))
        swapped = tokenize(tokenizer, [str(swap(caption)) for caption in captions]).to(DEVICE)
        own, other = ((images * model.encode_text(t, normalize=True)).sum(1) for t in (tokens, swapped))
        sides.append((own > other).cpu())
    return {
        "retrieval_of_100": torch.cat(right).float().mean().item(),
        "prefers_right_to_attribute_swapped": torch.cat(sides).float().mean().item(),
    }
