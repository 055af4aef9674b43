"""`referee bench table` and `compare`, and what they write: table, CSV, plot, contact sheets."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import replace
from io import StringIO
from pathlib import Path
from xml.etree import ElementTree

import pytest
from PIL import Image

from referee.bench.plot import svg
from referee.bench.records import read
from referee.bench.sheet import CELL, LINE, LINES, RIGHT, RIM, WRONG, sheet, wrapped
from referee.bench.statistics import cells
from referee.bench.statistics import compare as compared
from referee.bench.table import cautions

from .conftest import Desk


@pytest.fixture
def drawn(desk: Desk) -> Desk:
    desk.at("answer = {'share': float(item.index != 1), 'loss': 2.5, **({'even': 1} if item.index == 0 else {})}")
    desk.done()
    return desk


def test_the_table_as_markdown(drawn: Desk) -> None:
    told = drawn("bench", "table", "out", "--markdown")
    assert (told.code, told.out) == (0, (drawn.out / "table.md").read_text())
    lines = [line.rpartition(" | ")[0] for line in told.out.splitlines() if line.startswith("| ")]
    assert lines[:3] == [
        "| method | n | share of the colour | toy loss | of even prompts",
        "| run | 3 | 0.67 ± 0.33 | 2.50† | 1.00 ± 0.00 (1)",
        "| plain | 3 | 0.67 ± 0.33 | 2.50 | 1.00 ± 0.00 (1)",
    ]
    assert told.out.startswith("### bright\n")
    assert "### half dim\n" in told.out
    assert "† toy loss: measured with a model of the family that steered the method" in told.out


def test_the_table_on_the_terminal(drawn: Desk) -> None:
    said = drawn("bench", "table", "out").out
    assert "share of" in said
    assert "0.67 ± 0.33" in said
    assert "out/plot.svg" in said


def test_the_table_as_data(drawn: Desk) -> None:
    rows = list(csv.DictReader(StringIO((drawn.out / "table.csv").read_text())))
    assert {(row["suite"], row["method"], row["column"]) for row in rows} == {
        (suite, method, column) for suite in ("bright", "half dim") for method in ("run", "plain")
        for column in ("share", "loss", "even")
    }  # fmt: skip
    assert {(row["method"], row["kin"]) for row in rows if row["column"] == "loss"} == {("run", "1"), ("plain", "0")}
    told = json.loads(drawn("bench", "table", "out", "--json").out)
    (one,) = [c for c in told["cells"] if (c["suite"], c["method"], c["column"]) == ("bright", "run", "share")]
    assert (one["n"], one["mean"]) == (3, pytest.approx(2 / 3))
    assert all(Path(path).is_file() for path in told["files"])


def test_chosen_methods_and_another_folder(drawn: Desk) -> None:
    told = drawn("bench", "table", "out", "--methods", "plain", "--column", "loss", "--out", "there")
    assert told.code == 0
    assert "run" not in (drawn.folder / "there" / "table.md").read_text()
    assert "toy loss" in (drawn.folder / "there" / "plot.svg").read_text()


def test_two_folders_are_joined(drawn: Desk) -> None:
    drawn.done("--methods", "plain", "--seeds", "2", out="more")
    told = json.loads(drawn("bench", "table", "out", "more", "--out", "both", "--json").out)
    assert {row["method"]: row["pictures"] for row in told["drawn"] if row["suite"] == "bright"} == {
        "run": 3,
        "plain": 6,
    }
    assert "run, bright: 3 of 6 pictures (50%); the rest is not scored." in told["notes"]
    drawn.done("--set", "rules.steps=5", "--methods", "run", out="other")
    refused = drawn("bench", "table", "out", "other", "--out", "both")
    assert (refused.code, "settings.rules.steps: 4 and 5" in refused.err) == (2, True)


def test_more_pictures_of_a_prompt_than_were_asked_for_count_once(drawn: Desk) -> None:
    drawn.done("--methods", "plain", "--seed", "50")
    told = json.loads(drawn("bench", "table", "out", "--json").out)
    (row,) = [row for row in told["drawn"] if (row["suite"], row["method"]) == ("bright", "plain")]
    assert (row["pictures"], row["scored"], row["of"]) == (6, 3, 3)
    assert not any("pictures (" in note for note in told["notes"])
    assert "| plain | 3 | 6 |" in (drawn.out / "table.md").read_text()
    records = drawn.out / "records-0-of-1.jsonl"
    lines = [json.loads(line) for line in records.read_text().splitlines()]
    some = [one for one in lines if (one["method"], one["suite"], one["index"]) != ("plain", "bright", 2)]
    records.write_text("".join(json.dumps(one) + "\n" for one in some))  # four pictures, of two of three prompts
    notes = json.loads(drawn("bench", "table", "out", "--json").out)["notes"]
    assert "plain, bright: 2 of 3 pictures (67%); the rest is not scored." in notes


def test_a_method_of_which_fewer_prompts_are_wanted_is_whole_with_them(desk: Desk) -> None:
    text = (desk.folder / "toys.py").read_text()
    chooses = "    def wants(self, method, item):\n        return method != 'run' or item.index < 1\n\n    def score("
    (desk.folder / "toys.py").write_text(text.replace("    def score(", chooses, 1))
    desk.done()
    table = (desk.out / "table.md").read_text()
    assert "| run | 1 |" in table
    assert "| plain | 3 |" in table
    assert "is not scored" not in table
    desk.done("--methods", "run", name="colours:n=1", out="less")
    joined = read([desk.folder / "less", desk.out]).about
    assert (joined.count("run", "bright"), joined.count("plain", "bright")) == (1, 3)


def test_the_plot_has_a_bar_for_each_number(drawn: Desk) -> None:
    found = read([drawn.out])
    tree = ElementTree.fromstring(svg(found, cells(found), "share"))
    name = "{http://www.w3.org/2000/svg}"
    dots = tree.findall(f".//{name}circle")
    assert len(dots) == 4
    places = [float(dot.get("cx", "")) for dot in dots]
    ticks = [t for t in tree.findall(f".//{name}text") if t.get("text-anchor") == "middle"]
    axis = (
        sorted((float(t.text or ""), float(t.get("x", ""))) for t in ticks)[:1]
        + sorted((float(t.text or ""), float(t.get("x", ""))) for t in ticks)[-1:]
    )
    assert [value for value, _ in axis] == [0, 1]
    zero = min(x for value, x in ((float(t.text or ""), float(t.get("x", ""))) for t in ticks) if value == 0)
    one = min(x for value, x in ((float(t.text or ""), float(t.get("x", ""))) for t in ticks) if value == 1)
    assert places[0] == pytest.approx(zero + (one - zero) * 2 / 3, abs=0.2)
    said = [title.text for title in tree.findall(f".//{name}title")]
    assert said[0] == "run: 0.667, 0.000 to 1.000, 3 prompts"


def test_a_strangers_names_are_escaped(drawn: Desk) -> None:
    path = drawn.out / "about-0-of-1.json"
    path.write_text(path.read_text().replace("share of the colour", "<script>&"))
    found = read([drawn.out])
    text = svg(found, cells(found), "share")
    assert "<script>" not in text
    ElementTree.fromstring(text)


def test_the_sheet_frames_what_is_right(drawn: Desk) -> None:
    page = sheet(read([drawn.out]), "run", "bright")
    wide = CELL + 2 * RIM + 2

    def frame(i: int) -> tuple[int, ...]:
        colour = page.getpixel((i * wide + 1, LINES * LINE + CELL // 2))
        assert isinstance(colour, tuple)
        return colour

    right, wrong = (tuple(int(c[i : i + 2], 16) for i in (1, 3, 5)) for c in (RIGHT, WRONG))
    assert [frame(i) for i in range(3)] == [right, wrong, right]
    drawn_here = Image.open(drawn.out / "pictures" / "run" / "bright" / "0000-1.png").convert("RGB")
    shown = page.crop((RIM, LINES * LINE + RIM, RIM + CELL, LINES * LINE + RIM + CELL)).resize((1, 1))
    given = drawn_here.resize((1, 1))
    assert all(abs(a - b) < 12 for a, b in zip(shown.getpixel((0, 0)), given.getpixel((0, 0)), strict=True))  # type: ignore[arg-type]


def test_a_sheet_does_without_a_picture_that_is_gone(drawn: Desk) -> None:
    before = sheet(read([drawn.out]), "run", "bright")
    (drawn.out / "pictures" / "run" / "bright" / "0001-2.png").write_bytes(b"")
    assert sheet(read([drawn.out]), "run", "bright").size == before.size


def test_long_prompts_are_wrapped_and_cut() -> None:
    assert wrapped("a red square", 100) == ["a red square"]
    lines = wrapped("a very long prompt " * 9, 100)
    assert len(lines) == LINES
    assert lines[-1].endswith(" ...")


def test_compare_says_who_wins(drawn: Desk) -> None:
    drawn.at("answer = {'share': 0.5, 'loss': 2.0}")
    drawn.done("--methods", "plain", out="other")
    rows = json.loads(drawn("bench", "compare", "out:run", "other", "--json").out)
    (one,) = [row for row in rows if (row["suite"], row["column"]) == ("bright", "share")]
    assert (one["first"], one["second"], one["wins"], one["ties"], one["losses"]) == (
        pytest.approx(2 / 3),
        0.5,
        2,
        0,
        1,
    )
    assert one["mean"] == pytest.approx(1 / 6)
    (loss,) = [row for row in rows if (row["suite"], row["column"]) == ("bright", "loss")]
    assert (loss["wins"], loss["losses"]) == (0, 3)
    said = drawn("bench", "compare", "out:run", "other:plain").out
    assert "bright: run less plain" in said
    assert "+0.167" in said


def test_compare_takes_the_methods_that_both_have(drawn: Desk) -> None:
    drawn.done("--methods", "plain", out="other")
    said = drawn("bench", "compare", "out", "other").out
    assert "plain (out) less plain (other)" in said


def test_compare_warns_of_kin_and_of_few_prompts(drawn: Desk) -> None:
    said = drawn("bench", "compare", "out:plain", "out:run").out
    assert "toy loss†" in said
    assert "share of the colour†" not in said
    assert "† toy loss: measured with a model of the family that steered one of the two" in said
    assert "Of 1 prompts an interval says little" in said
    rows = json.loads(drawn("bench", "compare", "out:plain", "out:run", "--json").out)
    assert {row["column"] for row in rows if row["kin"]} == {"loss"}
    many = [replace(one, n=10) for one in compared(read([drawn.out]), "plain", read([drawn.out]), "run")]
    assert list(cautions(read([drawn.out]).about.columns, many, set())) == []


@pytest.mark.parametrize("width", [60, 80])
def test_a_comparison_fits_the_terminal(drawn: Desk, width: int) -> None:
    path = drawn.out / "about-0-of-1.json"
    path.write_text(path.read_text().replace("share of the colour", "the benchmark's score (spatial, complex: -like)"))
    drawn.monkeypatch.setenv("COLUMNS", str(width))
    said = drawn("bench", "compare", "out:plain", "out:run").out
    lines = [line for line in said.splitlines() if line[:1] in tuple("┏┃┡│└")]
    assert max(map(len, lines)) <= width
    assert "…" not in "".join(lines)
    assert len(re.findall(r"[+-]\d\.\d{3} to [+-]\d\.\d{3}", said)) == 6
    assert "the benchmark's score" in said


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["table", "nowhere"], "No bench wrote in nowhere"),
        (["table", "out", "out"], "say where to write by --out DIR"),
        (["table", "out", "--methods", "rum"], "--methods rum: there is none in these records. Did you mean 'run'?"),
        (["table", "out", "--column", "shape"], "--column shape: there is none in these records"),
        (["table", "out", "--json", "--markdown"], "choose one"),
        (["compare", "out:rum", "out:plain"], "The first: rum: there is none"),
        (["compare", "out", "out:plain"], "The first folder has several methods"),
        (["compare", "nowhere:run", "out:plain"], "No bench wrote in nowhere"),
    ],
)
def test_bad_words_are_refused(drawn: Desk, words: list[str], says: str) -> None:
    answer = drawn("bench", *words)
    assert answer.code == 2
    assert says in answer.err


@pytest.mark.parametrize("width", [36, 44, 300])
def test_a_narrow_terminal_has_its_columns_one_below_the_other(drawn: Desk, width: int) -> None:
    drawn.monkeypatch.setenv("COLUMNS", str(width))
    said = drawn("bench", "table", "out").out
    tables = [line for line in said.splitlines() if line[:1] in tuple("┏┃┡│└")]
    assert max(map(len, tables)) <= width
    assert "…" not in "".join(tables)
    assert said.count("0.67 ± 0.33") == 2
    assert (said.count("┏") > 2) == (width < 300)
