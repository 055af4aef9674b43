"""The table: who plays when, on which views, for which prompt, and what becomes of a gradient between two turns."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Generator, Tensor

from referee import balance
from referee.contract import Losses, Memory, Prompt, Views
from referee.errors import NothingToJudge, OptionError, PluginError
from referee.inversion import Step, invert
from referee.result import numbers
from referee.rules import Rules
from referee.schedules import constant, linear
from referee.seat import Seat, read
from referee.testing import ToyAugmentation, ToyPrior, ToyReferee

RULES = Rules(steps=10, tail=2, update="sgd", lr=0.5, prior_weight=0.2, noise=0.05, tail_noise=0, views=3)


class Watched(ToyReferee):
    """Writes down what it reads and how many views it is shown each time."""

    def __init__(self, input_size: int = 8, factor: float = 1.0) -> None:
        super().__init__(input_size)
        self.factor, self.prompts, self.views = factor, list[str](), list[Tensor]()

    def read(self, prompt: Prompt) -> Callable[[Views], Losses]:
        self.prompts.append(prompt.text)
        plain = super().read(prompt)

        def loss(views: Views) -> Losses:
            self.views.append(views.detach().clone())
            return self.factor * plain(views)

        return loss


def play(*seats: Seat, rules: Rules = RULES, seeds: Sequence[int] = (3,), **more: Any) -> list[Step]:
    given: dict[str, Any] = {"augmentation": ToyAugmentation(), "size": (8, 8), **more}
    return list(invert("red", seats, ToyPrior(), rules=rules, seeds=seeds, **given))


def same(some: Sequence[Step], others: Sequence[Step]) -> bool:
    return all(torch.equal(a.z, b.z) for a, b in zip(some, others, strict=True))


# --- who has nothing to say -------------------------------------------------------------------------------------------


class Mute(Watched):
    """Judges nothing of any prompt."""

    def read(self, prompt: Prompt) -> Callable[[Views], Losses]:
        raise NothingToJudge(f"nothing in '{prompt.text}'")


def test_who_has_nothing_to_judge_sits_the_run_out_and_it_is_said() -> None:
    with pytest.warns(UserWarning, match="'place' sits the run out"):
        steps = play(Seat("toy", ToyReferee()), Seat("place", Mute(), weight=constant(4)))
    assert same(steps, play(Seat("toy", ToyReferee(), weight=linear(0.1, 1)))), (
        "weights are shares: one has all the say"
    )
    assert set(steps[0].losses) == {"toy"}


@pytest.mark.parametrize("weight", [0.0, 0.2])
def test_a_table_at_which_nobody_has_anything_to_judge_is_refused(weight: float) -> None:
    rules = RULES.model_copy(update={"prior_weight": constant(weight)})
    with pytest.raises(NothingToJudge, match="nothing in 'red'"):
        play(Seat("a", Mute()), Seat("b", Mute()), rules=rules)


# --- time -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("start", "until", "steps"),
    [(0.0, 1.0, range(8)), (0.3, 1.0, range(3, 8)), (0.0, 0.4, range(4)), (0.25, 0.55, range(3, 6)), (0.7, 0.8, [7])],
)
def test_a_referee_plays_in_its_time(start: float, until: float, steps: Sequence[int]) -> None:
    found = play(Seat("a", ToyReferee()), Seat("b", ToyReferee(4), start=start, until=until))
    assert [step.k for step in found if "b" in step.losses] == list(steps)
    assert [step.k for step in found if "b" in step.norms] == list(steps)


def test_a_schedule_goes_by_the_whole_run_whatever_the_time() -> None:
    late = Seat("b", ToyReferee(4), linear(1, 0), start=0.5)
    assert late.weight_at(5, 10) == 0.5
    assert late.weight_at(4, 10) == 0


@pytest.mark.parametrize(("every", "asked"), [(1, range(8)), (2, [0, 2, 4, 6]), (3, [0, 3, 6]), (20, [0])])
@pytest.mark.parametrize("between", ["reuse", "leave"])
def test_every_so_many_steps(every: int, asked: Sequence[int], between: Any) -> None:
    found = play(Seat("a", ToyReferee()), Seat("b", ToyReferee(4), every=every, between=between))
    assert [step.k for step in found if "b" in step.losses] == list(asked)
    assert [step.k for step in found if "b" in step.norms] == list(asked if between == "leave" else range(8))


def test_steps_are_counted_from_the_first_of_its_time() -> None:
    found = play(Seat("a", ToyReferee()), Seat("b", ToyReferee(4), start=0.3, every=3))
    assert [step.k for step in found if "b" in step.losses] == [3, 6]


def test_a_gradient_that_is_reused_is_the_last_one() -> None:
    given: list[Tensor] = []

    def spy(rows: dict[str, Tensor], weights: dict[str, Tensor], pull: Tensor | None) -> Tensor:
        given.append(rows["b"])
        return balance.norm(rows, weights, pull)

    seats = (Seat("a", ToyReferee()), Seat("b", ToyReferee(4), every=3))
    play(*seats, balancer=spy)
    assert all(torch.equal(given[k], given[k - k % 3]) for k in range(8))
    assert not torch.equal(given[0], given[3])


def test_who_was_never_asked_is_asked_whether_it_is_due_or_not() -> None:
    found = play(Seat("a", ToyReferee()), Seat("b", ToyReferee(4), linear(0, 1), every=4))  # no weight when it is due
    assert [step.k for step in found if "b" in step.losses] == [1, 4]


def test_a_memory_is_all_that_is_kept_and_a_run_begins_without() -> None:
    seats = (Seat("a", ToyReferee()), Seat("b", ToyReferee(4), every=3))
    memory: Memory = {}
    assert same(play(*seats, memory=memory), play(*seats))
    assert set(memory) == {"panel/b"}
    assert memory["panel/b"].shape == (1, 3, 4, 4)


# --- what it sees -----------------------------------------------------------------------------------------------------


def test_views_and_augmentation_of_its_own() -> None:
    names = {
        "shared": {},
        "more": {"views": 5},
        "plain": {"augmentation": None},
        "own": {"augmentation": ToyAugmentation(0)},
    }
    referees = {name: Watched() for name in names}
    play(*(Seat(name, referees[name], **options) for name, options in names.items()))  # type: ignore[arg-type]
    counts = {name: len(torch.cat(referee.views)) / 8 for name, referee in referees.items()}
    assert counts == {"shared": 3, "more": 5, "plain": 1, "own": 3}
    shared, more, plain, own = (torch.cat(r.views).view(8, -1, 3, 8, 8) for r in referees.values())
    assert torch.equal(shared, more[:, :3])  # equal augmentations see the same views
    assert torch.equal(own, plain.expand_as(own))
    assert not torch.equal(shared, own)


def test_views_of_equal_number_are_drawn_alike_at_any_size() -> None:
    class Recording:
        def __init__(self) -> None:
            self.draws: list[int] = []

        def __call__(self, x: Tensor, generators: Sequence[Generator]) -> Tensor:
            self.draws += [g.initial_seed() for g in generators]
            return x

    small, large = Recording(), Recording()
    play(Seat("a", ToyReferee(4), augmentation=small), Seat("b", ToyReferee(16), augmentation=large))
    assert small.draws == large.draws


def test_a_prompt_of_its_own() -> None:
    a, b = Watched(), Watched(4)
    play(Seat("a", a), Seat("b", b, prompt=Prompt("a blue ring")))
    assert (a.prompts, b.prompts) == (["red"], ["a blue ring"])


# --- who should not be satisfied --------------------------------------------------------------------------------------


def test_a_negative_referees_loss_is_what_is_missing_to_its_margin() -> None:
    seat = Seat("a", ToyReferee(), negative=True, margin=0.3)
    views = torch.stack([torch.full((3, 8, 8), v) for v in (0.2, 0.8)]).requires_grad_()
    plain = ToyReferee().read(Prompt("white"))(views)
    turned = read(seat, Prompt("white"))(views)
    torch.testing.assert_close(plain, torch.tensor([0.64, 0.04]))
    torch.testing.assert_close(turned, torch.tensor([0.0, 0.26]))
    (g,) = torch.autograd.grad(turned.sum(), views)
    assert (g[0] == 0).all()  # bad enough: it says no more
    assert (g[1] > 0).all()  # descent makes it darker


def test_by_default_a_grey_picture_is_bad_enough() -> None:
    loss = read(Seat("a", ToyReferee(), negative=True), Prompt("white"))
    grey, light, dark = (torch.full((1, 3, 8, 8), v) for v in (0.5, 0.75, 0.25))
    assert (loss(grey).item(), loss(dark).item()) == (0, 0)
    assert loss(light).item() == pytest.approx(0.25 - 0.0625)


def test_a_negative_referee_drives_away_and_then_sits_out() -> None:
    rules = RULES.model_copy(
        update={"prior_weight": constant(0), "noise": constant(0), "steps": 40, "lr": constant(0.1)}
    )
    seat = Seat("not red", ToyReferee(), negative=True, margin=0.6, augmentation=None)
    steps = play(seat, rules=rules)
    assert steps[0].losses["not red"] > 0.2
    assert steps[-1].losses["not red"] == 0
    assert steps[-1].sat_out["not red"].tolist() == [True]
    plain = ToyReferee().read(Prompt("red"))(steps[-1].image)
    assert 0.6 <= plain.item() < 0.65  # as bad as asked, and by no more than a step worse


def test_a_grey_picture_without_a_loss_needs_a_margin() -> None:
    with pytest.raises(PluginError, match="'a' finds a grey picture nan bad: give the negative referee a margin="):
        read(Seat("a", Watched(factor=float("nan")), negative=True), Prompt("red"))
    read(Seat("a", Watched(factor=float("nan")), negative=True, margin=1.0), Prompt("red"))


# --- nobody -----------------------------------------------------------------------------------------------------------


def test_steps_without_a_referee_are_the_priors_and_said_once() -> None:
    with pytest.warns(
        UserWarning, match="No referee plays at 4 of 8 steps, first at step 4: there only the prior"
    ) as said:
        steps = play(Seat("a", ToyReferee(), until=0.4), Seat("b", ToyReferee(4), constant(0)))
    assert len(said) == 1
    assert [bool(step.norms.keys() - {"prior"}) for step in steps] == [True] * 4 + [False] * 6
    assert all(step.agreement is None and step.cosines is None for step in steps[4:])
    assert all(step.z.isfinite().all() for step in steps)


def test_steps_where_nothing_moves_are_said() -> None:
    rules = RULES.model_copy(update={"prior_weight": constant(0)})
    with pytest.warns(UserWarning, match="No referee plays at 5 of 10 steps, first at step 1: there nothing but noise"):
        play(Seat("a", ToyReferee(), every=2, between="leave"), rules=rules)


def test_a_table_that_is_never_empty_warns_of_nothing() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        play(Seat("a", ToyReferee(), until=0.4), Seat("b", ToyReferee(4), start=0.4, every=5))
        play()  # nobody was asked for


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"start": 0.5, "until": 0.5}, r"'a' plays from 0\.5 until 0\.5; expected 0 <= from < until <= 1"),
        ({"start": -0.1}, r"from -0\.1 until 1"),
        ({"until": 1.5}, r"until 1\.5"),
        ({"every": 0}, "every and views must be at least 1"),
        ({"views": 0}, "every and views must be at least 1"),
    ],
)
def test_a_place_that_is_none_is_refused(options: dict[str, Any], text: str) -> None:
    with pytest.raises(OptionError, match=text):
        play(replace(Seat("a", ToyReferee()), **options))


# --- the image as the place to balance --------------------------------------------------------------------------------


class Counted(ToyPrior):
    """Counts how often its decoder is gone through backwards."""

    def __init__(self) -> None:
        super().__init__()
        self.backward = 0

    def decode(self, z: Tensor) -> Tensor:
        x = super().decode(z)
        if x.requires_grad:
            through = x * 1  # a node of its own between image and decoder
            x.register_hook(self._count)
            return through
        return x

    def _count(self, g: Tensor) -> None:
        self.backward += 1


@pytest.mark.parametrize(("space", "passes"), [("latent", 3 * 8), ("image", 8)])
def test_on_the_image_the_decoder_is_gone_through_once(space: Any, passes: int) -> None:
    prior = Counted()
    seats = [Seat(str(size), ToyReferee(size)) for size in (4, 5, 8)]
    list(invert("red", seats, prior, rules=RULES, space=space, size=(8, 8)))
    assert prior.backward == passes


def test_on_the_image_the_push_has_the_priors_length_times_what_agrees() -> None:
    rules = RULES.model_copy(update={"steps": 3, "noise": constant(0), "referee_weight": constant(1)})
    seats = [Seat("a", ToyReferee()), Seat("b", ToyReferee(4), prompt=Prompt("green"))]
    steps = play(*seats, rules=rules, space="image", seeds=(3, 8))
    (step,) = [s for s in steps if s.losses]
    z = torch.stack([torch.randn(3, 4, 4, generator=g) for g in _starts((3, 8))])
    moved = (z - step.z) / 0.5 - _pull(z)
    torch.testing.assert_close(
        balance.lengths(moved).float(), step.agreement * step.norms["prior"], rtol=1e-4, atol=1e-4
    )
    assert (step.agreement < 0.99).all()
    assert step.cosines is not None
    assert step.cosines.names == ("a", "b")  # the prior's pull is on the latent


def _starts(seeds: Sequence[int]) -> list[Generator]:
    from referee.randomness import generators

    return generators(seeds, 0, "start")


def _pull(z: Tensor) -> Tensor:
    from referee.contract import Progress
    from referee.randomness import generators

    return 0.2 * ToyPrior().read(Prompt("red"))(z, Progress(0, 3), generators((3, 8), 0, "prior"))


# --- what is told -----------------------------------------------------------------------------------------------------


def test_cosines_are_those_of_the_rows_and_the_pull() -> None:
    given: list[dict[str, Tensor]] = []

    def spy(rows: dict[str, Tensor], weights: dict[str, Tensor], pull: Tensor) -> Tensor:
        given.append({**rows, "prior": pull})
        return balance.norm(rows, weights, pull)

    seats = [Seat("a", ToyReferee()), Seat("b", ToyReferee(4), prompt=Prompt("green"))]
    steps = play(*seats, balancer=spy, seeds=(3, 8))
    for step, rows in zip(steps, given, strict=False):
        assert step.cosines is not None
        assert step.cosines.names == ("a", "b", "prior")
        flat = torch.stack([g.flatten(1) for g in rows.values()], 1)
        expected = torch.nn.functional.cosine_similarity(flat[:, :, None], flat[:, None], dim=-1)
        torch.testing.assert_close(step.cosines.matrix, expected, rtol=1e-4, atol=1e-5)
    found = numbers(steps[0])["cosines"]
    assert set(found) == {"a/b", "a/prior", "b/prior"}
    assert found["a/b"] == [round(v, 4) for v in steps[0].cosines.matrix[:, 0, 1].tolist()]  # type: ignore[union-attr]
    assert steps[-1].cosines is None


def test_who_sits_out_has_no_angle() -> None:
    steps = play(Seat("a", ToyReferee()), Seat("b", Watched(4, factor=0.0)), seeds=(3, 8))
    assert steps[0].cosines is not None
    assert steps[0].cosines.matrix[0].isnan().tolist() == [[False, True, False], [True] * 3, [False, True, False]]
    assert numbers(steps[0])["cosines"]["a/b"] == [None, None]


def test_maps_come_with_the_last_step_that_is_steered() -> None:
    class Corner(ToyReferee):
        def read(self, prompt: Prompt) -> Callable[[Views], Losses]:
            return lambda views: views[:, :, :4, :4].square().sum((1, 2, 3))

    for space in ("latent", "image"):
        steps = play(Seat("a", Corner()), Seat("b", ToyReferee(), until=0.5), seeds=(3, 8), space=space)
        assert [bool(step.maps) for step in steps] == [step.k == 7 for step in steps]
        maps = steps[7].maps
        assert set(maps) == {"a", "b", "prior"}
        assert all(m.shape == (2, 8, 8) and (m >= 0).all() for m in maps.values())
        assert (maps["a"][:, 4:] == 0).all()
        assert (maps["a"][:, :4, :4] > 0).all()


def test_the_priors_map_is_what_its_step_changes() -> None:
    rules = RULES.model_copy(update={"steps": 3, "noise": constant(0)})
    (step,) = [s for s in play(Seat("a", ToyReferee()), rules=rules, seeds=(3, 8)) if s.maps]
    z = torch.stack([torch.randn(3, 4, 4, generator=g) for g in _starts((3, 8))])
    expected = (ToyPrior().decode(z - 0.5 * _pull(z)) - ToyPrior().decode(z)).abs().sum(1)
    torch.testing.assert_close(step.maps["prior"], expected)


# --- what is refused, and what is said --------------------------------------------------------------------------------


def test_weights_of_nought_are_refused_whatever_the_prior_weighs() -> None:
    with pytest.raises(OptionError, match=r"'a' and 'b' can have no say: the weight is 0 all along"):
        play(Seat("a", ToyReferee(), constant(0)), Seat("b", ToyReferee(), weight=0))  # type: ignore[arg-type]


def test_who_is_left_by_those_with_nothing_to_judge_is_looked_at_again() -> None:
    with pytest.warns(UserWarning, match="'b' sits"), pytest.raises(OptionError, match="'a' can have no say"):
        play(Seat("a", ToyReferee(), constant(0)), Seat("b", Mute()))
    with pytest.warns(UserWarning, match="'b' sits") as told:
        play(Seat("a", ToyReferee(), start=0.5), Seat("b", Mute()))
    assert any("No referee plays at 5 of 8 steps" in str(one.message) for one in told)


def test_seats_read_numbers_and_texts_and_refuse_words_without_a_meaning() -> None:
    seat = Seat("a", ToyReferee(), weight=2, prompt="blue")  # type: ignore[arg-type]
    assert (seat.weight, seat.prompt) == (constant(2), Prompt("blue"))
    for wrong in ({"between": "hold"}, {"augmentation": "none"}, {"margin": 1.0}):
        with pytest.raises(OptionError, match=str(next(iter(wrong)))):
            Seat("a", ToyReferee(), **wrong)  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="no space 'imag'"):
        play(Seat("a", ToyReferee()), space="imag")
