"""The best of N plain samples: who is a candidate, and who is taken."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Generator, Tensor

from referee.bench.draws import DRAWS
from referee.bench.peers import BestOf
from referee.contract import Image, Loss, Losses, Prompt, Views
from referee.control.canvas import Canvas
from referee.control.region import Region
from referee.errors import OptionError, PluginError
from referee.gradients import resize
from referee.inversion import Seat
from referee.parts import Parts
from referee.play import parts_of, sample_seeds
from referee.randomness import generator
from referee.rules import Rules
from referee.schedules import Schedule, constant
from referee.testing import ToyAugmentation, ToyPrior, ToyReferee

RED = Prompt("red")


class Bright(ToyPrior):
    """A toy prior whose samples lie far apart, and whose two halves are of two colours."""

    def sample(self, prompt: Prompt, height: int, width: int, generators: Sequence[Generator]) -> Image:
        c, h, w = self.latent_shape(height, width)
        halves = torch.stack([3 * torch.randn(c, 1, 2, generator=g) for g in generators])
        return self.decode(halves.repeat_interleave(w // 2, -1).expand(-1, -1, h, -1))


def parts(*referees: Any, prior: Any = None, augmentation: Any = None, micro_batch: int = 3) -> Parts:
    rules = Rules(steps=10, tail=0, prior_weight=0, views=2, micro_batch=micro_batch)
    return parts_of(
        prior or Bright(), referees or [ToyReferee()], augmentation=augmentation, rules=rules, size=(16, 16)
    )  # fmt: skip


def best(made: Parts, seed: int = 0, prompt: Prompt = RED, **options: Any) -> Image:
    return DRAWS["best-of"].draw(made, prompt, seed, BestOf(**options))


def candidates(seed: int, count: int) -> Image:
    return torch.cat([Bright().sample(RED, 16, 16, [generator(seed, i, "sample")]) for i in range(count)])


def loss_of(x: Image, prompt: Prompt = RED, size: int = 8) -> Losses:
    return ToyReferee(size).read(prompt)(resize(x, size))


def test_one_sample_is_the_plain_sample() -> None:
    for seed in (0, 7):
        assert torch.equal(best(parts(), seed, n=1), sample_seeds(RED, parts(), (seed,)).images)


@pytest.mark.parametrize("n", [2, 5, 11])
def test_the_least_loss_is_taken(n: int) -> None:
    for seed in range(3):
        x = candidates(seed, n)
        assert torch.equal(best(parts(), seed, n=n)[0], x[loss_of(x).argmin()])


def test_more_samples_are_never_worse() -> None:
    losses = [loss_of(best(parts(), n=n)).item() for n in range(1, 12)]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < losses[0]


def test_it_hangs_on_the_seed_and_not_on_the_batch() -> None:
    drawn = [best(parts(micro_batch=size), 4, n=8) for size in (1, 3, 8, 100, 3)]
    assert all(torch.equal(x, drawn[0]) for x in drawn)
    assert not torch.equal(best(parts(), 5, n=8), drawn[0])


def test_batches_are_no_larger_than_said() -> None:
    sizes: list[int] = []

    class Counts(Bright):
        def sample(self, prompt: Prompt, height: int, width: int, generators: Sequence[Generator]) -> Image:
            sizes.append(len(generators))
            return super().sample(prompt, height, width, generators)

    best(parts(prior=Counts(), micro_batch=3), n=8)
    assert sizes == [3, 3, 2]


def test_every_candidate_is_judged_on_the_same_views() -> None:
    seen: list[list[int]] = []

    class Spy(ToyAugmentation):
        def __call__(self, x: Image, generators: Sequence[Generator]) -> Views:
            seen.append([g.initial_seed() for g in generators])
            return super().__call__(x, generators)

    best(parts(augmentation=Spy(), micro_batch=4), n=4, views=2)
    together = [seed for portion in seen for seed in portion]
    assert len(together) == 8
    assert together == together[:2] * 4
    seen.clear()
    best(parts(augmentation=Spy()), n=4, views=0)
    assert not seen


def test_views_decide() -> None:
    """The same candidates, turned to their opposite by an augmentation: another one is best."""

    class Negative:
        def __call__(self, x: Image, generators: Sequence[Generator]) -> Views:
            return 1 - x

    x = candidates(0, 6)
    assert torch.equal(best(parts(augmentation=Negative()), n=6, views=3)[0], x[loss_of(1 - x).argmin()])
    assert torch.equal(best(parts(augmentation=Negative()), n=6)[0], x[loss_of(x).argmin()])


def test_weights_prompts_and_regions_are_those_of_the_table() -> None:
    x = candidates(0, 8)
    blue, left = Prompt("blue"), Region((0, 0, 8, 16))
    seats = [
        Seat("red", ToyReferee(), constant(1)),
        Seat("blue", ToyReferee(), constant(3), prompt=blue),
        Seat("left", ToyReferee(), constant(2), region=left),
    ]
    want = (loss_of(x) + 3 * loss_of(x, blue) + 2 * loss_of(left.crop(x))) / 6
    assert torch.equal(best(parts(*seats), n=8)[0], x[want.argmin()])


def test_a_weight_is_its_mean_over_a_run_and_0_is_not_asked() -> None:
    def never(views: Views) -> Losses:
        raise AssertionError("asked")

    class Silent(ToyReferee):
        def read(self, prompt: Prompt) -> Loss:
            return never

    late = Seat("late", ToyReferee(), constant(9), start=0.5, prompt=Prompt("blue"))  # 4.5 over the run
    seats = [Seat("red", ToyReferee(), Schedule("linear", 2.0, 0.0)), late, Seat("silent", Silent(), constant(0))]
    x = candidates(3, 9)
    want = 1.1 * loss_of(x) + 4.5 * loss_of(x, Prompt("blue"))  # 1.1: steps 0 to 9 of 10
    assert torch.equal(best(parts(*seats), 3, n=9)[0], x[want.argmin()])


def test_what_is_no_number_is_never_best() -> None:
    x = candidates(0, 6)
    least = loss_of(x).argmin()

    class Shy(ToyReferee):
        def read(self, prompt: Prompt) -> Loss:
            inner = super().read(prompt)
            return lambda views: inner(views).where(inner(views) > loss_of(x).min() + 1e-4, torch.nan)

    found = best(parts(Shy()), n=6)[0]
    second = loss_of(x).argsort()[1]
    assert torch.equal(found, x[second])
    assert second != least

    class Lost(ToyReferee):
        def read(self, prompt: Prompt) -> Loss:
            return lambda views: views.mean((1, 2, 3)) * torch.nan

    assert torch.equal(best(parts(Lost()), n=6)[0], x[0])


def test_it_begins_with_no_picture() -> None:
    canvas = Canvas(Bright(), torch.zeros(1, 3, 16, 16), strength=0.5)
    assert torch.equal(best(parts(prior=canvas), n=3), best(parts(), n=3))


def test_who_cannot_is_refused() -> None:
    class NoSampler:
        latent_shape, decode, read = Bright.latent_shape, Bright.decode, Bright.read

    with pytest.raises(OptionError, match="name a referee"):
        best(parts(Seat("red", ToyReferee(), constant(0))), n=2)
    with pytest.raises(PluginError, match="no plain sampling"):
        best(parts(prior=NoSampler()), n=2)

    class Wide(ToyReferee):
        def read(self, prompt: Prompt) -> Loss:
            return lambda views: views.mean((2, 3))

    with pytest.raises(PluginError, match=r"'Wide' gave a loss of shape \(2, 3\) for 2 views"):
        best(parts(Wide()), n=2)


def test_the_picture_is_on_the_cpu_in_range_and_detached() -> None:
    x: Tensor = best(parts(), n=3)
    assert x.shape == (1, 3, 16, 16)
    assert not x.requires_grad
    assert 0 <= float(x.min()) <= float(x.max()) <= 1
