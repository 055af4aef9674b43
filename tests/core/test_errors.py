"""The error tree, and the sentence that offers the nearest names."""

from __future__ import annotations

import inspect
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from referee import errors
from referee.errors import RefereeError, nearest, short_of_memory


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    classes = {name for name, thing in inspect.getmembers(errors, inspect.isclass) if issubclass(thing, Exception)}
    assert classes == {"RefereeError", *re.findall(r"-- (\w+) ", errors.__doc__ or "")}
    assert all(issubclass(getattr(errors, name), RefereeError) for name in classes)


@pytest.mark.parametrize(
    ("name", "known", "sentence"),
    [
        ("stepz", ["steps", "views"], "Did you mean 'steps'?"),
        ("clop", ["clip", "clap", "blip2"], "Did you mean 'clip' or 'clap'?"),
        ("zzz", ["steps", "views"], "There are: steps, views."),
        ("zzz", [], "There are none."),
    ],
)
def test_nearest(name: str, known: list[str], sentence: str) -> None:
    assert nearest(name, known) == sentence


@pytest.mark.parametrize("reason", ["CUDA out of memory", "CUDA out of memory.", "CUDA out of memory.\nTried it."])
def test_memory_that_ran_out_is_told_in_sentences(reason: str) -> None:
    said = str(short_of_memory(RuntimeError(reason)))
    assert said == "Out of memory: CUDA out of memory. `referee plan --fit 12GB` says what needs less."


@given(st.text(), st.lists(st.text()))
def test_nearest_always_says_something(name: str, known: list[str]) -> None:
    assert nearest(name, known)
