"""Regions: read as a person writes them, cut out where they lie, and refused with the character that is wrong."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from referee.command.layer import flag_layer
from referee.contract import Prompt
from referee.control.region import LEAST, Region, parse, parse_prompted
from referee.errors import OptionError
from referee.gradients import ViewPlan, referee_gradient
from referee.inversion import Seat, invert
from referee.layers import merge
from referee.play import score
from referee.rules import Rules
from referee.settings import RefereePart, build
from referee.testing import ToyPrior, ToyReferee
from referee.typed import parse_part

ZOO = {"zoo": "none", "prior": {"name": "toy"}, "referees": [{"name": "toy", "options": {"a": 1}}, {"name": "other"}]}


@pytest.mark.parametrize(
    ("text", "box"),
    [
        ("0,0,32,64", (0, 0, 32, 64)), (" 1 , 2, 30 ,40 ", (1, 2, 30, 40)), ("50%,0,100%,100%", (48, 0, 96, 64)),
        ("0,0,33.3%,25 %", (0, 0, 32, 16)), ("0,0,96,64", (0, 0, 96, 64)), ("88,56,96,64", (88, 56, 96, 64)),
    ],
)  # fmt: skip
def test_a_region_is_read(text: str, box: tuple[int, ...]) -> None:
    assert parse(text).box(64, 96) == box
    assert parse(str(parse(text))) == parse(text)


@pytest.mark.parametrize(
    ("text", "at", "expected"),
    [
        ("", 1, "a number, x0"), ("0,0,32", 7, "',' and y1"), ("0,0,32,", 8, "a number, y1"),
        ("0,zero,3,4", 3, "a number, y0"),
        ("0,-1,3,4", 3, "a number, y0"), ("0,0,32,64px", 10, "the end"), ("0,0,32,64,5", 10, "the end"),
        ("0 0 32 64", 3, "',' and y0"), ("nan,0,1,2", 1, "a number"), ("0,0,1e3,2", 6, "',' and y1"),
        ("0,0,  x,2", 7, "a number, x1"), ("٠,0,32,64", 1, "a number"),
    ],
)  # fmt: skip
def test_what_is_none_is_pointed_at(text: str, at: int, expected: str) -> None:
    with pytest.raises(OptionError, match=f"expected ({expected}).* at character {at}\\.\n") as error:
        parse(text)
    assert str(error.value).splitlines()[1:3] == [f"  {text}", "  " + " " * (at - 1) + "^"]


@pytest.mark.parametrize(
    ("text", "at"), [("0,0,32,64", 10), ("0,0,32,64 a red circle", 11), ("0,0,32,64:", 11), ("0,0,32: red", 7)]
)
def test_a_prompt_must_follow(text: str, at: int) -> None:
    with pytest.raises(OptionError, match=f"at character {at}\\."):
        parse_prompted(text)
    assert parse_prompted("0,0,50%,9 :a: b ") == (parse("0,0,50%,9"), "a: b")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0,0,97,64", "not inside of the picture, which is 0,0,96,64"), ("0,0,96,101%", "not inside"),
        ("10,0,17,64", "is 7 pixels wide and 64 high"), ("50,0,10,64", "is -40 pixels wide"), ("0,0,0,0", "0 pixels"),
        ("0,60,96,64", "96 pixels wide and 4 high"),
    ],
)  # fmt: skip
def test_a_region_must_lie_in_the_picture(text: str, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        parse(text).box(64, 96)
    with pytest.raises(OptionError, match=message):
        build([{**ZOO, "height": 64, "width": 96}, {"referees": [{"name": "toy", "region": text}]}])


@given(st.text(max_size=20) | st.text("0123456789,%. :", max_size=20))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        region, prompt = parse_prompted(text)
    except OptionError:
        return
    assert prompt
    assert isinstance(region, Region)


def picture() -> Tensor:
    return torch.linspace(0, 1, 3 * 24 * 32).sin().abs().view(1, 3, 24, 32)


@pytest.mark.parametrize("text", ["0,0,8,20", "4,2,30,12", "5,5,15,15"])
def test_a_crop_is_the_part_with_rims_to_a_square(text: str) -> None:
    x0, y0, x1, y1 = parse(text).box(24, 32)
    x = picture()
    found = parse(text).crop(x)
    side = max(x1 - x0, y1 - y0)
    assert found.shape == (1, 3, side, side)
    left, top = (side - x1 + x0) // 2, (side - y1 + y0) // 2
    rims = (left, side - left - (x1 - x0), top, side - top - (y1 - y0))
    assert torch.equal(found, torch.nn.functional.pad(x[..., y0:y1, x0:x1], rims, mode="replicate"))


def test_a_referee_with_a_region_pulls_nowhere_else() -> None:
    x = picture().requires_grad_()
    plan = ViewPlan([0], 0, 1, 1, None, parse("8,0,16,24"))
    _, g = referee_gradient(ToyReferee(16).read(Prompt("red")), 16, x, x, plan, keep_graph=False)
    assert g.shape == x.shape
    outside = torch.ones_like(x, dtype=torch.bool)
    outside[..., 8:16] = False
    assert not g[outside].any()
    assert bool((g[~outside] != 0).all())
    whole = ViewPlan([0], 0, 1, 1, None)
    assert referee_gradient(ToyReferee(16).read(Prompt("red")), 16, x, x, whole, keep_graph=False)[1][outside].any()


def test_each_region_gets_what_it_asks_for() -> None:
    seats = [
        Seat("left", ToyReferee(), prompt=Prompt("red"), region=parse("0,0,50%,100%")),
        Seat("right", ToyReferee(), prompt=Prompt("blue"), region=parse("50%,0,100%,100%")),
    ]
    rules = Rules(steps=40, tail=0, lr=0.2, noise=0, prior_weight=0, views=1)
    steps = list(invert("green", seats, ToyPrior(), rules=rules, size=(16, 32)))
    left, right = steps[-1].image[..., :14].mean((0, 2, 3)), steps[-1].image[..., 18:].mean((0, 2, 3))
    assert left.argmax() == 0
    assert right.argmax() == 2
    assert left[0] > 0.9
    assert right[2] > 0.9
    assert steps[-1].maps["left"][..., 16:].sum() == 0
    losses = score(steps[-1].image, "green", seats)
    assert max(losses.values()) < 0.02
    with pytest.raises(OptionError, match="not inside of the picture, which is 0,0,8,8"):
        score(torch.zeros(1, 3, 8, 8), "red", [Seat("a", ToyReferee(), region=parse("0,0,16,8"))])


def test_the_flag_asks_the_first_referee_once_more() -> None:
    flags = flag_layer(region=["0,0,50%,64: red", "32,0,64,64: blue"], referees=ZOO["referees"])
    settings = build([ZOO, flags])
    assert [(part.name, part.title, str(part.region), part.prompt, part.options) for part in settings.referees] == [
        ("toy", "toy", "None", None, {"a": 1}), ("other", "other", "None", None, {}),
        ("toy", "region-1", "0,0,50%,64", "red", {"a": 1}), ("toy", "region-2", "32,0,64,64", "blue", {"a": 1}),
    ]  # fmt: skip
    assert [part.weight(0) for part in settings.referees] == [1, 1, 4, 4]
    again = settings.model_dump(mode="json", exclude_none=True)
    assert build([{**again, "zoo": "none"}]) == settings
    more = flag_layer(region=["0,0,9,9: red"], referees=again["referees"])["referees"]
    assert more[-1]["label"] == "region-3"
    own = flag_layer(referee=["other:label=b"], region=["0,0,9,9: red"], referees=ZOO["referees"])
    assert [part["name"] for part in own["referees"]] == ["other", "other"]
    with pytest.raises(OptionError, match="there is none: add --referee"):
        flag_layer(region=["0,0,9,9: red"], referees=None)


def test_a_seat_of_ones_own_making_has_a_region() -> None:
    for text in ('toy:region="0,0,50%,64",prompt="a, b"', "toy:region=[0,0,'50%',64],prompt=\"a, b\""):
        part = build([merge(ZOO, {"referees": [parse_part(text, RefereePart)]})]).referees[0]
        assert (str(part.region), part.prompt) == ("0,0,50%,64", "a, b")
    with pytest.raises(OptionError, match="expected ',' and y1 at character 6"):
        build([merge(ZOO, {"referees": [{"name": "toy", "region": "0,0,3"}]})])
    with pytest.raises(OptionError, match="a region is text such as"):
        build([merge(ZOO, {"referees": [{"name": "toy", "region": 7}]})])


def test_the_least_side_is_told() -> None:
    assert parse(f"0,0,{LEAST},{LEAST}").box(64, 64) == (0, 0, LEAST, LEAST)
