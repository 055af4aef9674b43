"""Equal compute: the count is the models', and the number found is the one that costs nearest."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Generator

from referee.bench.compute import equal, of_draw
from referee.bench.draws import DRAWS
from referee.bench.peers import COUNTS
from referee.contract import Denoise, Image, Latent, Loss, Prompt
from referee.errors import OptionError
from referee.parts import Parts
from referee.play import parts_of
from referee.rules import Rules
from referee.testing import ToyPrior, ToyReferee

RED = Prompt("red")


class Costs(ToyPrior):
    """It multiplies 192 numbers by a matrix for each step, and for each decoding."""

    matrix = torch.eye(192)

    def turned(self, z: Latent) -> Latent:
        return (z.flatten(1) @ self.matrix).reshape(z.shape)

    def decode(self, z: Latent) -> Image:
        return super().decode(self.turned(z))

    def sample(self, prompt: Prompt, height: int, width: int, generators: Sequence[Generator]) -> Image:
        z = torch.stack([torch.randn(self.latent_shape(height, width), generator=g) for g in generators])
        return self.decode(self.turned(z))

    def denoiser(self, prompt: Prompt, steps: int, guidance: float | None = None) -> Denoise:
        def denoise(z: Latent) -> Latent:
            for _ in range(steps):
                z = self.turned(z)
            return z

        return denoise


class Looks(ToyReferee):
    """It multiplies a view's 192 numbers by a matrix."""

    def read(self, prompt: Prompt) -> Loss:
        inner, matrix = super().read(prompt), torch.eye(192)
        return lambda views: inner((views.flatten(1) @ matrix).reshape(views.shape))


ONE = 2 * 192 * 192
"""FLOPs of a row times the matrix."""
PARTS: Parts = parts_of(Costs(), [Looks()], rules=Rules(steps=5, tail=0, prior_weight=0, micro_batch=4), size=(16, 16))


@pytest.mark.parametrize("n", [1, 3, 7])
def test_a_sample_costs_its_steps_its_decoding_and_a_look(n: int) -> None:
    assert of_draw("sample", {}, PARTS, RED) == 2 * ONE
    assert of_draw("best-of", {"n": n}, PARTS, RED) == n * 3 * ONE


@pytest.mark.parametrize("steps", [1, 4])
def test_an_iteration_costs_all_there_and_back(steps: int) -> None:
    """The last one goes only as far back as the picture."""
    there, back = (steps + 1) * ONE + ONE, (steps + 1) * ONE
    for count in (1, 2, 5):
        flop = of_draw("noise", {"steps": steps, "iterations": count}, PARTS, RED)
        assert flop == count * (there + ONE) + (count - 1) * back


@pytest.mark.parametrize(("name", "options"), [("best-of", {}), ("noise", {"steps": 3})])
@pytest.mark.parametrize("flop", [1, 20 * ONE, 1000 * ONE])
def test_no_other_number_comes_nearer(name: str, options: dict[str, Any], flop: int) -> None:
    found = equal(name, options, PARTS, RED, flop)
    count = found.pop(COUNTS[name])
    assert found == options

    def miss(count: int) -> int:
        return abs(of_draw(name, {**options, COUNTS[name]: count}, PARTS, RED) - flop)

    assert all(miss(count) <= miss(other) for other in (count - 1, count + 1) if other > 0)


def test_what_cannot_be_set_or_counted_is_said() -> None:
    with pytest.raises(OptionError, match="No option of 'invert' sets what it costs"):
        equal("invert", {}, PARTS, RED, 1)
    with pytest.raises(OptionError, match="none of its models can be counted"):
        equal("best-of", {}, parts_of(ToyPrior(), [ToyReferee()], size=(16, 16)), RED, 1)
    with pytest.raises(OptionError, match="there is no 'm'"):
        of_draw("best-of", {"m": 2}, PARTS, RED)


def test_every_count_is_an_option() -> None:
    assert all(COUNTS[name] in DRAWS[name].options.model_fields for name in COUNTS)


def test_the_table_of_ways_imports_no_torch() -> None:
    code = "import sys, referee.bench.draws; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
