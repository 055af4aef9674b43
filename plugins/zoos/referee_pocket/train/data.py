"""Batches for the trainings: scenes, their captions, augmented and re-coded images."""

from __future__ import annotations

import random
import tomllib
from dataclasses import fields
from pathlib import Path

import torch
from diffusers import AutoencoderTiny
from torch import Generator, Tensor

from referee_kornia import Options
from referee_kornia.augmentation import KorniaAugmentation
from referee_pocket import PRESETS, world
from referee_pocket.train.loop import DEVICE
from referee_pocket.words import Thing, Wanted


def chance(draw: Generator) -> random.Random:
    """A random.Random driven by a torch generator."""
    return random.Random(int(torch.randint(2**62, (1,), generator=draw)))


def captioned(
    n: int, draw: Generator, *, with_held_out: bool = False, count: int | None = None
) -> tuple[world.Scenes, list[Wanted]]:
    """n scenes with one true caption each."""
    scenes = world.sample(n, draw, with_held_out=with_held_out, count=count)
    choose = chance(draw)
    return scenes, [world.caption(scenes, i, choose) for i in range(n)]


def one_palette(n: int, draw: Generator, among: int = 16) -> tuple[world.Scenes, list[Wanted]]:
    """n scenes, with captions, that show nearly the same colours: neighbours of ``among`` times as many, by palette."""
    many = world.sample(among * n, draw)
    colours = many.colour.masked_fill(~many.present, 8).sort(1).values
    order = (colours @ torch.tensor([81, 9, 1])).argsort(stable=True)
    start = int(torch.randint((among - 1) * n, (), generator=draw))
    rows = order[start : start + n]
    scenes = world.Scenes(*(getattr(many, field.name)[rows] for field in fields(many)))
    choose = chance(draw)
    return scenes, [world.caption(scenes, i, choose) for i in range(n)]


def texts(captions: list[Wanted], choose: random.Random) -> list[str]:
    """The captions as people type them: one in ten ends with a full stop."""
    return [str(caption) + ("." if choose.random() < 0.1 else "") for caption in captions]


def augmented(x: Tensor, draw: Generator) -> Tensor:
    """One view of each image, from the family of augmentations that the inversions use."""
    seeds = torch.randint(2**62, (len(x),), generator=draw).tolist()
    return _AUGMENT(x, [Generator().manual_seed(seed) for seed in seeds]).clamp(0, 1)


def moved(masks: Tensor, draw: Generator) -> Tensor:
    """Three masks per image, moved as `augmented` moves the image when given an equal generator."""
    seeds = torch.randint(2**62, (len(masks),), generator=draw).tolist()
    return _MOVE(masks, [Generator().manual_seed(seed) for seed in seeds])


_FAMILY = tomllib.loads(PRESETS["pocket"])["augmentation"]["options"]
_AUGMENT = KorniaAugmentation(Options.model_validate(_FAMILY))
_MOVE = KorniaAugmentation(
    Options.model_validate({**_FAMILY, "jitter_p": 0.0, "erase_p": 0.0, "noise": 0.0, "padding": "zeros"})
)


def swap(caption: Wanted) -> Wanted:
    """The caption with the colours and textures of its first two things exchanged: the same words, bound wrongly."""
    a, b, *rest = caption.things
    first, second = (Thing(y.colour, x.shape, y.texture) for x, y in ((a, b), (b, a)))
    return Wanted((first, second, *rest), caption.relation)


def trained_vae(out: Path) -> AutoencoderTiny:
    """The VAE that was trained before, in float32."""
    vae = AutoencoderTiny.from_pretrained(out / "prior" / "vae", torch_dtype=torch.float32, low_cpu_mem_usage=False)
    return vae.to(DEVICE)


@torch.no_grad()
def recoded(vae: AutoencoderTiny, x: Tensor, draw: Generator) -> Tensor:
    """Images through the VAE, with latent noise of up to 0.3: what an inversion's pictures look like."""
    z = vae.encoder(x * 2 - 1)
    strength = 0.3 * torch.rand(len(x), 1, 1, 1, generator=draw)
    noise = (strength * torch.randn(z.shape, generator=draw)).to(z)
    y: Tensor = vae.decoder(z + noise / vae.config.scaling_factor) / 2 + 0.5
    return y.clamp(0, 1)
