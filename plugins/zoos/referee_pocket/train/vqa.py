"""The pocket BLIP-VQA: transformers' BlipForQuestionAnswering at small size, taught to say whether a thing is there.

A yes or no says little about shapes, so it gets the pocket BLIP-2's eyes: their vision towers are built alike. With
these at rest, what they make of many pictures is computed once, and the text towers learn to ask: each picture about
four phrases at once, two that are in it, one near it (another's colour, one attribute that is another) and one from
near or far. Then all of it learns together, at a lower rate.
"""

from __future__ import annotations

import random
from dataclasses import replace
from functools import cache
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderTiny
from torch import Generator, Tensor
from transformers import BlipConfig

from referee_blip2.model import Blip2
from referee_grounding_vqa.preprocess import Normalisation
from referee_grounding_vqa.vqa import EPS, Vqa
from referee_pocket import world
from referee_pocket.train.blip2 import pictures
from referee_pocket.train.data import augmented, chance, recoded, trained_vae
from referee_pocket.train.loop import DEVICE, fit, generator
from referee_pocket.train.misdrawn import NONE, bend
from referee_pocket.train.tokens import CONTEXT, question_tokenizer
from referee_pocket.words import SHAPES, Thing

BATCH = 40
STEPS = {"ask": 1200, "polish": 150}
FEATURES = 8_000
"""Pictures whose vision features the first stage is taught with."""
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


def adopt(model: Vqa, folder: Path) -> None:
    """Give it the vision tower of a pocket BLIP-2."""
    model.network.vision_model.load_state_dict(Blip2.load(folder).network.vision_model.state_dict())


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


def bent(n: int, draw: Generator, vae: AutoencoderTiny) -> tuple[Tensor, list[list[Thing]]]:
    """Pictures and the things in them: two in three a little bent, one in ten a fake, of shape `NONE`."""
    scenes = world.sample(n, draw)
    drawn = replace(scenes)
    atlas, names = bend(drawn, draw, fakes=0.1)
    x, _ = pictures(drawn, draw, vae, atlas)
    things = [
        [replace(thing, shape=int(names[i, slot])) for slot, thing in enumerate(scenes.things(i))] for i in range(n)
    ]
    return x, things


@torch.no_grad()
def features(model: Vqa, vae: AutoencoderTiny) -> tuple[Tensor, list[list[Thing]]]:
    """What the vision tower makes of pictures, in half precision, and the things in them."""
    parts: list[Tensor] = []
    things: list[list[Thing]] = []
    for block in range(FEATURES // 100):
        x, named = bent(100, generator("vqa", "features", block), vae)
        parts.append(model.see(x).half().cpu())
        things += named
    return torch.cat(parts), things


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
    """Both stages; saves to ``out/vqa`` and returns the measures on held-out scenes."""
    torch.manual_seed(11)
    model, vae = build(), trained_vae(out)
    adopt(model, out / "blip2")
    model.network.vision_model.requires_grad_(False)
    bank = cache(lambda: features(model, vae))  # not before it is needed: a resumed training may be past it

    def ask(step: int, draw: Generator) -> Tensor:
        embeds, things = bank()
        picked = torch.randint(FEATURES, (BATCH,), generator=draw)
        choose = chance(draw)
        questions = [asked(things[i], choose) for i in picked.tolist()]
        return answer_loss(model, embeds[picked].float().to(DEVICE), questions)

    fit("vqa-ask", model, ask, steps=STEPS["ask"], lr=1.5e-3, work=work, decay=0.995)
    model.network.vision_model.requires_grad_(True)

    def polish(step: int, draw: Generator) -> Tensor:
        x, things = bent(BATCH, draw, vae)
        choose = chance(draw)
        return answer_loss(model, model.see(x), [asked(each, choose) for each in things])

    fit("vqa-polish", model, polish, steps=STEPS["polish"], lr=4e-4, work=work, decay=0.98)
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
