"""For authors of plug-ins: toys that keep the contract, checks of what keeps it, fixtures for pytest.

    from referee.testing import check_referee

    def test_keeps_the_contract(registry):           # the fixture: no installed plug-in in it
        registry.add(referee_mine, "mine")
        check_referee(registry.find("referee", "mine"), {"colour": "red"})

`toys` has parts that need no model, `checks` the doors, one per kind, and `fixtures` what a test asks for. Fixtures are
taken by one line in a conftest.py, and by nobody who does not ask: ``pytest_plugins = ["referee.testing.fixtures"]``.
Importing this package imports no torch; names below are imported when first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from referee.testing.checks import (
        check_augmentation,
        check_balancer,
        check_bench,
        check_converter,
        check_prior,
        check_referee,
        check_zoo,
    )
    from referee.testing.outcome import CheckFailed, Outcome
    from referee.testing.toys import COLOURS, ToyAugmentation, ToyPrior, ToyReferee

_HOMES = {
    "COLOURS": "toys", "CheckFailed": "outcome", "Outcome": "outcome", "ToyAugmentation": "toys", "ToyPrior": "toys",
    "ToyReferee": "toys", "check_augmentation": "checks", "check_balancer": "checks", "check_bench": "checks",
    "check_converter": "checks",
    "check_prior": "checks", "check_referee": "checks", "check_zoo": "checks",
}  # fmt: skip

__all__ = [
    "COLOURS", "CheckFailed", "Outcome", "ToyAugmentation", "ToyPrior", "ToyReferee", "check_augmentation",
    "check_balancer", "check_bench", "check_converter", "check_prior", "check_referee", "check_zoo",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"referee.testing.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'referee.testing' has no attribute {name!r}")
