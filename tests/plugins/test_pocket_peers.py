"""The peers of inversion on the pocket zoo's own models: what they cost, and that they do what they are for."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from typing import Any

import pytest
import tomli_w
import torch

from referee.bench.compute import equal, of_draw, of_run
from referee.bench.draws import DRAWS
from referee.bench.methods import prepare
from referee.bench.peers import COUNTS, BestOf, Noise
from referee.contract import FewStep, Image
from referee.layers import preset
from referee.parts import Parts, assemble, check
from referee.play import sample_seeds
from referee.plugins import discover
from referee.prompt import Prompt
from referee.randomness import generator, normal
from referee.settings import build
from referee_pocket import BenchOptions
from referee_pocket.bench import PocketBench

REGISTRY = discover()
PROMPT = Prompt("a red circle and a blue striped square")
METHODS = {name: PocketBench(BenchOptions()).methods()[name] for name in ("best-of", "noise-1", "noise-4", "noise-8")}
PRESET = build([preset("pocket", REGISTRY), {"device": "cpu"}])


@pytest.fixture(scope="module")
def parts() -> Parts:
    torch.set_num_threads(1)
    return assemble(check(PRESET, REGISTRY, PROMPT))


@torch.no_grad()
def loss_of(parts: Parts, x: Image) -> float:
    return float(parts.seats[0].referee.read(PROMPT)(x))


@pytest.mark.parametrize("method", METHODS)
def test_a_method_costs_what_a_run_of_the_preset_costs(parts: Parts, method: str) -> None:
    assert METHODS[method].keys() == {"zoo", "draw"}
    draw: dict[str, Any] = METHODS[method]["draw"]
    name, options = draw["name"], dict(draw["options"])
    count = options.pop(COUNTS[name])
    assert equal(name, options, parts, PROMPT, of_run(PRESET, REGISTRY, PROMPT)) == {**options, COUNTS[name]: count}


def test_how_they_draw_can_be_written_into_a_picture() -> None:
    """As TOML, which has no null: options that are not given are left out."""
    bench = PocketBench(BenchOptions(n=1))
    for method in prepare(METHODS, bench.items(), REGISTRY, zoo="pocket"):
        draw = tomllib.loads(tomli_w.dumps(method.maker.draw))
        assert draw == {"name": draw["name"], **method.options.model_dump(exclude_none=True)}


def test_the_forecast_is_what_a_run_computes(parts: Parts) -> None:
    """Under the same meter, step by step, with augmentations and balancing; what is done once is less than a step."""
    drawn, told = [], []
    for steps in (4, 6):
        rules = PRESET.rules.model_copy(update={"steps": steps, "tail": 2})
        drawn.append(of_draw("invert", {}, replace(parts, rules=rules), PROMPT))
        told.append(of_run(PRESET.model_copy(update={"rules": rules}), REGISTRY, PROMPT))
    assert drawn[1] - drawn[0] == pytest.approx(told[1] - told[0], rel=1e-3)
    assert 0 < drawn[0] - told[0] < (told[1] - told[0]) / 2


def test_the_best_of_a_few(parts: Parts) -> None:
    way, seed = DRAWS["best-of"], 11
    assert torch.equal(way.draw(parts, PROMPT, seed, BestOf(n=1)), sample_seeds(PROMPT, parts, (seed,)).images)
    drawn = [parts.prior.sample(PROMPT, 64, 64, [generator(seed, i, "sample")]) for i in range(4)]
    best = min(drawn, key=lambda x: loss_of(parts, x))
    torch.testing.assert_close(way.draw(parts, PROMPT, seed, BestOf(n=4)), best, atol=1e-4, rtol=0)


def test_optimised_noise_pleases_the_referee(parts: Parts) -> None:
    options = Noise(steps=4, iterations=12, lr=4.0, views=0)
    assert isinstance(parts.prior, FewStep)
    noise = normal((3,), 0, "sample", parts.prior.latent_shape(64, 64))
    with torch.no_grad():
        before = parts.prior.decode(parts.prior.denoiser(PROMPT, 4)(noise))
    after = DRAWS["noise"].draw(parts, PROMPT, 3, options)
    assert loss_of(parts, after) < loss_of(parts, before) - 0.2
    assert torch.equal(after, DRAWS["noise"].draw(parts, PROMPT, 3, options))
