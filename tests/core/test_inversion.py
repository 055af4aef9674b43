"""The loop against Algorithm 1 written out by hand, and the promises that hold for any referee and prior."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Generator, Tensor

from referee.contract import Latent, Losses, Progress, Prompt, Pull, Views
from referee.errors import OptionError, PluginError
from referee.inversion import Seat, Step, invert
from referee.randomness import generator
from referee.rules import Rules
from referee.schedules import constant, cosine, linear
from referee.testing import ToyAugmentation, ToyPrior, ToyReferee

SIZE = (8, 8)
SHAPE = (3, 4, 4)
QUIET: dict[str, Any] = {"steps": 9, "tail": 2, "prior_weight": 0.1, "noise": 0, "tail_noise": 0, "views": 2}


class Fond:
    """A referee of its own mind, with a gradient that differs from pixel to pixel; ``factor`` multiplies its loss."""

    def __init__(self, phase: float = 0.0, factor: float = 1.0, size: int = 5) -> None:
        self.phase, self.factor, self.input_size = phase, factor, size

    def read(self, prompt: Prompt) -> Callable[[Views], Losses]:
        def loss(views: Views) -> Losses:
            wish = torch.linspace(0, 9, views[0].numel(), dtype=views.dtype).add(self.phase).sin().view(views.shape[1:])
            return self.factor * (views - wish).square().sum((1, 2, 3))

        return loss


class Poisoned(Fond):
    """Its loss, and so its gradient, is multiplied by ``poison`` for the samples in ``rows``."""

    def __init__(self, poison: float, rows: Sequence[int] = (0,)) -> None:
        super().__init__(2.0)
        self.poison, self.rows = poison, rows

    def read(self, prompt: Prompt) -> Callable[[Views], Losses]:
        plain = super().read(prompt)

        def loss(views: Views) -> Losses:
            factor = torch.ones(len(views))
            factor[list(self.rows)] = self.poison
            return plain(views) * factor

        return loss


class Shaky(ToyPrior):
    """A prior whose pull is not finite for sample 0 at every third step."""

    def read(self, prompt: Prompt) -> Pull:
        plain = super().read(prompt)

        def pull(z: Latent, progress: Progress, generators: Sequence[Generator]) -> Latent:
            g = plain(z, progress, generators)
            if progress.k % 3 == 1:
                g[0, 0, 0, 0] = torch.nan
            return g

        return pull


def play(seats: Sequence[Seat], seeds: Sequence[int] = (0,), prior: ToyPrior | None = None, **rules: Any) -> list[Step]:
    return list(
        invert(
            "red", seats, prior or ToyPrior(), rules=Rules(**{**QUIET, **rules}), augmentation=ToyAugmentation(),
            seeds=seeds, size=SIZE,
        )
    )  # fmt: skip


def randn(seed: int, step: int, role: str) -> Tensor:
    return torch.randn(SHAPE, generator=generator(seed, step, role))


def half_cosine(start: float, end: float, u: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * u)) / 2


class ByHand:
    """Algorithm 1 for one seed, from the paper and no line of the loop: own gradients, own Adam, own average."""

    steps, tail, views = 14, 3, 2
    decay, restarts = 0.8, (4, 7, 10)  # counted from 1: three, so that an aliased average would show
    w_a, w_b = 1.0, (2.0, 0.5)  # the second referee's weight falls linearly

    def __init__(self, update: str) -> None:
        self.released = update == "sgd"
        self.rules = Rules(
            steps=self.steps, tail=self.tail, update=update, lr=cosine(0.3, 0.1), views=self.views, micro_batch=3,
            referee_weight=linear(2, 1), prior_weight=cosine(0.8, 0.4), noise=0.05, tail_noise=0.02,
            ema_decay=self.decay, restart_from=4, restart_every=3, warm_up=4 if self.released else 0,
            prior_lr=constant(0.7) if self.released else None, gradient_noise=0.1 if self.released else 0,
            weight_decay=0 if self.released else 0.01,
        )  # fmt: skip

    def lr(self, k: int) -> float:
        if not self.released:
            return half_cosine(0.3, 0.1, k / 14)
        return 0.3 * (k + 1) / 4 if k < 4 else half_cosine(0.3, 0.1, (k - 4) / 10)

    def gradient(self, referee: Any, z: Tensor, seed: int, k: int) -> tuple[Tensor, Tensor]:
        z = z.clone().requires_grad_()
        x = ToyPrior().decode(z[None])
        x = torch.nn.functional.interpolate(x, (5, 5), mode="bilinear", antialias=True)
        loss = torch.stack(
            [
                referee.read(Prompt("red"))(ToyAugmentation()(x, [generator(seed, k, f"view {v}")]))[0]
                for v in range(self.views)
            ]
        ).mean()
        return loss.detach(), torch.autograd.grad(loss, z)[0]

    def run(self, seed: int) -> list[dict[str, Any]]:
        a, b = Fond(0.0), Fond(1.5, factor=30.0)
        z = randn(seed, 0, "start")
        ema, m, v = z.clone(), torch.zeros(SHAPE), torch.zeros(SHAPE)
        trace = []
        for k in range(self.steps):
            u, i = k / self.steps, k + 1
            row: dict[str, Any] = {}
            g_p = half_cosine(0.8, 0.4, u) * (z + 0.1 * randn(seed, k, "prior"))
            row["prior"] = g_p.norm()
            z_new = z
            if k < self.steps - self.tail:
                (row["loss a"], g_a), (row["loss b"], g_b) = (self.gradient(r, z, seed, k) for r in (a, b))
                row["norm a"], row["norm b"] = g_a.norm(), g_b.norm()
                w_b = self.w_b[0] + (self.w_b[1] - self.w_b[0]) * u
                mean = (self.w_a * g_a / g_a.norm() + w_b * g_b / g_b.norm()) / (self.w_a + w_b)
                row["agreement"] = mean.norm()
                g_r = (2 - u) * mean * g_p.norm()
                if self.released:
                    z_new = z - self.lr(k) * (g_r + 0.1 * randn(seed, k, "gradient noise"))
                else:
                    g = g_r + 0.01 * z
                    m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
                    z_new = z - self.lr(k) * (m / (1 - 0.9**i)) / ((v / (1 - 0.999**i)).sqrt() + 1e-8)
            z_new = z_new - (0.7 if self.released else self.lr(k)) * g_p
            z_new = z_new + (0.05 if k < self.steps - self.tail else 0.02) * randn(seed, k, "noise")
            ema = self.decay * ema + (1 - self.decay) * z_new
            z = ema if i in self.restarts else z_new
            trace.append({**row, "z": z})
        return trace


@pytest.mark.parametrize("update", ["adam", "sgd"])
def test_whole_runs_are_algorithm_1_by_hand(update: str) -> None:
    hand, seeds = ByHand(update), (3, 8)
    seats = [Seat("a", Fond(0.0)), Seat("b", Fond(1.5, factor=30.0), linear(2.0, 0.5))]
    steps = list(
        invert("red", seats, ToyPrior(), rules=hand.rules, augmentation=ToyAugmentation(), seeds=seeds, size=SIZE)
    )
    close = {"rtol": 1e-3, "atol": 1e-4}
    for n, seed in enumerate(seeds):
        for step, row in zip(steps, hand.run(seed), strict=True):
            torch.testing.assert_close(step.z[n], row["z"], **close)
            torch.testing.assert_close(step.norms["prior"][n], row["prior"], **close)
            assert set(step.losses) == {name[-1] for name in row if name.startswith("loss")}
            for name in step.losses:
                torch.testing.assert_close(step.losses[name][n], row[f"loss {name}"], **close)
                torch.testing.assert_close(step.norms[name][n], row[f"norm {name}"], **close)
            assert (step.agreement is None) == ("agreement" not in row)
            if step.agreement is not None:
                torch.testing.assert_close(step.agreement[n], row["agreement"], **close)


def test_image_is_decoded_from_the_latent_before_the_step() -> None:
    steps = play([Seat("a", Fond())])
    for before, after in pairwise(steps):
        torch.testing.assert_close(after.image, ToyPrior().decode(before.z))


def test_same_seed_same_pixels() -> None:
    once, again = (play([Seat("a", Fond())], seeds=(4,), noise=0.2) for _ in range(2))
    assert all(torch.equal(a.z, b.z) and torch.equal(a.image, b.image) for a, b in zip(once, again, strict=True))
    assert not torch.equal(once[-1].z, play([Seat("a", Fond())], seeds=(5,), noise=0.2)[-1].z)


@pytest.mark.parametrize("update", ["adam", "sgd"])
def test_a_sample_is_the_same_alone_and_in_a_batch(update: str) -> None:
    seats = [Seat("a", Fond()), Seat("b", Fond(1.0))]
    loud = {"noise": 0.2, "gradient_noise": 0.1, "tail_noise": 0.1, "update": update, "micro_batch": 4}
    together = play(seats, seeds=(2, 7, 4), **loud)
    for n, seed in enumerate((2, 7, 4)):
        for one, many in zip(play(seats, seeds=(seed,), **loud), together, strict=True):
            torch.testing.assert_close(one.z[0], many.z[n], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("micro_batch", [1, 3, 5])
def test_micro_batches_change_nothing(micro_batch: int) -> None:
    seats = [Seat("a", Fond())]
    a, b = (play(seats, seeds=(2, 7), micro_batch=m, views=3, update="sgd")[-1] for m in (6, micro_batch))
    torch.testing.assert_close(a.z, b.z, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("factor", [1e6, 1e-6])
@pytest.mark.parametrize("update", ["adam", "sgd"])
def test_a_loud_referee_has_no_more_say(update: str, factor: float) -> None:
    runs = [
        play([Seat("a", Fond()), Seat("b", Fond(1.0, f)), Seat("c", Fond(2.5))], update=update)[-1].z
        for f in (1.0, factor)
    ]
    torch.testing.assert_close(*runs, rtol=1e-3, atol=1e-4)


POISONS = [torch.nan, torch.inf, -torch.inf, 0.0]


@pytest.mark.parametrize("poison", POISONS)
@pytest.mark.parametrize("update", ["adam", "sgd"])
def test_a_bad_gradient_sits_out_and_the_others_go_on_with_the_full_push(update: str, poison: float) -> None:
    seats = [Seat("good", Fond()), Seat("bad", Poisoned(poison), constant(5.0))]
    shared, alone = (play(s, update=update, views=1, noise=0.1) for s in (seats, seats[:1]))
    for a, b in zip(shared, alone, strict=True):
        assert a.z.isfinite().all()
        torch.testing.assert_close(a.z, b.z, rtol=1e-5, atol=1e-5)
    for step in shared[:-2]:
        assert step.sat_out["bad"].tolist() == [True]
        assert step.sat_out["good"].tolist() == [False]
        assert step.norms["bad"].tolist() == [0.0]
        assert step.agreement is not None
        torch.testing.assert_close(step.agreement, torch.ones(1))


@pytest.mark.parametrize("poison", POISONS)
def test_alone_a_bad_referee_leaves_the_prior_to_play(poison: float) -> None:
    bad, nobody = (play(seats, update="sgd", views=1, noise=0.1) for seats in ([Seat("bad", Poisoned(poison))], []))
    assert all(torch.equal(a.z, b.z) for a, b in zip(bad, nobody, strict=True))


@pytest.mark.parametrize("poison", POISONS)
def test_a_bad_sample_stops_its_own_row_alone(poison: float) -> None:
    def seats(rows: Sequence[int]) -> list[Seat]:
        return [Seat("good", Fond()), Seat("bad", Poisoned(poison, rows))]

    # One view a sample and all in one portion: the rows that the referee sees are the samples.
    hurt, whole = (play(seats(rows), seeds=(2, 7, 4), update="sgd", views=1) for rows in ((1,), ()))
    good_alone = play(seats(())[:1], seeds=(2, 7, 4), update="sgd", views=1)
    for a, b, c in zip(hurt, whole, good_alone, strict=True):
        torch.testing.assert_close(a.z[[0, 2]], b.z[[0, 2]], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(a.z[1], c.z[1], rtol=1e-5, atol=1e-5)
    assert hurt[0].sat_out["bad"].tolist() == [False, True, False]
    assert not torch.allclose(hurt[-1].z[1], whole[-1].z[1], atol=1e-3)


def test_a_pull_that_is_not_finite_sits_out_for_its_sample() -> None:
    shaky, calm = (play([Seat("a", Fond())], seeds=(2, 7), prior=p, update="sgd") for p in (Shaky(), ToyPrior()))
    for before, step, plain in zip([shaky[0], *shaky], shaky, calm, strict=False):
        bad = step.k % 3 == 1
        assert step.z.isfinite().all()
        assert step.sat_out["prior"].tolist() == [bad, False]
        torch.testing.assert_close(step.z[1], plain.z[1])
        if bad:  # no pull, so no length for the push to take either: without noise the sample rests
            assert torch.equal(step.z[0], before.z[0])
            assert step.norms["prior"][0] == 0


def test_a_wrong_loss_names_its_referee() -> None:
    class Mean(Fond):
        def read(self, prompt: Prompt) -> Callable[[Views], Losses]:
            return lambda views: views.mean()

    class Cut(Fond):
        def read(self, prompt: Prompt) -> Callable[[Views], Losses]:
            return lambda views: views.detach().mean((1, 2, 3))

    for broken, text in ((Mean(), r"shape \(\) for 2 views"), (Cut(), "without gradient")):
        with pytest.raises(PluginError, match=f"'broken' gave a loss of .*{text}"):
            play([Seat("fine", Fond()), Seat("broken", broken)])


def test_a_pull_or_push_of_another_shape_is_refused() -> None:
    class Narrow(ToyPrior):
        def read(self, prompt: Prompt) -> Pull:
            return lambda z, progress, generators: z[:, :1]

    with pytest.raises(
        PluginError, match=r"The prior gave a gradient of shape \(1, 1, 4, 4\); expected \(1, 3, 4, 4\)"
    ):
        play([Seat("a", Fond())], prior=Narrow())
    parts = ("red", [Seat("a", Fond())], ToyPrior())
    with pytest.raises(PluginError, match=r"The balancer gave a gradient of shape \(1, 1, 1, 1\)"):
        list(invert(*parts, rules=Rules(**QUIET), balancer=lambda *given: torch.ones(1, 1, 1, 1), size=SIZE))


def test_restarts_copy_the_average_and_share_no_memory() -> None:
    rules = Rules(**{**QUIET, "steps": 12, "restart_from": 2, "restart_every": 2, "ema_decay": 0.5, "noise": 0.3})
    z = ema = randn(0, 0, "start")
    for k, step in enumerate(invert("red", [], ToyPrior(), rules=rules, size=SIZE)):
        z = z - half_cosine(1.0, 0.5, k / 12) * 0.1 * (z + 0.1 * randn(0, k, "prior"))
        z = z + (0.3 if k < 10 else 0) * randn(0, k, "noise")
        ema = 0.5 * ema + 0.5 * z  # had a restart tied the two together, this would follow z
        if k + 1 in (2, 4, 6, 8, 10):
            z = ema
        torch.testing.assert_close(step.z[0], z)


def test_what_a_caller_does_to_a_step_does_not_reach_the_run() -> None:
    runs = []
    for meddle in (False, True):
        zs = []
        for step in invert("red", [Seat("a", Fond())], ToyPrior(), rules=Rules(**QUIET), size=SIZE):
            zs.append(step.z.clone())
            if meddle:
                step.z.fill_(torch.nan)
                step.image.fill_(torch.nan)
        runs.append(zs)
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))


def test_without_a_prior_there_is_no_pull_and_no_tail() -> None:
    class Deaf(ToyPrior):
        def read(self, prompt: Prompt) -> Pull:
            raise AssertionError("a prior of weight 0 must not even read")

    steps = play([Seat("a", Fond())], prior=Deaf(), prior_weight=0)
    assert all(step.losses and "prior" not in step.norms and "prior" not in step.sat_out for step in steps)


def test_without_referees_the_prior_plays_alone() -> None:
    rules = Rules(**{**QUIET, "noise": 0.1, "tail_noise": 0.3})
    z = randn(6, 0, "start")
    for k, step in enumerate(invert("red", [], ToyPrior(), rules=rules, seeds=(6,), size=SIZE)):
        z = z - half_cosine(1.0, 0.5, k / 9) * 0.1 * (z + 0.1 * randn(6, k, "prior"))
        z = z + (0.1 if k < 7 else 0.3) * randn(6, k, "noise")
        torch.testing.assert_close(step.z[0], z)
        assert not step.losses
        assert step.agreement is None


def test_the_tail_follows_the_prior_alone() -> None:
    scored: list[int] = []

    class Counting(Fond):
        def read(self, prompt: Prompt) -> Callable[[Views], Losses]:
            plain = super().read(prompt)

            def loss(views: Views) -> Losses:
                scored.append(len(views))
                return plain(views)

            return loss

    steps = play([Seat("a", Counting())], steps=9, tail=4)
    assert [bool(step.losses) for step in steps] == [True] * 5 + [False] * 4
    assert sum(scored) == 5 * 2


def test_a_weight_schedule_that_reaches_nothing_is_not_asked() -> None:
    steps = play([Seat("a", Fond()), Seat("b", Fond(1.0), linear(0.0, 1.0))])
    assert "b" not in steps[0].losses
    assert "b" in steps[1].losses


def test_the_plain_image_is_scored_once_without_an_augmentation() -> None:
    seen: list[int] = []

    class Counting(Fond):
        def read(self, prompt: Prompt) -> Callable[[Views], Losses]:
            plain = super().read(prompt)

            def loss(views: Views) -> Losses:
                seen.append(len(views))
                return plain(views)

            return loss

    list(invert("red", [Seat("a", Counting())], ToyPrior(), rules=Rules(**{**QUIET, "views": 9}), size=SIZE))
    assert seen == [1] * 7


def test_a_balancer_of_ones_own_is_asked() -> None:
    calls: list[tuple[list[str], list[list[float]], bool]] = []

    def still(rows: dict[str, Tensor], weights: dict[str, Tensor], pull: Tensor | None) -> Tensor:
        calls.append((list(rows), [w.tolist() for w in weights.values()], pull is None))
        return torch.zeros_like(next(iter(rows.values())))

    seats = [Seat("a", Fond()), Seat("b", Poisoned(torch.nan), constant(3.0))]
    rules = Rules(**{**QUIET, "update": "sgd", "prior_weight": 0})
    steps = list(invert("red", seats, ToyPrior(), rules=rules, balancer=still, size=SIZE))
    assert calls == [(["a", "b"], [[1.0], [0.0]], True)] * 9
    assert torch.equal(steps[0].z, steps[-1].z)


def test_a_caller_without_gradients_gets_the_same_run() -> None:
    plain = play([Seat("a", Fond())])
    with torch.no_grad():
        inside = play([Seat("a", Fond())])
    assert torch.equal(plain[-1].z, inside[-1].z)


def test_images_of_any_fitting_size() -> None:
    rules = Rules(**QUIET)
    for step in invert("red", [Seat("a", ToyReferee())], ToyPrior(), rules=rules, size=(8, 16)):
        assert step.z.shape == (1, 3, 4, 8)
        assert step.image.shape == (1, 3, 8, 16)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "nobody": ({"seats": [], "prior_weight": 0}, "Nobody plays"),
    "nobody who weighs": ({"seats": [Seat("a", Fond(), constant(0))], "prior_weight": 0.1}, "'a' can have no say"),
    "twins": ({"seats": [Seat("a", Fond()), Seat("a", Fond())]}, "Two referees are called 'a'"),
    "called prior": ({"seats": [Seat("prior", Fond())]}, "cannot be called 'prior'"),
    "negative": ({"seats": [Seat("a", Fond(), linear(1, -1))]}, "The weight of 'a' falls to -1"),
    "no seeds": ({"seats": [Seat("a", Fond())], "seeds": ()}, "At least one seed"),
    "equal seeds": ({"seats": [Seat("a", Fond())], "seeds": (1, 1)}, "repeat"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_played_is_refused(case: str) -> None:
    arguments, text = REFUSED[case]
    with pytest.raises(OptionError, match=text):
        play(**arguments)


def test_a_size_that_does_not_fit_is_refused() -> None:
    with pytest.raises(OptionError, match="no size for the toy prior"):
        next(invert("red", [Seat("a", Fond())], ToyPrior(), rules=Rules(**QUIET), size=(9, 8)))
