"""The prompt is the unit; errors, intervals and comparisons are held against what is known of them."""

from __future__ import annotations

from pathlib import Path
from statistics import NormalDist

import numpy as np
import pytest

from referee.bench.about import About, Maker, Record
from referee.bench.contract import Column
from referee.bench.records import Evidence
from referee.bench.statistics import cells, compare, error, interval, interval_of_shares
from referee.errors import RunError

COLUMNS = {
    "right": Column("right", proportion=True),
    "loss": Column("loss", more=False),
    "size": Column("size", more=None),
}


def evidence(values: dict[str, list[list[float]]], column: str = "right", prompt: str = "p") -> Evidence:
    """A bench of one suite: by method, for each prompt a number per seed."""
    makers = {name: Maker(draw={"name": name}) for name in values}
    most = max(len(rows) for rows in values.values())
    about = About(bench="b", columns=COLUMNS, suites={"s": most}, methods=makers)
    records = tuple(
        Record(
            method=name, digest="", suite="s", index=i, item=prompt, prompt=prompt, seed=k, scores={column: value},
        )
        for name, rows in values.items() for i, seeds in enumerate(rows) for k, value in enumerate(seeds)
    )  # fmt: skip
    return Evidence(about, records, {record.key: Path() for record in records})


def test_seeds_are_averaged_within_a_prompt() -> None:
    (one,) = cells(evidence({"m": [[0, 0, 0, 1], [1]]}))
    assert (one.n, one.mean) == (2, 0.625)
    assert one.error == pytest.approx(np.std([0.25, 1], ddof=1) / 2**0.5)
    many, few = (cells(evidence({"m": [[x] * k for x in (0.0, 1.0, 1.0)]}))[0] for k in (50, 1))
    assert (many.error, many.low, many.high) == (few.error, few.low, few.high)


def test_one_prompt_has_no_error() -> None:
    (one,) = cells(evidence({"m": [[0.3]]}))
    assert (one.error, one.low, one.high) == (0, pytest.approx(0.3), pytest.approx(0.3))


def test_the_interval_is_that_of_the_mean() -> None:
    values = np.random.default_rng(1).normal(2, 3, 400).tolist()
    low, high = interval(values)
    half = NormalDist().inv_cdf(0.975) * error(values)
    mean = sum(values) / 400
    assert (low, high) == (pytest.approx(mean - half, abs=0.05), pytest.approx(mean + half, abs=0.05))
    assert interval(values) == (low, high)


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    draw = np.random.default_rng(2)
    held = sum(low <= 0.3 <= high for low, high in (interval(draw.random(60) < 0.3) for _ in range(200)))
    assert 0.9 <= held / 200 <= 0.99


def test_a_comparison_is_by_prompt() -> None:
    """What varies between prompts cancels: the difference is sure where the means are not."""
    base = np.linspace(0, 1, 40)
    found = evidence({"a": [[x + 0.1] for x in base], "b": [[x] for x in base]}, "size")
    (one,) = compare(found, "a", found, "b")
    assert (one.low, one.mean, one.high) == pytest.approx((0.1, 0.1, 0.1))
    assert cells(found)[0].low < cells(found)[1].high
    found = evidence({"a": [[x + 0.1] for x in base], "b": [[x] for x in base]})
    (one,) = compare(found, "a", found, "b")
    assert (one.n, one.wins, one.ties, one.losses) == (40, 40, 0, 0)
    (back,) = compare(found, "b", found, "a")
    assert (back.mean, back.wins, back.losses) == (pytest.approx(-0.1), 0, 40)


def gaps(n: int, wins: int, losses: int) -> list[float]:
    return [1.0] * wins + [-1.0] * losses + [0.0] * (n - wins - losses)


def test_shares_leave_room_for_what_was_not_seen() -> None:
    for seen in (gaps(40, 0, 0), gaps(40, 0, 1), gaps(40, 4, 0)):
        low, high = interval_of_shares(seen)
        assert low < -0.01
        assert high > 0.07
        found = evidence({"a": [[max(gap, 0.0)] for gap in seen], "b": [[max(-gap, 0.0)] for gap in seen]})
        (one,) = compare(found, "a", found, "b")
        assert (one.low, one.high) == (low, high)


@pytest.mark.parametrize("n", [20, 40])
def test_one_more_loss_moves_the_interval_down(n: int) -> None:
    """Of a tie, of a win, or on a prompt more."""
    found = {(w, k): interval_of_shares(gaps(n, w, k)) for w in range(n + 1) for k in range(n + 1 - w)}
    for (wins, losses), here in found.items():
        worse = [found.get((wins, losses + 1)), found.get((wins - 1, losses)), found.get((wins - 1, losses + 1))]
        for there in [one for one in worse if one] + [interval_of_shares(gaps(n + 1, wins, losses + 1))]:
            assert there[0] <= here[0]
            assert there[1] <= here[1]
        assert here[0] <= (wins - losses) / n <= here[1]


def test_the_interval_of_shares_holds_the_truth_as_often_as_it_says() -> None:
    """Rare wins and losses, frequent ones, and shares of seeds: on neither side is it wrong more than once in 40."""
    draw = np.random.default_rng(4)
    for n in (20, 40, 100):
        for wins, losses in ((0.0, 0.0), (0.01, 0.01), (0.05, 0.0), (0.05, 0.05), (0.1, 0.03), (0.3, 0.3), (0.5, 0.2)):
            for seeds in (1, 3):
                drawn = draw.choice([1.0, -1.0, 0.0], (2000, n, seeds), p=[wins, losses, 1 - wins - losses]).mean(2)
                ends = np.array([interval_of_shares(row) for row in drawn.tolist()])
                assert (ends[:, 0] > wins - losses).mean() <= 0.035
                assert (ends[:, 1] < wins - losses).mean() <= 0.035


@pytest.mark.parametrize(("column", "counts"), [("right", (1, 1, 0)), ("loss", (0, 1, 1)), ("size", (None, 1, None))])
def test_who_wins_hangs_on_the_column(column: str, counts: tuple[int | None, int, int | None]) -> None:
    found = evidence({"a": [[1], [2]], "b": [[1], [1]]}, column)
    (one,) = compare(found, "a", found, "b")
    assert (one.wins, one.ties, one.losses) == counts


def test_only_prompts_of_both_are_compared() -> None:
    one, other = evidence({"a": [[1], [0], [1]]}), evidence({"b": [[0]]})
    (found,) = compare(one, "a", other, "b")
    assert (found.n, found.first, found.second) == (1, 1, 0)
    with pytest.raises(RunError, match="no prompt in common"):
        compare(one, "a", evidence({"b": [[0]]}, "loss"), "b")
    with pytest.raises(RunError, match="s 0 is 'p' in the first and 'q' in the second"):
        compare(one, "a", evidence({"b": [[0]]}, prompt="q"), "b")
