"""Optimised noise: held against the formulas, written out with autograd and torch's own optimiser."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Generator, Tensor

from referee.bench.draws import DRAWS
from referee.bench.noise import clipped, length_gradient
from referee.bench.peers import Noise
from referee.contract import Denoise, FewStep, Image, Latent, Loss, Prompt, Views
from referee.errors import OptionError, PluginError
from referee.gradients import resize
from referee.inversion import Seat
from referee.parts import Parts
from referee.play import parts_of
from referee.randomness import normal
from referee.rules import Rules
from referee.schedules import constant
from referee.testing import ToyAugmentation, ToyPrior, ToyReferee

RED = Prompt("red")


class Spy(ToyPrior):
    """A toy prior whose few-step sampler bends, and remembers what it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.noises: list[Tensor] = []
        self.asked: list[tuple[str, int, float | None]] = []

    def denoiser(self, prompt: Prompt, steps: int, guidance: float | None = None) -> Denoise:
        self.asked.append((prompt.text, steps, guidance))

        def denoise(noise: Latent) -> Latent:
            self.noises.append(noise.detach().clone())
            return (noise + 0.3 * noise.roll(1, -1)).tanh()

        return denoise


def parts(*referees: Any, prior: Any = None, augmentation: Any = None, views: int = 2) -> Parts:
    rules = Rules(steps=10, tail=2, prior_weight=1, views=views, micro_batch=2)
    return parts_of(prior or Spy(), referees or [ToyReferee()], augmentation=augmentation, rules=rules, size=(16, 16))


def draw(made: Parts, seed: int = 0, prompt: Prompt = RED, **options: Any) -> Image:
    return DRAWS["noise"].draw(made, prompt, seed, Noise(**options))


def loss_of(x: Image, prompt: Prompt = RED) -> Tensor:
    return ToyReferee().read(prompt)(resize(x, 8))


@pytest.mark.parametrize(("clip", "regularisation"), [(0.1, 0.01), (1e9, 0.0), (0.02, 0.5)])
def test_it_is_the_formula(clip: float, regularisation: float) -> None:
    """Two referees of fixed weights, by backward(), clip_grad_norm_ and SGD."""
    blue, prior = Prompt("blue"), Spy()
    seats = [Seat("red", ToyReferee(), constant(0.7)), Seat("blue", ToyReferee(), constant(0.2), prompt=blue)]
    options = {"iterations": 12, "lr": 2.0, "clip": clip, "regularisation": regularisation}
    found = draw(parts(*seats, prior=prior), 5, **options)

    model, e = Spy(), normal((5,), 0, "sample", (3, 8, 8)).requires_grad_()
    optimiser, d = torch.optim.SGD([e], lr=2.0, momentum=0.9, nesterov=True), 192
    denoise, tried = model.denoiser(RED, 1), []
    for _ in range(12):
        optimiser.zero_grad()
        x = model.decode(denoise(e))
        reward = 0.7 * loss_of(x) + 0.2 * loss_of(x, blue)
        tried.append((reward.item(), x.detach()))
        length = e.norm()
        (reward.sum() + regularisation * (length**2 / 2 - (d - 1) * length.log())).backward()
        torch.nn.utils.clip_grad_norm_([e], clip)
        optimiser.step()
    for mine, theirs in zip(prior.noises, model.noises, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-5)
    assert (prior.noises[-1] - prior.noises[0]).abs().max() > 0.01
    torch.testing.assert_close(found, min(tried, key=lambda pair: pair[0])[1], atol=1e-5, rtol=1e-5)


def test_the_loss_falls_and_more_iterations_are_never_worse() -> None:
    losses = [loss_of(draw(parts(), iterations=n, lr=20.0)).item() for n in (1, 2, 5, 20, 60)]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < losses[0] / 2


def test_one_iteration_is_the_samplers_own_picture_of_the_plain_samples_noise() -> None:
    prior = Spy()
    noise = normal((3,), 0, "sample", (3, 8, 8))
    found = draw(parts(prior=prior), 3, iterations=1, steps=4, cfg=2.5)
    assert torch.equal(found, prior.decode(Spy().denoiser(RED, 4)(noise)))
    assert prior.asked == [("red", 4, 2.5)]


def test_the_same_seed_gives_the_same_picture() -> None:
    one, two, other = (draw(parts(augmentation=ToyAugmentation()), seed, iterations=6) for seed in (1, 1, 2))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)


def test_the_best_is_kept_not_the_last() -> None:
    """A step so long that every picture after the first is worse."""

    class Likes(ToyReferee):
        def read(self, prompt: Prompt) -> Loss:
            return lambda views: (views - 0.5).square().mean((1, 2, 3))

    prior = Spy()
    found = draw(parts(Likes(), prior=prior), iterations=8, lr=1e4, clip=1.0, regularisation=0)
    tried = torch.cat([Likes().read(RED)(resize(prior.decode(Spy().denoiser(RED, 1)(e)), 8)) for e in prior.noises])
    assert tried[-1] > tried.min()
    torch.testing.assert_close(Likes().read(RED)(resize(found, 8))[0], tried.min())


def test_the_length_is_that_of_noise_where_it_is_wanted() -> None:
    """|e|^2 is d - 1 at the likeliest length; the referee alone, who wants pure red, drives e far out."""

    def length(regularisation: float) -> float:
        prior, loud = Spy(), Seat("red", ToyReferee(), constant(100))
        draw(parts(loud, prior=prior), iterations=80, lr=0.03, clip=1e9, regularisation=regularisation)
        return prior.noises[-1].norm().item() / 191**0.5

    assert length(0.0) > 1.2
    assert length(1.0) == pytest.approx(1, abs=0.03)


def test_the_gradient_of_the_length_is_that_of_the_chi_distribution() -> None:
    """log p(r) of r = |e| among d normal numbers: that of r^2, which is chi-squared, with dr^2/dr."""
    e = 1.3 * torch.randn(2, 3, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    e.requires_grad_()
    square = e.square().sum((1, 2, 3))
    likelihood = torch.distributions.Chi2(torch.tensor(60.0, dtype=torch.float64)).log_prob(square)
    (want,) = torch.autograd.grad(-(likelihood + (2 * square.sqrt()).log()).sum(), e)
    torch.testing.assert_close(length_gradient(e.detach()), want)
    at_rest = e.detach() * (59 / square.detach()).sqrt()[:, None, None, None]
    assert length_gradient(at_rest).abs().max() < 1e-12


def test_each_row_is_clipped_for_itself() -> None:
    g = torch.tensor([3.0, 0.01, 0.0])[:, None, None, None] * torch.ones(3, 1, 2, 2)
    assert clipped(g, 0.5).flatten(1).norm(dim=1).tolist() == pytest.approx([0.5, 0.02, 0])


def test_views_are_the_runs_or_as_many_as_said_or_none() -> None:
    counts: list[int] = []

    class Counts(ToyAugmentation):
        def __call__(self, x: Image, generators: Sequence[Generator]) -> Views:
            counts.append(len(generators))
            return super().__call__(x, generators)

    many = Seat("many", ToyReferee(), views=5)
    for views, want in ((None, 2 + 5), (3, 3 + 3), (0, 0)):
        counts.clear()
        draw(parts(ToyReferee(), many, augmentation=Counts()), iterations=2, views=views)
        assert sum(counts) == 2 * want


def test_schedules_and_times_go_over_the_iterations() -> None:
    asked: list[str] = []

    class Notes(ToyReferee):
        def __init__(self, name: str) -> None:
            super().__init__()
            self.name = name

        def read(self, prompt: Prompt) -> Loss:
            inner = super().read(prompt)

            def loss(views: Views) -> Tensor:
                asked.append(self.name)
                return inner(views)

            return loss

    seats = [Seat("a", Notes("a")), Seat("late", Notes("late"), start=0.5), Seat("rare", Notes("rare"), every=2)]
    draw(parts(*seats), iterations=4)
    assert "".join(name[0] for name in asked) == "ar" + "a" + "alr" + "al"


def test_a_gradient_that_is_not_finite_never_reaches_the_noise() -> None:
    class Broken(ToyReferee):
        def read(self, prompt: Prompt) -> Loss:
            return lambda views: views.mean((1, 2, 3)) * torch.nan

    for seats in ([Broken()], [Seat("red", ToyReferee()), Seat("broken", Broken())]):
        prior = Spy()
        found = draw(parts(*seats, prior=prior), iterations=4)
        assert all(e.isfinite().all() for e in prior.noises)
        assert torch.equal(found, prior.decode(Spy().denoiser(RED, 1)(prior.noises[0])))  # no sum is a number
    assert not torch.equal(prior.noises[0], prior.noises[-1])


def test_who_cannot_is_refused() -> None:
    class OneWay:
        latent_shape, decode, read = ToyPrior.latent_shape, ToyPrior.decode, ToyPrior.read

    assert isinstance(ToyPrior(), FewStep)
    with pytest.raises(PluginError, match="no sampler with a gradient"):
        draw(parts(prior=OneWay()))
    with pytest.raises(OptionError, match="name a referee"):
        draw(parts(Seat("red", ToyReferee(), constant(0))))


def test_the_global_random_state_stays() -> None:
    before = torch.get_rng_state()
    draw(parts(augmentation=ToyAugmentation()), iterations=3)
    assert torch.equal(before, torch.get_rng_state())
