"""Every check of a bench can fail: one with one fault fails the check that looks for it."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any

import pytest

from referee.bench.contract import Column, Item
from referee.errors import OptionError
from referee.hooks import Spec, hookimpl
from referee.plugins import Registry
from referee.testing import CheckFailed, ToyPrior, benches, check_bench
from referee.testing.checks import examine_bench

PLAIN = {"zoo": "none", "height": 8, "width": 8, "prior": {"name": "toy"}, "draw": "sample"}


class Whole:
    columns: Any = {"share": Column("share", proportion=True), "loss": Column("loss", more=False)}  # noqa: RUF012

    def items(self) -> Any:
        return [Item(0, "red", "one"), Item(1, "blue", "one"), Item(0, "green", "other")]

    def methods(self) -> Any:
        return {"plain": PLAIN}

    def score(self, image: Any, item: Item, seed: int) -> Any:
        return {"share": image.mean().item()} if item.suite == "one" else {"loss": 3.0}


def changed(**parts: Any) -> Any:
    """A bench with something else in it."""
    return type("Changed", (Whole,), parts)()


ticks = count()


def spoils(self: Any, image: Any, item: Item, seed: int) -> dict[str, float]:
    image.zero_()
    return {}


FAULTS: dict[str, tuple[str, Callable[[], Any]]] = {
    "no bench": ("keeps_the_contract", lambda: object()),
    "no columns": ("keeps_the_contract", lambda: changed(columns={})),
    "columns in words": ("keeps_the_contract", lambda: changed(columns={"share": "share"})),
    "no items": ("items_have_a_place_each", lambda: changed(items=lambda self: [])),
    "one place": (
        "items_have_a_place_each",
        lambda: changed(items=lambda self: [Item(0, "red", "s"), Item(0, "a", "s")]),
    ),
    "empty prompt": ("items_have_a_place_each", lambda: changed(items=lambda self: [Item(0, " ", "s")])),
    "no data": ("items_have_a_place_each", lambda: changed(items=lambda self: [Item(0, "a", "s", {"x": object()})])),
    "other items": ("items_have_a_place_each", lambda: changed(items=lambda self: [Item(0, str(next(ticks)), "s")])),
    "no settings": ("methods_are_settings", lambda: changed(methods=lambda self: {"plain": {**PLAIN, "widht": 8}})),
    "no such way": (
        "methods_are_settings",
        lambda: changed(methods=lambda self: {"plain": {**PLAIN, "draw": "throw"}}),
    ),
    "another column": ("scores_its_columns", lambda: changed(score=lambda self, *given: {"shape": 1.0})),
    "no share": ("scores_its_columns", lambda: changed(score=lambda self, *given: {"share": 1.5})),
    "not a number": ("scores_its_columns", lambda: changed(score=lambda self, *given: {"loss": float("nan")})),
    "spoilt picture": ("scores_its_columns", lambda: changed(score=spoils)),
    "draws lots": ("repeats_itself", lambda: changed(score=lambda self, *given: {"loss": float(next(ticks))})),
}


@pytest.fixture
def table() -> Registry:
    class Toys:
        @hookimpl
        def referee_priors(self, register: Any) -> None:
            register(Spec("toy", "", lambda o, p: ToyPrior()))

    registry = Registry()
    assert registry.add(Toys(), "toys").status == "active"
    return registry


def test_a_whole_bench_passes(table: Registry) -> None:
    found = check_bench(Spec("whole", "", lambda o, p: Whole()), table, skip=["imports_nothing_heavy"])
    assert [outcome.check for outcome in found] == [check.__name__ for check in benches.CHECKS]
    said = {outcome.check: outcome.says for outcome in found}
    assert said["items_have_a_place_each"] == "3 items"
    assert said["scores_its_columns"] == "share, loss"


@pytest.mark.parametrize("fault", FAULTS)
def test_a_bench_with_a_fault_is_caught(fault: str, table: Registry) -> None:
    check, make = FAULTS[fault]
    bench = make()
    spec = Spec("faulty", "", lambda o, p: bench)
    found = {outcome.check: outcome for outcome in examine_bench(spec, table, {}, skip=["imports_nothing_heavy"])}
    assert found[check].status == "failed", found
    assert found[check].says
    with pytest.raises(CheckFailed, match=check):
        check_bench(spec, table, skip=["imports_nothing_heavy"])


def test_a_bench_without_methods_of_its_own_may_be(table: Registry) -> None:
    bench = changed(methods=lambda self: {})
    found = check_bench(Spec("bare", "", lambda o, p: bench), table, skip=["imports_nothing_heavy"])
    assert {o.check: o.status for o in found}["methods_are_settings"] == "skipped"


def test_wrong_options_are_refused(table: Registry) -> None:
    with pytest.raises(OptionError, match="bench 'whole': there is no 'n'"):
        check_bench(Spec("whole", "", lambda o, p: Whole()), table, {"n": 1})
