"""The whole method with the real parts: trained referees, the diffusion prior, kornia's views."""

from __future__ import annotations

import pytest
import torch
from PIL import Image

from referee import generate, load, sample, score
from referee.inversion import invert
from referee.layers import merge, preset
from referee.plugins import discover
from referee.randomness import generator

SHORT = {"rules": {"steps": 24, "tail": 2, "views": 6, "noise": 0.03, "restart_every": 0}}
PROMPT = "a red circle and a blue striped square"


@pytest.fixture(scope="module")
def parts():
    return load(referees=["blip2", "clip"], settings=SHORT, device="cpu")


def test_two_referees_grow_content_within_a_few_steps(parts):
    result = generate(PROMPT, parts, seed=1)
    first, last = result.history[0], [h for h in result.history if h["losses"]][-1]
    for name in ("blip2", "clip"):
        assert last["losses"][name][0] < 0.7 * first["losses"][name][0]
    assert all(not row["sat_out"] for row in result.history)
    assert 0 <= min(row["agreement"][0] for row in result.history[:-2]) <= 1
    assert result.images.shape == (1, 3, 64, 64)
    assert result.images.std() > 0.01


def test_same_seed_same_pixels_and_alone_as_in_a_batch(parts):
    one, again = (generate(PROMPT, parts, seed=3).images for _ in range(2))
    assert torch.equal(one, again)
    batch = generate(PROMPT, parts, seed=2, n=3)
    assert batch.seeds == (2, 3, 4)
    # Convolutions of a batch round otherwise than of one image, and Adam carries it on: near, not equal.
    assert (batch.images[1] - one[0]).abs().mean() < 0.02
    assert (batch.images[1] - batch.images[0]).abs().mean() > 0.05


def test_one_step_is_the_same_for_every_micro_batch(parts):
    def first_step(size: int) -> torch.Tensor:
        rules = parts.rules.model_copy(update={"micro_batch": size})
        run = invert(PROMPT, parts.seats, parts.prior, rules=rules, augmentation=parts.augmentation, size=parts.size)
        return next(run)

    whole, small = first_step(6), first_step(1)
    for name in ("blip2", "clip"):
        assert torch.allclose(whole.losses[name], small.losses[name], rtol=1e-4)
        assert torch.allclose(whole.norms[name], small.norms[name], rtol=1e-3)


def test_the_prior_samples_and_every_referee_scores(parts, tmp_path):
    result = sample("a red circle", parts, n=2)
    assert result.images.shape == (2, 3, 64, 64)
    assert not torch.equal(result.images[0], result.images[1])
    path = tmp_path / "x.png"
    result.pictures[0].save(path)
    right, wrong = (score(path, text, parts.seats) for text in ("a red circle", "a black checkered heart"))
    assert right["blip2"] < wrong["blip2"]
    assert right["clip"] < wrong["clip"]
    assert Image.open(path).size == (64, 64)


def test_other_sizes_play(parts):
    import dataclasses

    wide = dataclasses.replace(parts, size=(64, 96), rules=parts.rules.model_copy(update={"steps": 4, "tail": 1}))
    assert generate("a red circle", wide).images.shape == (1, 3, 64, 96)


def test_the_gradient_on_the_latent_is_that_of_the_loss():
    """Finite differences through decoder, augmentation and BLIP-2, all trained; along the gradient."""
    from referee.gradients import ViewPlan, referee_gradient
    from referee.prompt import Prompt

    parts = load(referees=["blip2"], settings=SHORT, device="cpu")
    seat = parts.seats[0]
    loss = seat.referee.read(Prompt(PROMPT))
    plan = ViewPlan([5], 0, 2, 2, parts.augmentation)
    z = torch.randn(1, 8, 8, 8, generator=generator(5, 0, "start")).requires_grad_()
    _, g = referee_gradient(loss, 64, parts.prior.decode(z), z, plan, keep_graph=False)

    def value(at: torch.Tensor) -> float:
        return loss(plan.views(parts.prior.decode(at), plan.portions()[0])).mean().item()

    step = 2e-3 * g / g.norm()
    with torch.no_grad():
        slope = (value(z + step) - value(z - step)) / (2 * step.norm().item())
    assert slope == pytest.approx(g.norm().item(), rel=0.05)


def test_the_panel_puts_things_in_place_and_leaves_other_prompts_to_blip2():
    panel = load(settings=merge(preset("panel", discover()), SHORT), device="cpu")
    alone = load(settings={"rules": {**SHORT["rules"], "prior_weight": 20}}, device="cpu")
    with pytest.warns(UserWarning, match="'place' sits the run out"):
        result = generate(PROMPT, panel, seed=1)
    assert torch.equal(result.images, generate(PROMPT, alone, seed=1).images)
    placed = generate("a red circle above a blue striped square", panel, seed=1)
    assert set(placed.history[0]["losses"]) == {"blip2", "place"}
    assert placed.history[-3]["losses"]["place"][0] < 0.5 * placed.history[0]["losses"]["place"][0]
