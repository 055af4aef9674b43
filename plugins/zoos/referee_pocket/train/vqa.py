"""The pocket BLIP-VQA: transformers' BlipForQuestionAnswering at small size, taught to say whether a thing is there.

A scene is asked about four phrases at once, so that its picture is looked at only once: two that are in it, one near it
(another's colour, one attribute that is another) and one from near or far. First and all along the vision tower also
learns, cell by cell, what covers each of its patches, with a head that is thrown away: a yes or no says little about
shapes.
"""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderTiny
from torch import Generator, Tensor, nn
from transformers import BlipConfig

from referee_grounding_vqa.preprocess import Normalisation
from referee_grounding_vqa.vqa import EPS, Vqa
from referee_pocket import world
from referee_pocket.train.blip2 import Cells, pictures
from referee_pocket.train.data import augmented, chance, recoded, trained_vae
from referee_pocket.train.loop import fit, generator
from referee_pocket.train.misdrawn import NONE, bend
from referee_pocket.train.tokens import CONTEXT, question_tokenizer
from referee_pocket.words import SHAPES, Thing

BATCH = 40
STEPS = 1800
SEEING = 500
"""Steps in which nothing is asked yet."""
QUESTIONS = 4
HALF = Normalisation((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def build() -> Vqa:
    """An untrained BLIP-VQA of about 1.2 M parameters."""
    tokenizer = question_tokenizer()
    ids = tokenizer.get_vocab()
    config = BlipConfig(
        vision_config={
            "hidden_size": 96, "intermediate_size": 288, "num_hidden_layers": 4, "num_attention_heads": 4,
            "image_size": world.SIZE, "patch_size": 8, "layer_norm_eps": EPS,
        },
        text_config={
            "hidden_size": 96, "intermediate_size": 288, "num_hidden_layers": 3, "num_attention_heads": 4,
            "vocab_size": len(ids), "max_position_embeddings": CONTEXT, "projection_dim": 64,
            "pad_token_id": ids["[PAD]"], "sep_token_id": ids["[SEP]"], "eos_token_id": ids["[SEP]"],
            "bos_token_id": ids["[DEC]"],
        },
        projection_dim=64,
        image_text_hidden_size=64,
    )  # fmt: skip
    return Vqa.fresh(config, tokenizer, HALF)


class Taught(nn.Module):
    """The model with the head that only training needs."""

    def __init__(self, model: Vqa) -> None:
        super().__init__()
        self.model = model
        self.cells = Cells(96)


def near(thing: Thing, others: list[Thing], choose: random.Random) -> Thing:
    """A thing that differs from a true one: by another's attributes, or by one that is new."""
    if others and choose.random() < 0.6:
        other = choose.choice(others)
        colour, shape, texture = (choose.choice((a, b)) for a, b in zip(_of(thing), _of(other), strict=True))
        return Thing(colour, shape, texture)
    attributes = [*_of(thing)]
    kind = choose.choices((0, 1, 2), (2, 3, 1))[0]
    attributes[kind] = choose.choice([v for v in range((8, 8, 4)[kind]) if v != attributes[kind]])
    return Thing(*attributes)


def _of(thing: Thing) -> tuple[int, int, int]:
    return thing.colour, thing.shape, thing.texture


def asked(things: list[Thing], choose: random.Random) -> list[tuple[str, bool]]:
    """Phrases about a picture of these things, and whether each is in it. Shape `NONE` is none of any phrase."""
    true = [thing for thing in things if thing.shape != NONE]
    sane = [replace(thing, shape=choose.randrange(8)) if thing.shape == NONE else thing for thing in things]
    found: list[tuple[str, bool]] = []
    for i in range(QUESTIONS):
        base = choose.choice(sane)
        if i < 2:
            thing = choose.choice(true) if true else base
        elif i == 2 or choose.random() < 0.5:
            thing = near(base, [other for other in sane if other is not base], choose)
        else:
            thing = Thing(choose.randrange(8), choose.randrange(8), choose.choice((0, 0, 1, 2, 3)))
        if choose.random() < 0.06:  # a shape alone means it in any colour and texture
            found.append((f"a {SHAPES[thing.shape]}", any(t.shape == thing.shape for t in true)))
        else:
            found.append((str(thing), thing in true))
    return found


def bent(
    n: int, draw: Generator, vae: AutoencoderTiny | None
) -> tuple[Tensor, Tensor, world.Scenes, list[list[Thing]]]:
    """Pictures, where their things lie, the scenes, and what the things are: one in ten a fake, of shape `NONE`."""
    scenes = world.sample(n, draw)
    drawn = replace(scenes)
    atlas, names = bend(drawn, draw, fakes=0.1)
    x, masks = pictures(drawn, draw, vae, atlas)
    things = [
        [replace(thing, shape=int(names[i, slot])) for slot, thing in enumerate(scenes.things(i))] for i in range(n)
    ]
    return x, masks, scenes, things


def answer_loss(model: Vqa, embeds: Tensor, questions: list[list[tuple[str, bool]]]) -> Tensor:
    """Cross entropy of the answer's first word, yes or no, over the whole vocabulary."""
    flat = [(row, phrase, truth) for row, asked_ in enumerate(questions) for phrase, truth in asked_]
    ids = [model.ask(phrase)[0] for _, phrase, _ in flat]
    total = embeds.new_zeros(())
    for length in {len(row) for row in ids}:  # unpadded, as the referee asks
        chosen = [i for i, row in enumerate(ids) if len(row) == length]
        rows = torch.tensor([flat[i][0] for i in chosen], device=embeds.device)
        words = model.first_words(embeds[rows], torch.stack([ids[i] for i in chosen]).to(embeds.device))
        targets = [model.yes_id if flat[i][2] else model.no_id for i in chosen]
        total = total + F.cross_entropy(words, torch.tensor(targets, device=embeds.device), reduction="sum")
    return total / len(flat)


def train(work: Path, out: Path) -> dict[str, float]:
    """Train and save to ``out/vqa``; returns the measures on held-out scenes."""
    torch.manual_seed(11)
    taught = Taught(build())
    model, vae = taught.model, trained_vae(out)

    def loss(step: int, draw: Generator) -> Tensor:
        x, masks, scenes, things = bent(BATCH, draw, vae if step % 2 else None)
        embeds = model.see(x)
        cells = taught.cells.loss(embeds, scenes, masks)
        if step < SEEING:
            return cells
        choose = chance(draw)
        return answer_loss(model, embeds, [asked(each, choose) for each in things]) + 0.3 * cells

    fit("vqa", taught, loss, steps=STEPS, lr=1.5e-3, work=work, decay=0.997)
    model.cpu().half().save(out / "vqa")
    return measure(Vqa.load(out / "vqa"), vae.cpu())


@torch.no_grad()
def measure(model: Vqa, vae: AutoencoderTiny, n: int = 300) -> dict[str, float]:
    """On held-out two-thing scenes: is a right phrase believed more than one with the other thing's attributes?"""
    draw = generator("vqa", "test")
    scenes = world.sample(n, draw, with_held_out=True, count=2)
    clean = world.render(scenes)
    coded = recoded(vae, clean, draw)
    images = {
        "clean": clean, "augmented": augmented(clean, draw), "recoded": coded,
        "recoded_augmented": augmented(coded, draw),
    }  # fmt: skip
    pairs = []
    for i in range(n):
        a, b = scenes.things(i)
        swapped = replace(a, colour=b.colour, texture=b.texture)
        if swapped not in (a, b):
            pairs.append((i, a, swapped))
    result: dict[str, float] = {}
    for kind, x in images.items():
        embeds = model.see(x)
        asked_ = [[model.ask(str(thing)) for thing in (right, wrong)] for _, right, wrong in pairs]
        margin = torch.cat([model.answers(embeds[i : i + 1], q) for (i, _, _), q in zip(pairs, asked_, strict=True)])
        result[f"{kind}/right_over_swapped"] = (margin[:, 0] > margin[:, 1]).float().mean().item()
        result[f"{kind}/accepts_right"] = (margin[:, 0] > 0).float().mean().item()
        result[f"{kind}/refuses_swapped"] = (margin[:, 1] < 0).float().mean().item()
    return result
