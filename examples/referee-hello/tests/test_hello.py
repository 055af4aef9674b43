"""The plug-in is found by its name, keeps what every referee promises, refuses what is no colour, and wins on a toy."""

import pytest

from referee import Rules, generate, parts_of
from referee.errors import OptionError
from referee.hooks import Place
from referee.options import validate
from referee.plugins import discover
from referee.testing import ToyPrior, check_referee


def hello(**options):
    spec = discover().find("referee", "hello")
    return spec.factory(validate(spec.options, options, "referee 'hello'"), Place())


def test_keeps_the_contract():
    check_referee(discover().find("referee", "hello"), {"colour": "teal", "share": 0.5})


def test_draws_its_colour():
    rules = Rules(steps=30, tail=0, lr=0.2, noise=0, prior_weight=0, views=1, restart_every=0)
    parts = parts_of(ToyPrior(), [hello(colour="#0000ff", share=1)], rules=rules, size=(16, 16))
    red, green, blue = generate("anything", parts).images[0].mean((1, 2)).tolist()
    assert blue > 0.9
    assert max(red, green) < 0.1


def test_refuses_what_is_no_colour():
    with pytest.raises(OptionError, match="plaid"):
        hello(colour="plaid")
