"""Pictures to begin with, masks and regions with real parts: both kinds of VAE, and the pocket zoo's trained models."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from referee import generate, load
from referee.control.canvas import Canvas
from referee.hooks import Place
from referee.inversion import Seat, invert
from referee.pixels import from_pillow, to_pillow
from referee.rules import Rules
from referee.testing import ToyReferee
from referee_pocket import world
from referee_pocket.judge import Judge
from referee_pocket.words import Thing, Wanted
from referee_stable_diffusion import Options
from referee_stable_diffusion.load import load as load_prior

FEW = {"rules": {"steps": 6, "tail": 1, "views": 2, "restart_every": 2, "restart_from": 2}}
SHORT = {"rules": {"steps": 80, "views": 4, "restart_from": 20, "restart_every": 30, "tail": 3}}


def picture(seed: int = 100) -> tuple[world.Scenes, Image.Image]:
    """A scene of two things."""
    scene = world.sample(1, torch.Generator().manual_seed(seed), count=2)
    return scene, to_pillow(world.render(scene)[0])


def around(scene: world.Scenes) -> Image.Image:
    """A mask of the first thing's box, in white, with 3 pixels about it."""
    (x, y), r = scene.centre[0, 0].tolist(), float(scene.radius[0, 0]) + 3
    mask = Image.new("L", (64, 64), 0)
    mask.paste(255, (max(int(x - r), 0), max(int(y - r), 0), min(int(x + r) + 1, 64), min(int(y + r) + 1, 64)))
    return mask


@pytest.mark.parametrize("kind", ["AutoencoderKL", "AutoencoderTiny"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_both_kinds_of_vae_begin_with_a_picture(
    tmp_path: Path, save_pipeline: Callable[..., None], kind: str, dtype: str
) -> None:
    save_pipeline(tmp_path)
    options = Options(model=str(tmp_path), vae=str(tmp_path / "taesd") if kind == "AutoencoderTiny" else "")
    prior = load_prior(options, Place("cpu", dtype))
    assert type(prior.vae).__name__ == kind
    init = from_pillow(picture()[1])
    mask = torch.zeros(1, 1, 64, 64)
    mask[..., 20:50, 7:33] = 1
    canvas = Canvas(prior, init, strength=0.7, mask=mask)
    assert canvas.latent.dtype == torch.float32
    assert canvas.cells is not None
    assert canvas.cells.shape[-2:] == canvas.latent.shape[-2:] == (64 // prior.factor,) * 2
    seats, rules = [Seat("toy", ToyReferee(16))], Rules(steps=10, tail=2, views=1, noise=0.1)
    kept, stays = (mask == 0).expand_as(init), ~canvas.cells.expand_as(canvas.latent)
    steps = list(invert("red", seats, canvas, rules=rules, size=(64, 64)))
    assert len(steps) == 7
    for step in steps:
        assert torch.equal(step.image[kept], init[kept])
        assert torch.equal(step.z[stays], canvas.latent[stays])
    assert steps[-1].z.isfinite().all()
    assert (steps[-1].z - canvas.latent)[~stays].abs().mean() > 0.1


def test_a_masked_run_of_the_pocket_zoo_goes_on_bit_for_bit() -> None:
    parts = load(referees=["blip2", "clip"], settings=FEW, device="cpu")
    scene, init = picture()
    free = from_pillow(around(scene).convert("RGB"))[:, :1]
    canvas = Canvas(parts.prior, from_pillow(init), strength=0.9, mask=free)

    def run(state=None):
        steps = invert(
            "a red circle and a blue square", parts.seats, canvas, rules=parts.rules, size=parts.size, seeds=(1, 2),
            augmentation=parts.augmentation, state=state,
        )  # fmt: skip
        return [(step, step.state()) for step in steps]

    whole = run()
    rest = run(whole[1][1])
    assert [step.k for step, _ in rest] == [step.k for step, _ in whole[2:]]
    assert all(torch.equal(one.z, other.z) for (one, _), (other, _) in zip(rest, whole[2:], strict=True))
    kept = (free == 0).expand(2, 3, -1, -1)
    assert torch.equal(whole[-1][0].image[kept], from_pillow(init).expand(2, -1, -1, -1)[kept])


def test_the_pocket_vae_encodes_what_it_decodes() -> None:
    parts = load(settings=FEW, device="cpu")
    x = from_pillow(picture()[1])
    with torch.no_grad():
        again = parts.prior.decode(Canvas(parts.prior, x).latent)
    assert (again - x).abs().mean() < 0.03


@pytest.mark.slow
def test_one_thing_of_a_picture_is_changed_under_a_mask() -> None:
    """Its colour and shape; what was there is gone, and the other thing is untouched."""
    parts, judge, shapes = load(settings=SHORT, device="cpu"), Judge(), 0
    for i, (colour, shape) in enumerate([(4, 3), (5, 2)]):
        scene, init = picture(100 + i)
        wanted, mask = Wanted((Thing(colour, shape), scene.things(0)[1])), around(scene)
        made = from_pillow(generate(str(wanted), parts, seed=i, init=init, mask=mask).pictures[0])
        kept = from_pillow(mask.convert("RGB")) == 0
        assert torch.equal(made[kept], from_pillow(init)[kept])
        found = {seen.thing.colour: seen.thing.shape for seen in judge.see(made)[0]}
        assert set(found) == {colour, scene.things(0)[1].colour}
        shapes += found[colour] == shape
    assert shapes >= 1


def test_regions_are_seats_of_one_model_and_pull_where_they_are() -> None:
    regions = [
        {"name": "blip2"},
        {"name": "blip2", "label": "left", "region": "0,0,50%,100%", "prompt": "a red circle"},
        {"name": "blip2", "label": "right", "region": "50%,0,100%,100%", "prompt": "a blue square"},
    ]
    parts = load(settings={**FEW, "referees": regions}, device="cpu")
    assert parts.seats[0].referee is parts.seats[1].referee is parts.seats[2].referee
    result = generate("a red circle and a blue square", parts)
    assert not result.maps["left"][..., 32:].any()
    assert not result.maps["right"][..., :32].any()
    assert result.maps["left"][..., :32].any()
    assert result.maps["blip2"][..., 32:].any()


@pytest.mark.slow
def test_the_less_strength_the_nearer_to_the_picture() -> None:
    parts, (scene, init) = load(settings=SHORT, device="cpu"), picture()
    first, second = scene.things(0)
    wanted = str(Wanted((Thing((first.colour + 2) % 7, first.shape), second)))
    away = (world.cover(scene)[:, :1] == 0).expand(1, 3, -1, -1)

    def far(strength: float) -> float:
        made = generate(wanted, parts, init=init, strength=strength).images
        return (made - from_pillow(init))[away].abs().mean().item()

    near, middle, all_the_way = far(0.15), far(0.5), far(1.0)
    assert near < middle < all_the_way
    assert near < 0.6 * all_the_way
