"""Smoothness on functions whose constants one knows, and on the real loss at the latents of a film."""

from __future__ import annotations

import json
import math
from itertools import product
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from referee.errors import OptionError, RunError
from referee.play import Parts, load
from referee.plugins import discover
from referee.prompt import Prompt
from referee_pocket.judge import Found
from referee_pocket.paper import film as filming
from referee_pocket.paper import landscape
from referee_pocket.paper.figures import LOSSES, QUANTITIES, SPACES, TIMES, place
from referee_pocket.paper.smooth import differences, directions, measure, unit
from referee_pocket.words import Thing

SHORT = {"device": "cpu", "rules": {"steps": 4, "tail": 1, "views": 2, "restart_every": 0}}
METHODS = ("blip2-sds", "blip2-noaug")


def drawn(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def flat(x: torch.Tensor) -> torch.Tensor:
    return x.flatten(1)


# -- functions one knows


def test_directions_are_of_length_one_and_point_everywhere() -> None:
    like = torch.zeros(1, 2, 3, 4, dtype=torch.float64)
    found = directions(like, 4000, drawn())
    assert (found.shape, found.dtype) == ((4000, 2, 3, 4), torch.float64)
    assert torch.allclose(flat(found).norm(dim=1), torch.ones(4000, dtype=torch.float64))
    assert flat(found).mean(0).abs().max() < 0.02
    assert torch.allclose(flat(found).T @ flat(found) / 4000, torch.eye(24, dtype=torch.float64) / 24, atol=0.01)
    assert torch.equal(found, directions(like, 4000, drawn()))
    assert torch.equal(unit(torch.zeros(1, 3)), torch.zeros(1, 3))


@pytest.mark.parametrize("radius", [0.01, 1.0, 30.0])
def test_a_straight_function_has_its_slope_and_no_curvature(radius: float) -> None:
    a = torch.tensor([[3.0, 4.0, 12.0]])
    x, along = torch.randn(1, 3, generator=drawn(1)), directions(a, 2000, drawn())
    found = measure(lambda x: x @ a.T, x, along, radius).averaged
    assert found.steepest == pytest.approx(13.0, rel=1e-3)
    assert 12.8 < found.slope <= 13.001  # of 2000 directions in three dimensions one is near
    assert found.bend * radius < 1e-2 * 13  # what rounding leaves
    first, _ = differences(lambda x: x @ a.T, x, along, radius)
    assert first[:, 0].square().mean().item() == pytest.approx(169 / 3, rel=0.1)  # E (a.u)^2 = |a|^2 / D


@pytest.mark.parametrize("radius", [0.1, 2.0])
def test_a_bowl_has_the_curvature_of_each_direction(radius: float) -> None:
    """f = x' H x / 2 with eigenvalues 1, 2 and -5: bends of all directions lie between, and so do slopes |x' H u|."""
    h = torch.diag(torch.tensor([1.0, 2.0, -5.0]))
    x, along = torch.tensor([[2.0, 0.0, 0.0]]), torch.eye(3)
    found = measure(lambda x: (x @ h * x).sum(1, keepdim=True) / 2, x, along, radius).averaged
    assert found.bend == pytest.approx(5.0, rel=1e-3)
    assert found.slope == pytest.approx(2.0, rel=1e-3)
    assert found.steepest == pytest.approx(2.0, rel=1e-3)
    bends = differences(lambda x: (x @ h * x).sum(1, keepdim=True) / 2, x, directions(x, 500, drawn()), radius)[1]
    assert -5.01 < bends.min() < -4.5
    assert bends.max() < 2.01


def test_a_wave_is_no_steeper_than_its_constant() -> None:
    """sin(k x) has the Lipschitz constant k, and k^2 for its gradient; a wide step sees less of either."""
    x, along = torch.zeros(1, 1, dtype=torch.float64), torch.ones(1, 1, dtype=torch.float64)
    near, far = (measure(lambda x: torch.sin(7 * x), x, along, r).averaged for r in (1e-3, 0.4))
    assert near.slope == pytest.approx(7.0, rel=1e-4)
    assert far.slope == pytest.approx(math.sin(2.8) / 0.4)
    top = torch.full((1, 1), math.pi / 14, dtype=torch.float64)
    assert measure(lambda x: torch.sin(7 * x), top, along, 1e-3).averaged.bend == pytest.approx(49.0, rel=1e-4)


def test_an_average_of_functions_is_measured_as_one_and_its_members_each() -> None:
    """Two slopes that cancel: the average is flat, each of its members is not."""
    a, x = torch.tensor([[1.0, 2.0, 2.0]]), torch.zeros(1, 3)
    found = measure(lambda x: torch.cat([x @ a.T, -(x @ a.T)], 1), x, directions(x, 50, drawn()), 0.5)
    assert found.averaged.slope == pytest.approx(0.0, abs=1e-6)
    assert found.averaged.steepest == pytest.approx(0.0, abs=1e-6)
    assert found.single.steepest == pytest.approx(3.0, rel=1e-4)
    assert 2 < found.single.slope <= 3.001


def test_one_function_is_its_own_average() -> None:
    x = torch.randn(1, 5, generator=drawn(3))
    found = measure(lambda x: x.cos().sum(1, keepdim=True), x, directions(x, 9, drawn()), 0.3)
    assert found.averaged == found.single


def test_averaging_over_shifts_smooths_a_step() -> None:
    """What the propositions say, where it is surely so: a steep step, and its mean over shifts wider than it."""
    shifts = torch.linspace(-1, 1, 21, dtype=torch.float64)
    x, along = torch.full((1, 1), 0.01, dtype=torch.float64), torch.ones(1, 1, dtype=torch.float64)
    found = measure(lambda x: torch.tanh(20 * (x + shifts)), x, along, 0.01)
    assert measure(lambda x: torch.tanh(20 * x), x, along, 0.01).averaged.slope == pytest.approx(19, rel=0.05)
    assert found.averaged.slope == pytest.approx(1.0, rel=0.2)
    assert found.averaged.bend < 0.2 * measure(lambda x: torch.tanh(20 * x), x, along, 0.01).averaged.bend


# -- films


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("paper")
    taken = list(filming.take(path, discover(), count=2, methods=METHODS, over=SHORT))
    assert [(one.method, one.index) for one in taken] == [(name, i) for name in METHODS for i in range(2)]
    return path


@pytest.fixture(scope="module")
def parts() -> Parts:
    return load(device="cpu")


def test_a_film_is_the_run_that_the_bench_draws(folder: Path) -> None:
    from referee.play import drain

    (first, second) = filming.films(folder, "blip2-sds")
    assert first.header.marks == (0.25, 0.5, 0.75, 1.0)
    result = drain(Prompt(first.header.prompt), load(settings=SHORT, device="cpu"), (1000,))
    assert torch.equal(first.at(1.0), result.z)
    assert torch.equal(first.maps["prior"], result.maps["prior"][0])
    assert not torch.equal(first.at(filming.HALF), first.at(1.0))
    assert first.at(0.6).shape == (1, 8, 8, 8)
    assert second.header.seed == 1001
    assert second.header.prompt != first.header.prompt
    assert first.header.gathers.keys() <= {"blip2", "prior"}
    assert filming.films(folder, "blip2-noaug")[0].maps.keys() == {"blip2"}


def test_films_are_not_taken_twice_and_not_mixed(folder: Path) -> None:
    assert list(filming.take(folder, discover(), count=2, methods=METHODS, over=SHORT)) == []
    with pytest.raises(RunError, match=r"blip2-sds-000\.safetensors is of 'blip2-sds' with other settings"):
        list(filming.take(folder, discover(), count=1, over={**SHORT, "rules": {**SHORT["rules"], "views": 1}}))
    with pytest.raises(OptionError, match="There is no method 'sgd'"):
        list(filming.take(folder, discover(), methods=["sgd"]))


def test_shards_share_the_films(folder: Path, tmp_path: Path) -> None:
    for i in range(2):
        taken = filming.take(tmp_path, discover(), count=2, methods=["blip2-noaug"], over=SHORT, shard=(i, 2))
        assert [one.index for one in taken] == [i]
    for one, other in zip(filming.films(folder, "blip2-noaug"), filming.films(tmp_path, "blip2-noaug"), strict=True):
        assert torch.equal(one.latents, other.latents)


def test_what_is_no_film_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "film.safetensors"
    path.write_bytes(b"\x00" * 20)
    with pytest.raises(RunError, match="is no film"):
        filming.read(path)
    header = {
        "method": "a", "index": 0, "prompt": "p", "seed": 0, "digest": "d", "marks": [0.5, 1.0], "cpu_seconds": 1,
    }  # fmt: skip
    for tensors in ({"latents": torch.zeros(1, 8, 8, 8)}, {"map/x": torch.zeros(4, 4)},
                    {"latents": torch.zeros(2, 8, 8, 8), "map/x": torch.zeros(4)}):  # fmt: skip
        save_file(tensors, path, {"film": json.dumps(header)})
        with pytest.raises(RunError, match="is no film"):
            filming.read(path)
    save_file({"latents": torch.zeros(2, 8, 8, 8)}, path, {"film": "{}"})
    with pytest.raises(RunError, match="is no film"):
        filming.read(path)


def test_a_map_gathers_where_things_are() -> None:
    thing = Found(Thing(0, 0), 20.0, 30.0, 1.0)
    even = torch.ones(64, 64)
    assert filming.gathering(even, [thing]) == pytest.approx(1.0)
    spot = torch.zeros(64, 64)
    spot[30, 7] = 2.0
    share = math.pi * filming.REACH**2 / 64**2
    assert filming.gathering(spot, [thing]) == pytest.approx(1 / share, rel=0.02)
    assert filming.gathering(spot.T, [thing]) == 0.0  # rows are y
    assert filming.gathering(spot, []) is None
    assert filming.gathering(torch.zeros(64, 64), [thing]) is None


# -- the loss


def test_the_two_losses_are_of_the_picture_and_of_views_that_stay(parts: Parts) -> None:
    seat = parts.seats[0]
    loss = seat.referee.read(Prompt("a red circle"))
    plain, viewed = landscape.losses(loss, 64, parts.augmentation, 7, 3)
    x = torch.rand(1, 3, 64, 64, generator=drawn())
    with torch.no_grad():
        assert torch.equal(plain(x), loss(x)[:, None])
        assert viewed(x).shape == (1, 3)
        assert torch.equal(viewed(x), viewed(x))
        assert viewed(x).std() > 0


def test_all_numbers_are_measured_and_told_as_logarithms(folder: Path, parts: Parts) -> None:
    film = filming.films(folder, "blip2-sds")[0]
    numbers = landscape.look(film, parts, count=2, views=2)
    assert numbers.keys() == {place(*names) for names in product(SPACES, TIMES, LOSSES, QUANTITIES)}
    loss = parts.seats[0].referee.read(Prompt(film.header.prompt))
    x = parts.prior.decode(film.at(1.0)).detach().requires_grad_()
    (g,) = torch.autograd.grad(loss(x).sum(), x)
    assert math.exp(numbers["image final plain steepest"]) == pytest.approx(g.norm().item(), rel=1e-4)
    assert numbers["image final plain slope"] < numbers["image final plain steepest"]
    assert numbers == landscape.look(film, parts, count=2, views=2)


def test_a_survey_goes_on_where_it_stopped(folder: Path) -> None:
    def survey(**more: object) -> list[int]:
        found = landscape.survey(folder, methods=["blip2-noaug"], count=1, views=2, **more)  # type: ignore[arg-type]
        return [one.index for one in found]

    assert survey(shard=(1, 2)) == [1]
    assert survey() == [0]
    assert survey() == []
    (first, _) = landscape.landscapes(folder, "blip2-noaug")
    assert first.settings == {"directions": 1, "views": 2, "reach": landscape.REACH}
    assert first.digest == filming.films(folder, "blip2-noaug")[0].header.digest
    with pytest.raises(RunError, match="was measured of another film, or otherwise"):
        list(landscape.survey(folder, methods=["blip2-noaug"], count=2, views=2))
    with pytest.raises(RunError, match=r"has no films of 'sds'"):
        list(landscape.survey(folder, methods=["sds"]))
    (folder / "smooth" / "blip2-noaug-000.json").write_text("{}")
    with pytest.raises(RunError, match="is no measurement of smoothness"):
        landscape.landscapes(folder, "blip2-noaug")
