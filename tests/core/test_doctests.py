"""Every example in a docstring of the core runs and says what it says."""

from __future__ import annotations

import doctest
import pkgutil
from importlib import import_module

import pytest

import referee

MODULES = ["referee", *(f"referee.{m.name}" for m in pkgutil.iter_modules(referee.__path__) if m.name != "__main__")]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str) -> None:
    assert doctest.testmod(import_module(name)).failed == 0


def test_there_are_examples() -> None:
    finder = doctest.DocTestFinder()
    found = {name: sum(len(test.examples) for test in finder.find(import_module(name))) for name in MODULES}
    for name in ("balance", "inversion", "layers", "play", "randomness", "schedules", "typed"):
        assert found[f"referee.{name}"], name
