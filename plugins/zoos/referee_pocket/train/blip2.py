"""The pocket BLIP-2: transformers' Blip2ForImageTextRetrieval at small size, with the caption head it lacks.

Four stages, since a vision transformer of 64 tokens learns nothing about shapes from a sentence per picture:
1. the vision tower alone learns, cell by cell, what covers each of its patches (a head that is thrown away);
2. everything together: captions, matching, contrast;
3. the vision tower rests, its output is computed once for many pictures, and the Q-Former learns what is hard:
   to refuse captions that give one thing the other's colour, and pictures in which a thing is mis-drawn;
4. everything together again, at a lower rate, with fakes that are harder to tell: eyes that pass them let an inversion
   stop at a cross without an arm.
"""

from __future__ import annotations

import random
from dataclasses import replace
from functools import cache
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderTiny
from torch import Generator, Tensor, nn
from transformers import Blip2Config

from referee_blip2.loss import caption_loss
from referee_blip2.model import Blip2
from referee_pocket import world
from referee_pocket.train.data import augmented, captioned, chance, moved, recoded, swap, texts, trained_vae
from referee_pocket.train.loop import DEVICE, fit, generator
from referee_pocket.train.misdrawn import NONE, bend
from referee_pocket.train.tokens import CONTEXT, bert_tokenizer
from referee_pocket.words import COLOURS, SHAPES, TEXTURES, Thing, Wanted

BATCH = 48
STEPS = {"see": 5000, "read": 1500, "bind": 3400, "polish": 3000}
FEATURES = 24_000
"""Pictures whose vision features stage 3 is taught with."""


def build() -> Blip2:
    """An untrained BLIP-2 of about 1.4 M parameters."""
    tokenizer = bert_tokenizer()
    config = Blip2Config(
        vision_config={
            "hidden_size": 96, "intermediate_size": 288, "num_hidden_layers": 4, "num_attention_heads": 4,
            "image_size": world.SIZE, "patch_size": 8, "layer_norm_eps": 1e-6, "qkv_bias": True,
        },
        qformer_config={
            "hidden_size": 96, "intermediate_size": 288, "num_hidden_layers": 4, "num_attention_heads": 4,
            "encoder_hidden_size": 96, "cross_attention_frequency": 1, "use_qformer_text_input": True,
            "vocab_size": len(tokenizer), "max_position_embeddings": CONTEXT,
            "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "pad_token_id": tokenizer.pad_token_id,
        },
        text_config={"model_type": "opt"},
        num_query_tokens=8,
        image_text_hidden_size=64,
    )  # fmt: skip
    return Blip2.fresh(config, tokenizer, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


class Cells(nn.Module):
    """What covers each patch: nothing or something, and its shape, colour and texture. Training only."""

    SIZES = (2, len(SHAPES), len(COLOURS), len(TEXTURES))

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, sum(self.SIZES))

    def loss(self, embeds: Tensor, scenes: world.Scenes, masks: Tensor) -> Tensor:
        """Cross entropies at the patches; ``masks`` (n, 3, 64, 64) says where each thing lies."""
        share = F.avg_pool2d(masks, 8).flatten(2)  # (n, 3, 64)
        most, slot = share.max(1)
        there = (most > 0.2).to(embeds.device)
        something, shape, colour, texture = self.linear(embeds[:, 1:]).split(self.SIZES, -1)
        total = F.cross_entropy(something.flatten(0, 1), there.flatten().long())
        for logits, labels in ((shape, scenes.shape), (colour, scenes.colour), (texture, scenes.texture)):
            wanted = labels.gather(1, slot).to(embeds.device)
            total = total + F.cross_entropy(logits[there], wanted[there])
        return total


class Taught(nn.Module):
    """The model with the head of stage 1, as one module to train."""

    def __init__(self, model: Blip2) -> None:
        super().__init__()
        self.model = model
        self.cells = Cells(96)


def wrong(caption: Wanted, choose: random.Random) -> Wanted:
    """A caption near the true one: things that exchange attributes, or one attribute that is another."""
    a, *rest = caption.things
    if rest and choose.random() < 0.7:
        b, *others = rest
        exchange = choose.random()
        if exchange < 0.5:
            candidate = swap(caption)
        elif exchange < 0.75:
            candidate = Wanted(
                (Thing(b.colour, a.shape, a.texture), Thing(a.colour, b.shape, b.texture), *others), caption.relation
            )
        else:
            candidate = Wanted(
                (Thing(a.colour, a.shape, b.texture), Thing(b.colour, b.shape, a.texture), *others), caption.relation
            )
        if set(candidate.things) != set(caption.things):
            return candidate
    things = list(caption.things)
    i = choose.randrange(len(things))
    attributes = [things[i].colour, things[i].shape, things[i].texture]
    kind = choose.choices((0, 1, 2), (2, 3, 1))[0]
    attributes[kind] = choose.choice([v for v in range((8, 8, 4)[kind]) if v != attributes[kind]])
    things[i] = Thing(*attributes)
    return Wanted(tuple(things), caption.relation)


def tokens(model: Blip2, lines: list[str]) -> tuple[Tensor, Tensor]:
    """Ids and mask, padded to the longest."""
    found = model.tokenizer(lines, padding=True, return_tensors="pt")
    return found.input_ids.to(DEVICE), found.attention_mask.to(DEVICE)


def text_losses(
    model: Blip2, embeds: Tensor, captions: list[Wanted], choose: random.Random, spoiled: Tensor | None = None
) -> Tensor:
    """Matching (true against near and far captions) + captioning + a contrast within the batch.

    A spoiled picture, with a mis-drawn thing in it, matches no caption and is not described.
    """
    good = torch.ones(len(captions), dtype=torch.bool) if spoiled is None else ~spoiled
    good = good.to(embeds.device)
    near = [wrong(caption, choose) for caption in captions]
    far = captions[1:] + captions[:1]
    negatives = [f if choose.random() < 0.12 else n for n, f in zip(near, far, strict=True)]
    ids, mask = tokens(model, [line.rstrip(".") for line in texts(captions, choose)])
    bad_ids, bad_mask = tokens(model, [str(caption) for caption in negatives])
    opened = model.opened(ids)
    both = model.both(embeds, ids, mask, opened, mask)
    refused = model.itm_logits(embeds, bad_ids, bad_mask)
    labels = torch.cat([good.long(), torch.zeros_like(good, dtype=torch.long)])
    matching = F.cross_entropy(torch.cat([both.itm, refused]), labels)
    speaking = caption_loss(both.caption, opened, mask)[good].mean()
    images, words = model.image_features(both.queries), model.text_features(ids, mask)
    similarity = torch.einsum("iqe,je->ijq", images, words).amax(-1) / 0.07
    similarity = similarity[good][:, good]
    targets = torch.arange(len(similarity), device=embeds.device)
    contrast = (F.cross_entropy(similarity, targets) + F.cross_entropy(similarity.T, targets)) / 2
    return matching + 0.5 * speaking + 0.25 * contrast


def see(work: Path) -> Taught:
    """The first stage, which needs no other model."""
    torch.manual_seed(3)
    taught = Taught(build())

    def loss(step: int, draw: Generator) -> Tensor:
        scenes = world.sample(BATCH, draw)
        x, masks = pictures(scenes, draw)
        return taught.cells.loss(taught.model.vision(taught.model.normalise(x)), scenes, masks)

    fit("blip2-see", taught, loss, steps=STEPS["see"], lr=2e-3, work=work, decay=0.995)
    return taught


def train(work: Path, out: Path) -> dict[str, float]:
    """All stages; saves to ``out/blip2``."""
    taught = see(work)
    model = taught.model
    vae = trained_vae(out)

    def read(step: int, draw: Generator) -> Tensor:
        scenes, captions = captioned(BATCH, draw)
        x, masks = pictures(scenes, draw, vae)
        embeds = model.vision(model.normalise(x))
        return text_losses(model, embeds, captions, chance(draw)) + 0.3 * taught.cells.loss(embeds, scenes, masks)

    fit("blip2-read", taught, read, steps=STEPS["read"], lr=1.2e-3, work=work, decay=0.995)
    model.network.vision_model.requires_grad_(False)
    bank = cache(lambda: features(model, vae))  # not before it is needed: a resumed training may be past it

    def bind(step: int, draw: Generator) -> Tensor:
        choose = chance(draw)
        blocks, spoiled, embeds = bank()
        picked = torch.randint(FEATURES, (BATCH,), generator=draw)
        captions = [world.caption(blocks[i // 500], i % 500, choose) for i in picked.tolist()]
        return text_losses(model, embeds[picked].float().to(DEVICE), captions, choose, spoiled[picked])

    fit("blip2-bind", model, bind, steps=STEPS["bind"], lr=1.2e-3, work=work, decay=0.998)
    model.network.vision_model.requires_grad_(True)

    def polish(step: int, draw: Generator) -> Tensor:
        scenes, captions = captioned(BATCH, draw)
        x, _, spoiled = bent_pictures(scenes, draw, vae, fakes=0.2, fine=True)
        return text_losses(model, model.vision(model.normalise(x)), captions, chance(draw), spoiled)

    fit("blip2-polish", model, polish, steps=STEPS["polish"], lr=6e-4, work=work, decay=0.998)
    model.cpu().half().save(out / "blip2")
    return measure(Blip2.load(out / "blip2"), vae.cpu())


def pictures(
    scenes: world.Scenes, draw: Generator, vae: AutoencoderTiny | None = None, atlas: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Rendered scenes, half of them through the VAE, three in four augmented; and where their things lie."""
    x, masks = world.render(scenes, atlas).to(DEVICE), world.cover(scenes, atlas)
    n = len(scenes)
    if vae is not None:
        x = torch.cat([recoded(vae, x[: n // 2], draw), x[n // 2 :]])
    state = draw.get_state()
    views = augmented(x, draw)
    places = moved(masks, Generator().set_state(state))
    keep = (torch.arange(n) % 4 == 0)[:, None, None, None]
    return torch.where(keep.to(x.device), x, views), torch.where(keep, masks, places)


def bent_pictures(
    scenes: world.Scenes, draw: Generator, vae: AutoencoderTiny, fakes: float = 0.15, fine: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """`pictures` of scenes whose things are bent, a share of them `fakes`; and which pictures that spoils."""
    bent = replace(scenes)
    shapes, names = bend(bent, draw, fakes, fine)
    spoiled = ((names == NONE) & bent.present).any(1)
    return *pictures(bent, draw, vae, shapes), spoiled


@torch.no_grad()
def features(model: Blip2, vae: AutoencoderTiny) -> tuple[list[world.Scenes], Tensor, Tensor]:
    """Scenes in blocks of 500, which of their pictures are spoiled, and vision features in half precision."""
    blocks, spoiled, parts = [], [], []
    for block in range(FEATURES // 500):
        draw = generator("blip2", "features", block)
        blocks.append(world.sample(500, draw))
        x, _, bad = bent_pictures(blocks[-1], draw, vae)
        spoiled.append(bad)
        parts += [model.vision(model.normalise(part)).half().cpu() for part in x.split(100)]
    return blocks, torch.cat(spoiled), torch.cat(parts)


@torch.no_grad()
def measure(model: Blip2, vae: AutoencoderTiny, n: int = 300) -> dict[str, float]:
    """On held-out two-thing scenes: how often the true caption is preferred to one with exchanged attributes."""
    draw = generator("blip2", "test")
    scenes, captions = captioned(n, draw, with_held_out=True, count=2)
    kept = [i for i, caption in enumerate(captions) if set(swap(caption).things) != set(caption.things)]
    captions = [captions[i] for i in kept]
    clean = world.render(scenes)[kept]
    coded = recoded(vae, clean, draw)
    choose = random.Random(0)
    others = {
        "swapped": [swap(caption) for caption in captions],
        "one_wrong": [wrong(Wanted(caption.things[:1]), choose) for caption in captions],
    }
    others["one_wrong"] = [
        Wanted((*o.things, *c.things[1:]), c.relation) for o, c in zip(others["one_wrong"], captions, strict=True)
    ]
    result: dict[str, float] = {}
    images = {
        "clean": clean, "augmented": augmented(clean, draw), "recoded": coded,
        "recoded_augmented": augmented(coded, draw),
    }  # fmt: skip
    for kind, x in images.items():
        embeds = model.vision(model.normalise(x))
        own = _scores(model, embeds, captions)
        result[f"{kind}/accepts_right"] = (own[0] < 0.693).float().mean().item()
        for name, lines in others.items():
            other = _scores(model, embeds, lines)
            result[f"{kind}/itm_{name}"] = (own[0] < other[0]).float().mean().item()
            result[f"{kind}/caption_{name}"] = (own[1] < other[1]).float().mean().item()
    turned = [Wanted(c.things, c.relation ^ 1) for c in captions if c.relation is not None]
    rows = [i for i, c in enumerate(captions) if c.relation is not None]
    embeds = model.vision(model.normalise(clean))[rows]
    own, other = _scores(model, embeds, [captions[i] for i in rows]), _scores(model, embeds, turned)
    result["clean/itm_relation_reversed"] = (own[0] < other[0]).float().mean().item()
    result["clean/caption_relation_reversed"] = (own[1] < other[1]).float().mean().item()
    return result


def _scores(model: Blip2, embeds: Tensor, captions: list[Wanted]) -> tuple[Tensor, Tensor]:
    ids, mask = tokens(model, [str(caption) for caption in captions])
    opened = model.opened(ids)
    both = model.both(embeds, ids, mask, opened, mask)
    return F.cross_entropy(both.itm, torch.ones(len(ids)).long(), reduction="none"), caption_loss(
        both.caption, opened, mask
    )
