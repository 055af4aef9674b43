"""The panel's picture: whatever the history, there is one, and it shows what it says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image

from referee.inversion import Seat
from referee.play import generate, parts_of
from referee.prompt import Prompt
from referee.rules import Rules
from referee.testing import ToyPrior, ToyReferee
from referee.watching import charts


def colours(sheet: Image.Image) -> set[Any]:
    return {colour for _, colour in sheet.getcolors(1 << 24) or ()}


def rgb(text: str) -> tuple[int, ...]:
    return tuple(int(text[i : i + 2], 16) for i in (1, 3, 5))


def row(k: int, *, a: float | None = 1.0, agreement: float | None = 0.5) -> dict[str, Any]:
    return {
        "step": k,
        "losses": {"a": [a]},
        "agreement": None if agreement is None else [agreement],
        "cosines": {"a/prior": [-0.5]},
    }


def test_a_run_is_drawn_with_its_maps() -> None:
    seats = [Seat("a", ToyReferee()), Seat("b", ToyReferee(4), prompt=Prompt("green"), until=0.5)]
    result = generate(
        "red", parts_of(ToyPrior(), seats, rules=Rules(steps=9, tail=2, prior_weight=0.1), size=(8, 12)), n=2
    )
    maps = {name: found.numpy() for name, found in result.maps.items()}
    assert set(maps) == {"a", "b", "prior"}
    with_maps, without = charts.panel(result.history, result.pictures, maps), charts.panel(result.history)
    assert with_maps.width == without.width
    assert with_maps.height == without.height + 20 + 2 * (charts.CELL + 4)
    assert {rgb(colour) for colour in charts.COLOURS[:3]} <= colours(without)  # three pairs


def test_a_curve_stands_where_its_numbers_are() -> None:
    history = [row(k, a=float(k)) for k in range(11)]
    sheet = np.asarray(charts.panel(history).convert("RGB")).astype(int)
    left, top = charts.GAP // 2, 18
    chart = sheet[top : top + charts.HIGH + 1, left : left + charts.WIDE + 1]
    ys, xs = np.nonzero((chart == rgb(charts.COLOURS[0])).all(-1))
    line = charts.HIGH * (1 - xs / charts.WIDE)  # rising from the lower left to the upper right
    assert len(xs) > charts.WIDE
    assert np.abs(ys - line).max() <= 2


def test_a_silence_is_a_gap_and_a_slow_pace_is_none() -> None:
    def inked(history: list[dict[str, Any]]) -> int:
        sheet = np.asarray(charts.panel(history).convert("RGB")).astype(int)
        chart = sheet[18 : 19 + charts.HIGH, : charts.WIDE + charts.GAP // 2]
        return int((chart == rgb(charts.COLOURS[0])).all(-1).any(0).sum())

    numbers = [row(k) for k in range(41)]
    slow = [row(k) if k % 4 == 0 else {**row(k), "losses": {}} for k in range(41)]
    silent = [{**row(k), "losses": {}} if 10 < k < 30 else row(k) for k in range(41)]
    assert inked(numbers) == pytest.approx(inked(slow), abs=2)
    assert inked(silent) == pytest.approx(inked(numbers) / 2, rel=0.1)


@pytest.mark.parametrize(
    "history",
    [
        [],
        [row(0)],
        [row(0, a=None, agreement=None)],
        [row(k, a=2.0) for k in range(5)],
        [{"step": 0, "losses": {"Würfel \u2603": [1.0]}, "agreement": None, "cosines": None}],
    ],
)
def test_any_history_has_a_picture(history: list[dict[str, Any]]) -> None:
    assert charts.panel(history).mode == "RGB"


@pytest.mark.parametrize("values", [np.zeros((4, 6)), np.full((4, 6), np.nan), np.eye(6)[:4]])
def test_any_map_is_a_picture(values: Any) -> None:
    found = np.asarray(charts.heat(values.astype(np.float32)))
    assert found.shape == (4, 6, 3)
    assert (found[0, 0] == (255 if values[0, 0] == 1 else 0)).all()
