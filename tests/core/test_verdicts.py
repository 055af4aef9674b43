"""A judge's verdicts, each rule against its definition, read off all verdicts at once."""

from __future__ import annotations

from statistics import fmean
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from referee.verdicts import Course, Verdicts, like_better

LOSS = st.none() | st.integers(-4, 12).map(float)
ROW = st.tuples(st.dictionaries(st.sampled_from(["a", "b"]), LOSS), st.booleans(), LOSS)


def fed(rows: list[tuple[dict[str, float | None], bool, float | None]], patience: int | None) -> Course:
    """One picture's course, by way of the rows of a run."""
    verdicts = Verdicts(1, patience)
    for k, (losses, asked, loss) in enumerate(rows):
        row: dict[str, Any] = {"step": k, "losses": {name: [value] for name, value in losses.items()}}
        verdicts.add({**row, "judge": [loss]} if asked else row)
    assert verdicts.over == (verdicts.courses[0].ended is not None)
    return verdicts.courses[0]


def played(script: list[float | None], patience: int | None = None, referee: float = -1.0) -> Course:
    """A verdict at every step; the only referee's loss goes by ``referee`` a step, from 100."""
    return fed([({"a": 100.0 + referee * k}, True, loss) for k, loss in enumerate(script)], patience)


@given(st.lists(ROW, max_size=30), st.none() | st.integers(1, 4))
def test_best_and_plateau_are_what_is_said(rows: list[Any], patience: int | None) -> None:
    said = [(k + 1, loss) for k, (_, asked, loss) in enumerate(rows) if asked]
    records = [
        i
        for i, (_, loss) in enumerate(said)
        if loss is not None and all(before is None or loss < before for _, before in said[:i])
    ]
    ended = None
    for i in range(len(said)):
        better = [j for j in records if j <= i]
        if patience is not None and i + 1 - (better[-1] + 1 if better else 0) == patience:
            ended = i
            break
    counted = said if ended is None else said[: ended + 1]
    finite = [(loss, taken) for taken, loss in counted if loss is not None]
    course = fed(rows, patience)
    assert (course.least, course.best) == (min(finite) if finite else (None, None))
    assert course.ended == (None if ended is None else said[ended][0])
    assert (course.taken, course.last) == (counted[-1] if counted else (None, None))
    assert course.kept == (course.best if finite else counted[-1][0] if counted else None)


@given(st.lists(ROW, max_size=40))
def test_reward_hacking_is_what_is_said(rows: list[Any]) -> None:
    verdicts: list[tuple[int, float | None, dict[str, float]]] = []
    heard: dict[str, list[float]] = {"a": [], "b": []}
    for k, (losses, asked, loss) in enumerate(rows):
        for name, value in losses.items():
            heard[name] += [] if value is None else [value]
        if asked:
            verdicts.append((k + 1, loss, {name: fmean(values) for name, values in heard.items() if values}))
            heard = {"a": [], "b": []}

    def suspect(i: int) -> bool:
        finite = [(loss, j) for j, (_, loss, _) in enumerate(verdicts[: i + 1]) if loss is not None]
        loss = verdicts[i][1]
        if loss is None or not finite:
            return False
        first = next(loss for _, loss, _ in verdicts if loss is not None)
        least, at = min(finite)
        now, then = verdicts[i][2], verdicts[at][2]
        changes = [(now[n] - then[n]) / max(abs(now[n]) + abs(then[n]), 1e-300) for n in now.keys() & then.keys()]
        fell = loss - least > (first - least) / 4 and loss - least > abs(first) / 50
        return fell and bool(changes) and fmean(changes) < 0

    found = [verdicts[i][0] for i in range(2, len(verdicts)) if all(suspect(j) for j in (i - 2, i - 1, i))]
    assert fed(rows, None).hacked == (found[0] if found else None)


@pytest.mark.parametrize(
    ("script", "referee", "found"),
    [
        ([9, 4, 1, 4, 5, 6], -1, 6),
        ([9, 4, 1, 4, 5, 6], +1, None),  # the referees fare no better
        ([9, 4, 1, 4, 5, 0, 6, 7], -1, None),  # a better one between
        ([9, 4, 1, 4, 5, None, 6, 7], -1, None),  # no number between
        ([9, 4, 1, 3, 3, 3, 3, 3], -1, None),  # a quarter of what it had gained, and no more
        ([9, 4, 1, 3, 3, 3.1, 3.1, 3.1], -1, 8),
        ([9, 9.1, 9.1, 9.1, 9.1], -1, None),  # it never had an opinion
        ([9, 9.2, 9.2, 9.2, 9.2], -1, 4),
        ([-9, -8, -8, -8], -1, 4),
    ],
)
def test_when_reward_hacking_is_found(script: list[float | None], referee: int, found: int | None) -> None:
    assert played(script, referee=referee).hacked == found


def test_nobodys_unit_counts_for_more() -> None:
    assert like_better({"a": 0.5, "b": 1001.0}, {"a": 1.0, "b": 1000.0})
    assert not like_better({"a": 0.9995, "b": 1001.0}, {"a": 1.0, "b": 1000.0})
    assert not like_better({"a": 0.0}, {"a": 0.0})
    assert not like_better({"a": 0.0}, {"b": 1.0})


def test_what_ended_stays_as_it_is() -> None:
    course = played([3, 1, 2, 2, 0, 0], patience=2)
    assert (course.best, course.least, course.ended, course.taken) == (2, 1, 4, 4)


def test_each_picture_has_a_course_of_its_own() -> None:
    verdicts = Verdicts(2, patience=1)
    better = [
        verdicts.add({"step": k, "losses": {"a": [1.0, None]}, "judge": loss})
        for k, loss in enumerate([[3.0, 3.0], [4.0, 2.0], [1.0, 1.0], [0.0, 5.0]])
    ]
    assert better == [[True, True], [False, True], [False, True], [False, False]]
    assert [(course.best, course.ended) for course in verdicts.courses] == [(1, 2), (3, 4)]
    assert verdicts.over
