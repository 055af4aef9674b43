"""The Python door: results, interruption, scores, pictures in and out."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from referee.contract import Image as Images
from referee.contract import Losses, Prompt, Viewer, Views
from referee.errors import NothingToJudge, OptionError, PluginError, PromptError
from referee.hooks import Spec, ZooSpec, hookimpl
from referee.inversion import Seat, Step, invert
from referee.parts import Parts
from referee.pixels import from_pillow, to_pillow
from referee.play import generate, load, parts_of, sample, score
from referee.plugins import Registry
from referee.result import Result, Standing, numbers
from referee.rules import Rules
from referee.schedules import Schedule, constant
from referee.testing import ToyAugmentation, ToyPrior, ToyReferee

RULES = Rules(steps=12, tail=2, prior_weight=0.1, lr=0.3, noise=0.05, views=2)


def toys(*referees: Any, rules: Rules = RULES) -> Parts:
    return parts_of(
        ToyPrior(), referees or [ToyReferee()], augmentation=ToyAugmentation(), rules=rules, size=(16, 24)
    )  # fmt: skip


def test_a_result_is_the_last_latent_decoded() -> None:
    parts, seen = toys(), []
    result = generate("  a red  square ", parts, seed=3, n=2, on_step=seen.append)
    assert result.complete
    assert result.prompt == Prompt("a red square")
    assert result.seeds == (3, 4)
    assert torch.equal(result.z, seen[-1].z)
    assert torch.equal(result.images, ToyPrior().decode(result.z))
    assert result.images.shape == (2, 3, 16, 24)
    assert [row["step"] for row in result.history] == [step.k for step in seen] == list(range(12))
    assert [picture.size for picture in result.pictures] == [(24, 16)] * 2
    assert result._repr_png_().startswith(b"\x89PNG")
    with Image.open(io.BytesIO(result._repr_png_())) as shown:
        assert shown.size == (384, 128)  # two of 16 x 24, enlarged


def test_the_referee_gets_its_way() -> None:
    result = generate("red", toys(rules=Rules(steps=60, tail=2, prior_weight=0.05, lr=0.2, noise=0, views=1)))
    red, green, blue = result.images[0].mean((1, 2)).tolist()
    assert red > 0.8
    assert max(green, blue) < 0.2


def test_generate_is_invert_drained() -> None:
    parts = toys()
    steps = list(
        invert("red", parts.seats, parts.prior, rules=RULES, augmentation=parts.augmentation, seeds=(5,), size=(16, 24))
    )
    result = generate("red", parts, seed=5)
    assert torch.equal(result.z, steps[-1].z)
    assert result.history == [numbers(step) for step in steps]


class Scripted:
    """A referee whose losses over the steps are known beforehand; the gradient is that of the mean."""

    input_size = 8

    def __init__(self, script: list[list[float]]) -> None:
        self.script = script

    def read(self, prompt: Prompt) -> Callable[[Views], Losses]:
        rows = iter(self.script)

        def loss(views: Views) -> Losses:
            means = views.mean((1, 2, 3))
            return means - means.detach() + torch.tensor(next(rows))

        return loss


def interrupted(script: list[list[float]], at: int, n: int = 1) -> tuple[Any, list[Step]]:
    seen: list[Step] = []

    def stop(step: Step) -> None:
        seen.append(step)
        if step.k == at:
            raise KeyboardInterrupt

    parts = parts_of(ToyPrior(), [Scripted(script)], rules=Rules(steps=20, tail=2, prior_weight=0.1), size=(8, 8))
    return generate("red", parts, n=n, on_step=stop), seen


def test_ctrl_c_leaves_the_best_picture() -> None:
    # The losses of step k are those of the latent that step k - 1 left: the 1.0 of step 3 speaks for step 2, and the
    # 0.5 of step 0 for the noise that it all began with, which is nobody's picture.
    result, seen = interrupted([[0.5], [4.0], [3.0], [1.0], [2.0], [6.0]], at=5)
    assert not result.complete
    assert len(result.history) == 6
    assert torch.equal(result.z, seen[2].z)
    assert torch.equal(result.images, ToyPrior().decode(seen[2].z))


def test_ctrl_c_picks_the_best_for_each_sample() -> None:
    result, seen = interrupted([[9.0, 9.0], [1.0, 5.0], [4.0, 4.0], [3.0, 2.0], [3.0, 8.0]], at=4, n=2)
    assert torch.equal(result.z[0], seen[0].z[0])
    assert torch.equal(result.z[1], seen[2].z[1])


def test_the_best_is_that_of_the_mean_whoever_plays() -> None:
    class Later(Schedule):
        def __call__(self, progress: float) -> float:
            return float(progress >= 3 / 20)

    # From step 3 on a second referee plays: that there is more to sum up makes no latent worse.
    b = Seat("b", Scripted([[3.0], [6.0]]), Later("linear", 0, 1))
    seats = [Seat("a", Scripted([[9.0], [5.0], [5.0], [4.0], [6.0]])), b]
    seen: list[Step] = []

    def stop(step: Step) -> None:
        seen.append(step)
        if step.k == 4:
            raise KeyboardInterrupt

    parts = parts_of(ToyPrior(), seats, rules=Rules(steps=20, tail=2, prior_weight=0.1), size=(8, 8))
    result = generate("red", parts, on_step=stop)
    assert [set(step.losses) for step in seen] == [{"a"}] * 3 + [{"a", "b"}] * 2
    assert torch.equal(result.z, seen[2].z)


def test_steps_at_which_one_is_not_asked_are_no_match_for_those_at_which_all_are() -> None:
    b = Seat("b", Scripted([[30.0], [20.0]]), constant(1), 3 / 20, 5 / 20)
    seats = [Seat("a", Scripted([[9.0], [0.1], [0.1], [4.0], [3.0], [0.1]])), b]
    seen: list[Step] = []

    def stop(step: Step) -> None:
        seen.append(step)
        if step.k == 5:
            raise KeyboardInterrupt

    parts = parts_of(ToyPrior(), seats, rules=Rules(steps=20, tail=2, prior_weight=0.1), size=(8, 8))
    result = generate("red", parts, on_step=stop)
    assert [len(step.losses) for step in seen] == [1, 1, 1, 2, 2, 1]
    assert torch.equal(result.z, seen[3].z), "step 4's losses, the least of both, speak for what step 3 left"
    assert Standing().knowing(result.history).heard == {"a", "b"}


@pytest.mark.parametrize("odd", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_is_never_the_best_and_hides_none(odd: float) -> None:
    result, seen = interrupted([[9.0], [odd], [4.0], [odd], [2.0], [3.0]], at=5)
    assert torch.equal(result.z, seen[3].z)


def test_ctrl_c_at_the_first_step_leaves_its_latent() -> None:
    result, seen = interrupted([[5.0]], at=0)
    assert not result.complete
    assert torch.equal(result.z, seen[0].z)


def test_ctrl_c_before_the_first_step_is_ctrl_c() -> None:
    class Impatient(ToyReferee):
        def read(self, prompt: Prompt) -> Callable[[Views], Losses]:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generate("red", toys(Impatient()))


def test_other_errors_pass_through() -> None:
    def fail(step: Step) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        generate("red", toys(), on_step=fail)
    with pytest.raises(PromptError, match="finds none of red"):
        generate("a mauve square", toys())


def test_numbers_are_plain() -> None:
    class Zero(ToyReferee):
        def read(self, prompt: Prompt) -> Callable[[Views], Losses]:
            return lambda views: 0 * views.sum((1, 2, 3))

    parts = parts_of(ToyPrior(), [ToyReferee(), Zero()], rules=RULES, size=(8, 8))
    history = generate("red", parts, n=2).history
    assert json.loads(json.dumps(history)) == history
    first, last = history[0], history[-1]
    assert set(first) == {"step", "losses", "norms", "agreement", "sat_out", "cosines"}
    assert set(first["losses"]) == {"ToyReferee", "Zero"}
    assert set(first["norms"]) == {"ToyReferee", "Zero", "prior"}
    assert first["sat_out"] == {"Zero": [True, True]}  # who sat out, and nobody else
    assert len(first["agreement"]) == 2
    assert (last["losses"], last["agreement"], last["sat_out"]) == ({}, None, {})


def test_numbers_that_are_not_finite_are_left_open() -> None:
    class Lost(ToyReferee):
        def read(self, prompt: Prompt) -> Callable[[Views], Losses]:
            return lambda views: views.sum((1, 2, 3)) * torch.tensor([math.nan, 1.0])

    history = generate("red", parts_of(ToyPrior(), [Lost()], rules=RULES, size=(8, 8)), n=2).history
    first = json.loads(json.dumps(history, allow_nan=False))[0]
    assert first["losses"]["Lost"][0] is None
    assert first["losses"]["Lost"][1] > 0
    assert first["sat_out"] == {"Lost": [True, False]}


@pytest.mark.parametrize("n", [0, -1])
def test_at_least_one_picture(n: int) -> None:
    for draw in (generate, sample):
        with pytest.raises(OptionError, match=f"n is {n}"):
            draw("red", toys(), n=n)


def test_parts_of_objects() -> None:
    parts = parts_of(ToyPrior(), [ToyReferee(), Seat("second", ToyReferee())])
    assert [seat.name for seat in parts.seats] == ["ToyReferee", "second"]
    assert parts.rules == Rules()
    assert parts.size == (512, 512)


def test_sample_is_the_prior_alone() -> None:
    result = sample("red", toys(), seed=4, n=2)
    assert result.seeds == (4, 5)
    assert result.images.shape == (2, 3, 16, 24)
    assert torch.equal(result.images, sample("red", toys(), seed=4, n=2).images)
    assert torch.equal(result.images[1], sample("red", toys(), seed=5).images[0])
    torch.testing.assert_close(result.z, ToyPrior().encode(result.images))


def test_a_prior_that_cannot_sample_says_so() -> None:
    class Mute:
        latent_shape, decode, encode, read = ToyPrior.latent_shape, ToyPrior.decode, ToyPrior.encode, ToyPrior.read

    with pytest.raises(PluginError, match="no plain sampling"):
        sample("red", parts_of(Mute(), [ToyReferee()], size=(8, 8)))


def test_scores_are_the_referees_own_losses(tmp_path: Path) -> None:
    seats = [Seat("small", ToyReferee(4)), Seat("large", ToyReferee(16))]
    green = Image.new("RGB", (8, 8), (0, 255, 0))
    green.save(tmp_path / "green.png")
    for image in (green, tmp_path / "green.png", str(tmp_path / "green.png"), from_pillow(green)):
        assert score(image, "red", seats) == pytest.approx({"small": 2 / 3, "large": 2 / 3})
        assert score(image, "green", seats) == pytest.approx({"small": 0, "large": 0}, abs=1e-6)


def test_a_referee_that_makes_its_own_view_is_scored_by_it() -> None:
    class Peephole(ToyReferee):
        def view(self, image: Images) -> Views:
            return image[..., :4, :4]

    picture = torch.zeros(1, 3, 8, 8)
    picture[:, 0, :4, :4] = 1  # red in one corner
    seats = [Seat("plain", ToyReferee(4)), Seat("own", Peephole(4))]
    assert isinstance(seats[1].referee, Viewer)
    scores = score(picture, "red", seats)
    assert scores["own"] == 0
    assert scores["plain"] > 0.2


def test_a_score_is_one_number_of_one_image() -> None:
    class Odd(ToyReferee):
        def read(self, prompt: Prompt) -> Callable[[Views], Losses]:
            return lambda views: views.mean((2, 3))

    with pytest.raises(PluginError, match=r"'odd' gave a loss of shape \(1, 3\) for 1 view; expected \(1,\)"):
        score(torch.zeros(1, 3, 8, 8), "red", [Seat("toy", ToyReferee()), Seat("odd", Odd())])
    for shape in ((2, 3, 8, 8), (3, 8, 8), (1, 1, 8, 8)):
        with pytest.raises(OptionError, match="One image is scored"):
            score(torch.zeros(shape), "red", [Seat("toy", ToyReferee())])


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P", "LA", "CMYK", "I;16", "I"])
def test_pictures_of_any_kind_are_read(mode: str) -> None:
    grey = 100 * 257 if mode.startswith("I") else 100  # those hold 16 bits
    image = (
        Image.new(mode, (4, 2), grey) if mode.startswith("I") else Image.new("RGB", (4, 2), (100,) * 3).convert(mode)
    )
    x = from_pillow(image)
    assert x.shape == (1, 3, 2, 4)
    torch.testing.assert_close(x * 255, torch.full_like(x, 100.0), rtol=0, atol=2.01)  # a palette has no 100


def test_pillow_and_back_is_exact() -> None:
    x = torch.from_numpy(np.arange(2 * 3 * 3, dtype=np.uint8).reshape(1, 3, 2, 3) * 14).float() / 255
    assert torch.equal(from_pillow(to_pillow(x[0])), x)
    beyond = torch.tensor([-1.0, 0.5, 2.0])[:, None, None].expand(3, 1, 1)
    assert to_pillow(beyond).getpixel((0, 0)) == (0, 128, 255)


def test_files_that_are_no_pictures(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("not a picture")
    (tmp_path / "empty.png").write_bytes(b"")
    Image.new("RGB", (64, 64), "red").save(tmp_path / "whole.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:80])
    for name in ("text.png", "empty.png", "cut.png"):
        with pytest.raises(OptionError, match="cannot be read as a picture"):
            from_pillow(tmp_path / name)
    for name, fault in {"missing.png": "is not there", ".": "is no plain file"}.items():
        with pytest.raises(OptionError, match=fault):
            from_pillow(tmp_path / name)


def test_a_photograph_is_turned_the_right_way_up(tmp_path: Path) -> None:
    """Orientation 6: the camera was held upright, and what it stored first belongs on the right."""
    image, exif = Image.new("RGB", (64, 32), "blue"), Image.Exif()
    image.paste("red", (0, 0, 32, 32))
    exif[0x0112] = 6
    image.save(tmp_path / "photo.jpg", exif=exif, quality=100)
    x = from_pillow(tmp_path / "photo.jpg")
    assert x.shape == (1, 3, 64, 32)
    assert x[0, :, 5, 16].argmax() == 0
    assert x[0, :, 60, 16].argmax() == 2


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_transparent_lies_on_white(mode: str, tmp_path: Path) -> None:
    image = Image.new("RGBA", (2, 1), (0, 0, 0, 0))
    image.putpixel((1, 0), (100, 100, 100, 255))
    image.convert(mode).save(tmp_path / "clear.png")
    x = from_pillow(tmp_path / "clear.png")
    assert torch.equal(x[0, :, 0, 0], torch.ones(3))
    torch.testing.assert_close(x[0, :, 0, 1] * 255, torch.full((3,), 100.0), rtol=0, atol=2.01)


def test_a_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("RGB", (64, 64)).save(tmp_path / "large.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(OptionError, match="decompression bomb"):
        from_pillow(tmp_path / "large.png")


def test_load_takes_a_zoos_preset_and_a_layer_over_it() -> None:
    class Zoo:
        @hookimpl
        def referee_referees(self, register: Any) -> None:
            for name in ("toy", "other"):
                register(Spec(name, "", lambda o, p: ToyReferee()))

        @hookimpl
        def referee_priors(self, register: Any) -> None:
            register(Spec("toy", "", lambda o, p: ToyPrior()))

        @hookimpl
        def referee_zoos(self, register: Any) -> None:
            text = "height = 16\nwidth = 16\n[rules]\nsteps = 30\n[prior]\nname = 'toy'\n[[referees]]\nname = 'toy'"
            register(ZooSpec("z", "", "zs", presets={"zs": text}))

    registry = Registry()
    assert registry.add(Zoo(), "zoo").status == "active"
    parts = load(zoo="z", registry=registry, device="cpu")
    assert ([seat.name for seat in parts.seats], parts.size, parts.rules.steps) == (["toy"], (16, 16), 30)
    parts = load(zoo="z", referees=["other"], settings={"rules": {"steps": 40}}, registry=registry, device="cpu")
    assert ([seat.name for seat in parts.seats], parts.size, parts.rules.steps) == (["other"], (16, 16), 40)
    with pytest.raises(PluginError, match="no zoo called 'y'"):
        load(zoo="y", registry=registry)
    named = {"prior": {"name": "toy"}, "height": 16, "width": 24}
    parts = load(zoo="none", referees=["toy"], settings=named, registry=registry, device="cpu")
    assert ([seat.name for seat in parts.seats], parts.size) == (["toy"], (16, 24))


def test_a_result_is_told_in_a_line_and_shown_in_rows() -> None:
    x = torch.linspace(0, 1, 6)[:, None, None, None].expand(6, 3, 200, 300)
    history = [{"losses": {"toy": [0.12345] * 5 + [None]}}, {"losses": {}}]
    result = Result(Prompt("red"), tuple(range(6)), x, x[:, :, :1, :1], history, complete=False)
    assert repr(result) == (
        "Result('red', 200 x 300, seeds [0, 1, 2, 3, 4, 5], toy [0.123, 0.123, 0.123, 0.123, 0.123, None], stopped)"
    )
    sheet = result.sheet()
    assert sheet.size == (1200, 400)
    assert [sheet.getpixel((10, 10)), sheet.getpixel((310, 210)), sheet.getpixel((610, 210))] == [
        (0, 0, 0), (255, 255, 255), (255, 255, 255),
    ]  # fmt: skip
    assert result.sheet(1).size == (300, 1200)


def test_scoring_names_who_has_nothing_to_judge_and_scores_the_others() -> None:
    class Mute(ToyReferee):
        def read(self, prompt: Prompt) -> Any:
            raise NothingToJudge("nothing here")

    x, mute = torch.zeros(1, 3, 8, 8), Seat("place", Mute())
    with pytest.warns(UserWarning, match="'place' has no score: the prompt has nothing of what it judges"):
        assert set(score(x, "red", [Seat("toy", ToyReferee()), mute])) == {"toy"}
    with pytest.raises(NothingToJudge, match="nothing here"):
        score(x, "red", [mute])
