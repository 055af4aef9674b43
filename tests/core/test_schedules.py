"""Schedules: their values, their text, and that no text makes anything but a schedule or an OptionError."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from referee.errors import OptionError
from referee.schedules import Schedule, ScheduleField, constant, cosine, linear, parse, repr_exact

numbers = st.floats(allow_nan=False, allow_infinity=False)
schedules = st.one_of(
    st.builds(constant, numbers), st.builds(linear, numbers, numbers), st.builds(cosine, numbers, numbers)
)


class Holder(BaseModel):
    value: ScheduleField
    perhaps: ScheduleField | None = None


@pytest.mark.parametrize(
    ("schedule", "values"),
    [
        (constant(2), [2, 2, 2, 2]),
        (linear(1, 0), [1, 0.75, 0.5, 0]),
        (cosine(1, 0.5), [1, 0.5 + 0.25 * (1 + math.sqrt(0.5)), 0.75, 0.5]),
        (cosine(400, 800), [400, 600 - 200 * math.sqrt(0.5), 600, 800]),
    ],
)
def test_values(schedule: Schedule, values: list[float]) -> None:
    assert [schedule(u) for u in (0, 0.25, 0.5, 1)] == pytest.approx(values)


@given(schedules, st.floats(0, 1))
def test_values_lie_between_least_and_most(schedule: Schedule, u: float) -> None:
    span = max(abs(schedule.start), abs(schedule.end))
    if span < 1e300:  # beyond, the difference of the ends overflows
        assert schedule.least - 1e-9 * span <= schedule(u) <= schedule.most + 1e-9 * span


@given(schedules)
def test_exact_text_reads_back_to_the_same_numbers(schedule: Schedule) -> None:
    assert parse(repr_exact(schedule)) == schedule


@given(schedules)
def test_a_dumped_field_reads_back(schedule: Schedule) -> None:
    holder = Holder(value=schedule, perhaps=schedule)
    assert Holder.model_validate(holder.model_dump(mode="json")) == holder


@pytest.mark.parametrize(
    ("text", "schedule"),
    [
        ("2", constant(2)),
        (" -.5e-3 ", constant(-0.0005)),
        ("3\x1f", constant(3)),
        ("constant(2)", constant(2)),
        ("cosine(1,0.5)", cosine(1, 0.5)),
        (" linear ( 1 , +0. ) ", linear(1, 0)),
    ],
)
def test_text_as_people_write_it(text: str, schedule: Schedule) -> None:
    assert parse(text) == schedule
    assert Holder(value=text).value == schedule


@pytest.mark.parametrize(
    ("text", "expected", "character"),
    [
        ("", "a number, or constant, linear or cosine", 1),
        ("sine(1, 0)", "a number, or constant, linear or cosine", 1),
        ("cosine 1, 0", "'('", 8),
        ("cosine(one, 0)", "a number", 8),
        ("cosine(1)", "','", 9),
        ("cosine(1, 0", "')'", 12),
        ("cosine(1, 0) + 1", "the end", 14),
        ("constant(1, 2)", "')'", 11),
    ],
)
def test_errors_point_at_the_character(text: str, expected: str, character: int) -> None:
    with pytest.raises(OptionError) as caught:
        parse(text)
    message = str(caught.value)
    assert f"expected {expected} at character {character}." in message
    marked, caret = message.splitlines()[1:3]
    assert marked == f"  {text}"
    assert caret == " " * (2 + character - 1) + "^"
    assert "Write a number" in message


@pytest.mark.parametrize("text", ["1e999", "cosine(1, 1e999)", "linear(-1e999, 0)"])
def test_a_value_that_is_not_finite_is_refused(text: str) -> None:
    with pytest.raises(OptionError, match="not finite"):
        parse(text)


@given(st.text() | st.text(alphabet="cosinelartx(),. +-0123456789e"))
def test_any_text_is_a_schedule_or_an_option_error(text: str) -> None:
    try:
        schedule = parse(text)
    except OptionError:
        return
    assert math.isfinite(schedule.start)
    assert math.isfinite(schedule.end)


@pytest.mark.parametrize("value", [True, None, [1], {"start": 1}, math.nan, math.inf])
def test_what_is_no_schedule_is_refused(value: Any) -> None:
    with pytest.raises(ValidationError, match="a schedule is a finite number or text"):
        Holder(value=value)


def test_text_for_people() -> None:
    assert [str(s) for s in (constant(2), cosine(1, 0.5), linear(800, 0))] == ["2", "cosine(1, 0.5)", "linear(800, 0)"]
