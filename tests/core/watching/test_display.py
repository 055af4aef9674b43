"""What a person sees: every referee, every number, on a terminal and off it."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import pytest
import torch
from rich.console import Console

from referee.inversion import Seat, invert
from referee.rules import Rules
from referee.schedules import linear
from referee.testing import ToyPrior, ToyReferee
from referee.watching.display import Display, sparkline
from referee.watching.preview import half_blocks


def shown(*, terminal: bool, seats: list[Seat], **rules: Any) -> str:
    console = Console(
        file=io.StringIO(), force_terminal=terminal, width=120, color_system=None, markup=False, emoji=False
    )  # as referee.watching.watch makes it
    numbers = Rules(**{"steps": 16, "tail": 2, "prior_weight": 0.1, **rules})
    with Display(16, console) as display:
        for step in invert("red", seats, ToyPrior(), rules=numbers, size=(8, 8)):
            display.show(step)
            if terminal and display.live and step.k == 8:
                display.live.refresh()
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return text


def two() -> list[Seat]:
    return [Seat("first", ToyReferee()), Seat("second", ToyReferee(4), linear(0, 1))]


def test_off_a_terminal_a_line_now_and_then() -> None:
    lines = shown(terminal=False, seats=two()).splitlines()
    assert len(lines) == 1 + 10
    assert lines[0].startswith("step    1/16  first 0.")
    assert "second" not in lines[0]  # it weighs nothing yet
    assert "second 0." in lines[1]
    assert "agreement" in lines[1]
    assert "prior alone" in lines[-1]
    assert lines[-1].endswith("0 s left")


def test_who_pulls_against_whom_is_said() -> None:
    from referee.prompt import Prompt

    seats = [Seat("red", ToyReferee()), Seat("blue", ToyReferee(4), prompt=Prompt("blue"))]
    for terminal in (False, True):
        assert "red against blue -0." in shown(terminal=terminal, seats=seats)
    assert " against " not in shown(terminal=False, seats=two()[:1], prior_weight=0)


def test_the_judge_is_shown_from_its_first_verdict_on() -> None:
    for terminal in (False, True):
        console = Console(file=io.StringIO(), force_terminal=terminal, width=120, color_system=None)
        with Display(4, console) as display:
            for step in invert("red", two(), ToyPrior(), rules=Rules(steps=4, tail=0, views=1), size=(8, 8)):
                display.show(replace(step, judge=torch.tensor([0.25, 0.5])) if step.k == 1 else step)
        text: str = console.file.getvalue()  # type: ignore[attr-defined]
        lines = [line for line in text.splitlines() if "judge" in line]
        if terminal:
            assert "0.375" in lines[-1]
        else:
            assert ["judge 0.375" in line for line in text.splitlines()] == [False, True, True, True]


def test_a_small_picture_is_shown_where_there_are_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    for colours, there in (("truecolor", True), (None, False)):
        console = Console(file=io.StringIO(), force_terminal=True, width=120, color_system=colours)  # type: ignore[arg-type]
        with Display(4, console) as display:
            for step in invert("red", two(), ToyPrior(), rules=Rules(steps=4, tail=0, views=1), size=(8, 8)):
                display.show(step)
        text: str = console.file.getvalue()  # type: ignore[attr-defined]
        assert ("▀" in text) is there
    monkeypatch.setenv("NO_COLOR", "1")
    assert Console(force_terminal=True).no_color


def test_half_blocks_show_two_pixels_each() -> None:
    x = torch.zeros(3, 4, 4)
    x[0, :2], x[2, 2:] = 1.0, 1.0  # red above blue
    lines = half_blocks(x, width=4).split("\n")
    assert [line.plain for line in lines] == ["▀▀▀▀"] * 2
    colours = [{(str(span.style)) for span in line.spans} for line in lines]
    assert colours == [{"#ff0000 on #ff0000"}, {"#0000ff on #0000ff"}]
    assert len(half_blocks(torch.zeros(3, 1, 400)).split("\n")) == 1
    assert len(half_blocks(torch.zeros(3, 400, 1)).split("\n")) == 32


def test_names_are_no_markup() -> None:
    for terminal in (False, True):
        text = shown(terminal=terminal, seats=[Seat("[/red]:smile:", ToyReferee())])
        assert "[/red]:smile:" in text


def test_one_referee_has_nobody_to_agree_with() -> None:
    assert "agreement" not in shown(terminal=False, seats=two()[:1])


def test_on_a_terminal_a_table() -> None:
    text = shown(terminal=True, seats=two())
    for word in ("who", "loss", "first", "second", "prior", "agreement", "9/16"):
        assert word in text


def test_a_run_without_prior_or_without_referees_is_shown_too() -> None:
    assert "resting" in shown(terminal=True, seats=two()[:1], prior_weight=0)
    assert "prior" in shown(terminal=True, seats=[])


@pytest.mark.parametrize(
    ("values", "width", "curve"),
    [
        ([0.0, 1.0], 8, "▁█"),
        ([1.0, 1.0, 1.0], 8, "▁▁▁"),
        ([5.0], 8, "▁"),
        ([float(i) for i in range(100)], 4, "▁▃▆█"),
    ],
)
def test_sparklines(values: list[float], width: int, curve: str) -> None:
    assert sparkline(values, width) == curve


def test_a_curve_with_a_gap_is_still_drawn() -> None:
    assert sparkline([1.0, float("nan"), 2.0, float("inf")]) == "▁ █ "
    assert sparkline([float("nan")]) == " "
