"""The numbers of Algorithm 1 as paper and released code give them, against reference values worked out by hand."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from referee.layers import preset
from referee.plugins import Registry
from referee.rules import Rules
from referee.settings import build

BOTH = ("paper", "released")


def shipped(name: str) -> Rules:
    return build([preset(name, Registry())]).rules


def test_the_paper_is_the_default() -> None:
    assert shipped("paper") == Rules()


@pytest.mark.parametrize("name", BOTH)
def test_what_both_have_in_common(name: str) -> None:
    rules = shipped(name)
    assert (rules.steps, rules.tail) == (160, 10)
    assert [rules.prior_weight(u) for u in (0, 0.5, 1)] == pytest.approx([800, 600, 400])
    assert rules.referee_weight(0.3) == 2
    assert rules.noise(0.9) == 0.2
    assert rules.ema_decay == 0.95


@pytest.mark.parametrize("name", BOTH)
def test_restarts_come_at_40_and_100_alone(name: str) -> None:
    rules = shipped(name)
    # 160 = 40 + 2 * 60 would be the third, but lies in the tail.
    assert [k + 1 for k in range(rules.steps) if rules.restarts_at(k)] == [40, 100]


def test_the_papers_learning_rate() -> None:
    rules = shipped("paper")
    assert (rules.update, rules.warm_up, rules.prior_lr, rules.views) == ("adam", 0, None, 30)
    assert [rules.learning_rate(k) for k in (0, 80)] == pytest.approx([1.0, 0.75])
    assert rules.gradient_noise(0.5) == 0
    assert rules.tail_noise(0.99) == 0.2


def test_the_released_learning_rate() -> None:
    rules = shipped("released")
    assert (rules.update, rules.views) == ("sgd", 10)
    assert [rules.learning_rate(k) for k in range(10)] == pytest.approx([0.1 * (k + 1) for k in range(10)])
    assert rules.learning_rate(10) == pytest.approx(1.0)
    assert rules.learning_rate(85) == pytest.approx(0.75)
    assert rules.learning_rate(149) == pytest.approx(0.507, abs=5e-4)
    assert rules.prior_lr is not None
    assert [rules.prior_lr(u) for u in (0, 0.5, 0.99)] == [1, 1, 1]
    assert rules.gradient_noise(0.5) == 0.2
    assert rules.tail_noise(0.99) == 0.01


@pytest.mark.parametrize(
    ("numbers", "iterations"),
    [
        ({"steps": 12, "tail": 0, "restart_from": 4, "restart_every": 4}, [4, 8, 12]),
        ({"steps": 12, "tail": 4, "restart_from": 4, "restart_every": 4}, [4, 8]),
        ({"steps": 12, "tail": 5, "restart_from": 4, "restart_every": 4}, [4]),
        ({"steps": 12, "tail": 0, "restart_from": 1, "restart_every": 5}, [1, 6, 11]),
        ({"steps": 12, "tail": 0, "restart_from": 4, "restart_every": 0}, []),
        ({"steps": 12, "tail": 0, "restart_from": 13, "restart_every": 1}, []),
    ],
)
def test_restarts(numbers: dict[str, Any], iterations: list[int]) -> None:
    rules = Rules(**numbers)
    assert [k + 1 for k in range(rules.steps) if rules.restarts_at(k)] == iterations


def test_a_warm_up_longer_than_the_run_only_warms_up() -> None:
    rules = Rules(steps=4, tail=0, warm_up=8)
    assert [rules.learning_rate(k) for k in range(4)] == pytest.approx([1 / 8, 2 / 8, 3 / 8, 4 / 8])


@pytest.mark.parametrize(
    ("numbers", "text"),
    [
        ({"steps": 5}, r"tail \(10\) leaves the referees no step of 5: .* for example --set rules\.tail=0"),
        ({"steps": 10, "tail": 10}, "leaves the referees no step"),
        ({"lr": "cosine(1, -0.5)"}, "lr falls to -0.5"),
        ({"referee_weight": -1}, "referee_weight falls to -1"),
        ({"prior_weight": "linear(-1, 2)"}, "prior_weight falls to -1"),
        ({"noise": -0.1}, "noise falls to -0.1"),
        ({"gradient_noise": -0.1}, "gradient_noise falls"),
        ({"tail_noise": -0.1}, "tail_noise falls"),
        ({"prior_lr": -1}, "prior_lr falls to -1"),
        ({"ema_decay": 1.0}, "less than 1"),
        ({"steps": 0}, "greater than or equal to 1"),
        ({"views": 0}, "greater than or equal to 1"),
        ({"micro_batch": 0}, "greater than or equal to 1"),
        ({"restart_from": 0}, "greater than or equal to 1"),
        ({"update": "rmsprop"}, "'adam' or 'sgd'"),
        ({"stepz": 3}, "Extra inputs"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(numbers: dict[str, Any], text: str) -> None:
    with pytest.raises(ValidationError, match=text):
        Rules(**numbers)


def test_rules_do_not_change() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Rules().steps = 3
