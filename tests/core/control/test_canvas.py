"""Runs that begin with a picture: what stays is the picture's own, bit for bit, and only what may change is moved."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any, Literal

import pytest
import torch
from PIL import Image as Pillow
from torch import Generator, Tensor

from referee.contract import Encoder, Image, Latent, Losses, Prior, Progress, Prompt, Pull, Views
from referee.control.canvas import Canvas
from referee.errors import OptionError
from referee.inversion import Seat, Step, invert
from referee.parts import Parts
from referee.pixels import from_pillow, to_pillow
from referee.play import begin_with, generate, parts_of, sample
from referee.randomness import normal
from referee.rules import Rules
from referee.schedules import constant
from referee.state import State
from referee.testing import ToyAugmentation, ToyPrior, ToyReferee
from referee.testing.probe import pictures

SIZE = (12, 16)
RULES: dict[str, Any] = {"steps": 10, "tail": 2, "prior_weight": 0.1, "views": 2, "restart_from": 3, "restart_every": 3}
INIT = (pictures(1, *SIZE, seed=3) * 255).round() / 255


def mask(*, soft: bool = False) -> Tensor:
    """The upper left corner, which ends inside of a latent cell; its rim is half free if it is soft."""
    free = torch.zeros(1, 1, *SIZE)
    free[..., :7, :5] = 1
    if soft:
        free[..., 6, :5] = 0.5
    return free


class Watching(ToyReferee):
    """Remembers all views."""

    def __init__(self) -> None:
        super().__init__(16)
        self.seen: list[Tensor] = []

    def read(self, prompt: Prompt) -> Callable[[Views], Losses]:
        plain = super().read(prompt)

        def loss(views: Views) -> Losses:
            self.seen.append(views.detach())
            return plain(views)

        return loss


class Wide(ToyPrior):
    """Its decoder paints far beyond a cell, and its pull is on all cells."""

    def decode(self, z: Latent) -> Image:
        return 0.8 * super().decode(z) + 0.2 * super().decode(z).mean((2, 3), keepdim=True)

    def encode(self, x: Image) -> Latent:
        return super().encode(x)

    def read(self, prompt: Prompt) -> Pull:
        def pull(z: Latent, progress: Progress, generators: Sequence[Generator]) -> Latent:
            return z - z.mean() + 0.3

        return pull


def play(prior: Prior, seats: Sequence[Seat] = (), **over: Any) -> list[Step]:
    rules = {**RULES, **over.pop("rules", {})}
    arguments: dict[str, Any] = {"seeds": (4, 5), "augmentation": ToyAugmentation(), **over}
    found = seats or [Seat("toy", ToyReferee(8)), Seat("other", ToyReferee(6), prompt=Prompt("blue"))]
    return list(invert("red", found, prior, rules=Rules(**rules), size=SIZE, **arguments))


def state(step: Step) -> State:
    assert step.state
    return step.state()


@pytest.mark.parametrize("space", ["latent", "image"])
@pytest.mark.parametrize("update", ["adam", "sgd"])
@pytest.mark.parametrize("soft", [False, True])
def test_outside_of_the_mask_all_is_the_pictures_own(
    space: Literal["latent", "image"], update: str, soft: bool
) -> None:
    """Pixels and latent, at each step, whatever moves the latent: noise on z and on the push, decay, restarts."""
    free = mask(soft=soft)
    canvas = Canvas(Wide(), INIT, mask=free)
    assert canvas.cells is not None
    kept, cells = (free == 0).expand(2, 3, -1, -1), (~canvas.cells).expand(2, 3, -1, -1)
    assert int(canvas.cells.sum()) == 4 * 3  # 7 x 5 pixels of cells of 2 x 2
    last = None
    for step in invert(
        "red", [Seat("toy", ToyReferee())], canvas, seeds=(1, 2), size=SIZE, space=space,
        rules=Rules(**{**RULES, "update": update, "weight_decay": 0.1, "gradient_noise": constant(0.2)}),
    ):  # fmt: skip
        assert torch.equal(step.image[kept], INIT.expand(2, -1, -1, -1)[kept])
        assert torch.equal(step.z[cells], canvas.latent.expand(2, -1, -1, -1)[cells])
        assert torch.equal(state(step).ema[cells], canvas.latent.expand(2, -1, -1, -1)[cells])
        assert all(not found[:, (free == 0)[0, 0]].any() for found in step.maps.values())
        last = step
    assert last is not None
    inside = free.expand(2, 3, -1, -1) > 0
    assert (last.image - INIT)[inside].abs().mean() > 0.05
    assert (last.z - canvas.latent)[~cells].abs().mean() > 0.3


def test_the_final_picture_keeps_the_files_pixels_in_8_bits() -> None:
    picture = to_pillow(INIT[0])
    cover = Pillow.new("L", picture.size, 0)
    cover.paste(255, (3, 2, 9, 8))
    parts = parts_of(ToyPrior(), [ToyReferee()], rules=Rules(**RULES), size=SIZE)
    result = generate("red", parts, n=2, init=picture, mask=cover)
    assert len(result.history) == result.steps == 10  # with a mask all steps are played
    outside = from_pillow(cover.convert("RGB"))[0] == 0
    for made in result.pictures:
        assert torch.equal(from_pillow(made)[0][outside], from_pillow(picture)[0][outside])
        assert not torch.equal(from_pillow(made), from_pillow(picture))


@pytest.mark.parametrize("space", ["latent", "image"])
def test_gradients_lengths_and_balance_are_of_what_may_change(space: Literal["latent", "image"]) -> None:
    """A referee that cares for what stays has nothing to say, and sits out; it takes no length from the others."""

    class Far(ToyReferee):
        def read(self, prompt: Prompt) -> Callable[[Views], Losses]:
            plain = super().read(prompt)
            return lambda views: plain(views[..., 8:, 8:])  # far from the mask: after resizing, too

    seats = [Seat("near", ToyReferee(16)), Seat("far", Far(16))]
    canvas = Canvas(ToyPrior(), INIT, mask=mask())
    both = play(canvas, seats, space=space, augmentation=None)
    assert all(bool(step.sat_out["far"].all()) for step in both[:8])
    assert not any(bool(step.sat_out["near"].any()) for step in both[:8])
    alone = play(canvas, seats[:1], space=space, augmentation=None)
    assert all(torch.equal(one.z, other.z) for one, other in zip(both, alone, strict=True))


def test_the_pull_is_masked_and_its_length_too() -> None:
    canvas = Canvas(Wide(), INIT, mask=mask())
    assert canvas.cells is not None
    z = normal([0, 1], 0, "z", (3, 6, 8))
    pull = canvas.read(Prompt("red"))(z, Progress(0, 10), [])
    whole = canvas.prior.read(Prompt("red"))(z, Progress(0, 10), [])
    cells = canvas.cells.expand_as(z)
    assert torch.equal(pull[cells], whole[cells])
    assert not pull[~cells].any()


def test_referees_see_what_is_kept() -> None:
    watching = Watching()
    play(Canvas(Wide(), INIT, mask=mask()), [Seat("toy", watching)], augmentation=None, seeds=(0,))
    square = torch.nn.functional.interpolate(INIT, (16, 16), mode="bilinear", antialias=True, align_corners=False)
    assert all(torch.allclose(views[..., 12:, 8:], square[..., 12:, 8:], atol=1e-6) for views in watching.seen)


def test_what_is_not_finite_outside_of_the_mask_does_no_harm() -> None:
    class Broken(ToyPrior):
        def decode(self, z: Latent) -> Image:
            x = super().decode(z)
            return torch.where(torch.arange(x.shape[-1]) > 10, torch.nan, x)

    last = play(Canvas(Broken(), INIT, mask=mask()), seeds=(0,))[-1]
    assert last.image.isfinite().all()
    assert last.z.isfinite().all()


def test_strength_1_is_an_ordinary_run_bit_for_bit() -> None:
    plain, begun = play(ToyPrior()), play(Canvas(ToyPrior(), INIT, strength=1.0))
    assert [step.k for step in begun] == list(range(10))
    assert all(torch.equal(one.z, other.z) for one, other in zip(plain, begun, strict=True))


@pytest.mark.parametrize(("strength", "first"), [(1.0, 0), (0.75, 2), (0.5, 5), (0.3, 7), (0.25, 8)])
def test_strength_is_the_noise_and_the_share_of_the_steps(strength: float, first: int) -> None:
    canvas = Canvas(ToyPrior(), INIT, strength=strength)
    rules = Rules(**{**RULES, "tail": 1})
    steps = list(invert("red", [Seat("toy", ToyReferee())], canvas, rules=rules, seeds=(4,), size=SIZE))
    assert [step.k for step in steps] == list(range(first, 10))
    noise = normal([4], 0, "start", (3, 6, 8))
    expected = (1 - strength**2) ** 0.5 * canvas.latent + strength * noise
    assert torch.allclose(canvas.start(noise), expected)
    assert torch.equal(steps[0].image, ToyPrior().decode(canvas.start(noise)))


def test_the_less_strength_the_nearer() -> None:
    def far(strength: float) -> float:
        last = play(Canvas(ToyPrior(), INIT, strength=strength), rules={"steps": 40})[-1]
        return (last.image - INIT).abs().mean().item()

    distances = [far(strength) for strength in (0.1, 0.3, 0.6, 1.0)]
    assert distances == sorted(distances)


@pytest.mark.parametrize("space", ["latent", "image"])
@pytest.mark.parametrize("strength", [0.6, 1.0])
def test_a_run_goes_on_bit_for_bit(strength: float, space: Literal["latent", "image"]) -> None:
    canvas = Canvas(ToyPrior(), INIT, strength=strength, mask=mask(soft=True))
    whole: list[tuple[Step, State]] = []
    seats = [Seat("toy", ToyReferee(), every=2), Seat("other", ToyReferee(6), prompt=Prompt("blue"))]

    def run(at: State | None = None) -> list[tuple[Step, State]]:
        steps = invert("red", seats, canvas, rules=Rules(**RULES), seeds=(1, 2), size=SIZE, space=space, state=at)
        return [(step, state(step)) for step in steps]

    whole = run()
    for cut in range(len(whole) - 1):
        rest = run(State.from_tensors(whole[cut][1].to_tensors()))
        assert len(rest) == len(whole) - cut - 1
        assert all(torch.equal(a.z, b.z) and torch.equal(a.image, b.image) and a.k == b.k
                   for (a, _), (b, _) in zip(rest, whole[cut + 1 :], strict=True))  # fmt: skip


def test_a_picture_is_the_same_in_any_batch() -> None:
    canvas = Canvas(ToyPrior(), INIT, strength=0.7, mask=mask())
    together, alone = play(canvas, seeds=(4, 5))[-1], play(canvas, seeds=(5,))[-1]
    assert torch.allclose(together.image[1], alone.image[0], atol=1e-5)


def test_what_does_not_fit_is_refused() -> None:
    class Blind:
        """A prior that cannot encode."""

        def __init__(self) -> None:
            toy = ToyPrior()
            self.latent_shape, self.decode, self.read, self.sample = toy.latent_shape, toy.decode, toy.read, toy.sample

    assert isinstance(Blind(), Prior)
    assert not isinstance(Blind(), Encoder)
    for message, make in {
        "No run of a Blind can begin with a picture, as it cannot encode": lambda: Canvas(Blind(), INIT),
        "begins with one picture": lambda: Canvas(ToyPrior(), INIT.expand(2, -1, -1, -1)),
        "must be \\(1, 1, 12, 16\\)": lambda: Canvas(ToyPrior(), INIT, mask=torch.ones(1, 1, 12, 12)),
        "The mask is empty": lambda: Canvas(ToyPrior(), INIT, mask=torch.zeros(1, 1, *SIZE)),
        "is no size for the toy prior": lambda: Canvas(ToyPrior(), INIT[..., :15]),
        "The run is of 8 x 8 pixels": lambda: next(invert("red", [], Canvas(ToyPrior(), INIT), size=(8, 8))),
        "strength 0 must be above 0": lambda: play(Canvas(ToyPrior(), INIT, strength=0)),
        "strength 1.5 must be": lambda: play(Canvas(ToyPrior(), INIT, strength=1.5)),
        "no step of 10, of which the last 2 are the prior's alone: the least is 0.3":
            lambda: play(Canvas(ToyPrior(), INIT, strength=0.1)),
    }.items():  # fmt: skip
        with pytest.raises(OptionError, match=message):
            make()
    assert len(play(Canvas(ToyPrior(), INIT, strength=0.3))) == 3
    blind = parts_of(Blind(), [ToyReferee()], rules=Rules(**RULES), size=SIZE)
    assert generate("red", blind).complete
    assert sample("red", blind).z.numel() == 0


def test_nobody_plays_is_said_of_the_steps_that_are_played() -> None:
    early = [Seat("toy", ToyReferee(), until=0.4)]
    with pytest.warns(UserWarning, match="No referee plays at 3 of 3 steps, first at step 5"):
        play(Canvas(ToyPrior(), INIT, strength=0.5), early)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        play(Canvas(ToyPrior(), INIT, strength=0.5), [Seat("toy", ToyReferee(), start=0.5)])


def parts() -> Parts:
    return parts_of(ToyPrior(), [ToyReferee()], rules=Rules(**RULES), size=SIZE)


def test_a_file_a_picture_and_a_tensor_begin_the_same_run(tmp_path: Any) -> None:
    picture, cover = to_pillow(INIT[0]), to_pillow(mask().expand(1, 3, -1, -1)[0]).convert("L")
    picture.save(tmp_path / "init.png")
    cover.save(tmp_path / "mask.png")
    given: list[tuple[Any, Any]] = [
        (tmp_path / "init.png", tmp_path / "mask.png"), (str(tmp_path / "init.png"), cover), (picture, cover),
        (INIT, mask()),
    ]  # fmt: skip
    made = [generate("red", parts(), seed=3, init=one, mask=other, strength=0.8).images for one, other in given]
    assert all(torch.equal(one, made[0]) for one in made)
    again = begin_with(begin_with(parts(), picture), INIT, 0.8, mask())  # in the first one's place
    assert torch.equal(generate("red", again, seed=3).images, made[0])
    assert torch.equal(sample("red", again).images, sample("red", parts()).images)
    assert len(generate("red", parts(), init=picture).history) == 5  # the default without a mask


def test_what_cannot_begin_a_run_is_refused(tmp_path: Any) -> None:
    picture = to_pillow(INIT[0])
    for message, given in {
        "give init as well": {"mask": picture},
        "strength and mask are of a picture": {"strength": 0.5},
        "init: .*nothing.png is not there": {"init": tmp_path / "nothing.png"},
        "mask: .*nothing.png is not there": {"init": picture, "mask": str(tmp_path / "nothing.png")},
        "give the mask as one, too": {"init": INIT, "mask": picture},
        "give init as one, too": {"init": picture, "mask": mask()},
        "8 x 8 pixels and the picture 16 x 12": {"init": picture, "mask": Pillow.new("L", (8, 8), 255)},
        "The run is of 12 x 16 pixels, the picture": {"init": INIT[..., :8]},
    }.items():
        with pytest.raises(OptionError, match=message):
            generate("red", parts(), **given)  # type: ignore[arg-type]
