"""Pictures that are there already: whose they are, what is missing, what cannot be read; and how much was scored."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from referee.bench.records import read

from .conftest import Desk, scores

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)
WHOLE = {"bright/0.png": RED, "bright/1.jpg": GREEN, "bright/0002.webp": BLUE, "half-dim/00-7.png": RED}


def test_pictures_are_found_by_suite_index_and_seed(desk: Desk) -> None:
    desk.pictures(WHOLE)
    found = desk.done("--images", "given")
    assert list(found.about.methods) == ["given"]
    assert {(r.suite, r.index, r.seed): round(r.scores["share"], 2) for r in found.records} == {
        ("bright", 0, 0): 1, ("bright", 1, 0): 1, ("bright", 2, 0): 1, ("half dim", 0, 7): 1,
    }  # fmt: skip
    for record in found.records:
        assert record.seconds is None
        assert found.pictures[record.key].is_file()
    assert "CPU s" not in (desk.out / "table.md").read_text()


def test_own_pictures_are_scored_again_alike(desk: Desk) -> None:
    first = desk.done("--methods", "plain", "--seeds", "2")
    again = desk.done("--images", "out/pictures/plain", out="again")
    assert {r.key: r.scores for r in again.records} == {r.key: r.scores for r in first.records}


def test_a_bench_of_one_suite_needs_no_folder_for_it(desk: Desk) -> None:
    text = (desk.folder / "toys.py").read_text()
    (desk.folder / "toys.py").write_text(text.replace('"half dim") for', '"half dim") for _ in () for'))
    desk.pictures({"0.png": RED, "1-5.png": GREEN, "2_9.png": BLUE})
    assert {(r.index, r.seed) for r in desk.done("--images", "mine=given").records} == {(0, 0), (1, 5), (2, 9)}


def test_a_bench_may_know_how_others_name_them(desk: Desk) -> None:
    names = ("a red square", "a green square", "a blue square", "a dim red square")
    desk.pictures({f"{name}_{k:06}.png": RED for name in names for k in range(3)})
    found = desk.done("--images", "sd=given", name="named")
    assert (len(found.records), found.about.seeds) == (12, 3)
    assert {r.seed for r in found.records} == {0, 1, 2}
    assert len(desk.done("--images", "sd=given", "--seeds", "2", name="named", out="two").records) == 8


def test_a_hole_changes_no_other_pictures_number(desk: Desk) -> None:
    names = ("a red square", "a green square", "a blue square", "a dim red square")
    home = desk.pictures({f"{name}_{k:06}.png": (255, k, 0) for name in names for k in range(2)})
    content = (home / "a red square_000000.png").read_bytes()
    (home / "a red square_000000.png").unlink()
    desk.done("--images", "given", "--partial", name="named")
    (home / "a red square_000000.png").write_bytes(content)
    found = desk.done("--images", "given", name="named")
    assert sorted(r.seed for r in found.records if (r.suite, r.index) == ("bright", 0)) == [0, 1]


def test_two_pictures_of_one_number_are_refused(desk: Desk) -> None:
    desk.pictures({**WHOLE, "bright/0.jpg": GREEN, "bright/1-1.png": RED, "bright/2-1.png": RED, "half-dim/0.png": RED})
    desk.refused("are both picture 0 of 'a red square'", "--images", "given")


def test_holes_and_broken_files_are_listed_and_refused(desk: Desk) -> None:
    content = {**WHOLE, "bright/1.jpg": b"no picture", "elsewhere/3.png": RED}
    home = desk.pictures(content)
    (home / "bright/0.png").unlink()
    desk.refused("1 of 4 items lack pictures, 1 files cannot be read", "--images", "given")
    said = desk.bench("--images", "given").err
    assert "bright 0 'a red square': no picture" in said
    assert "1.jpg cannot be read as a picture" in said
    assert "1 pictures belong to no item, for example 3.png" in said
    assert "--partial scores the rest" in said


def test_with_partial_the_rest_is_scored_and_the_coverage_told(desk: Desk) -> None:
    desk.pictures({"bright/0.png": RED, "bright/2.png": b"", "half-dim/0.png": RED})
    answer = desk.bench("--images", "given", "--partial", "--json")
    assert answer.code == 0
    assert "1 of 4 items lack pictures, 1 files cannot be read" in answer.err
    told = json.loads(answer.out)
    assert {(row["suite"], row["pictures"], row["of"]) for row in told["drawn"]} == {
        ("bright", 1, 3),
        ("half dim", 1, 1),
    }
    assert "given, bright: 1 of 3 pictures (33%); the rest is not scored." in told["notes"]
    assert "| given | 1/3 |" in (desk.out / "table.md").read_text()


def test_with_partial_a_suite_of_nothing_is_told(desk: Desk) -> None:
    desk.pictures({"bright/0.png": RED, "bright/1.png": GREEN, "bright/2.png": BLUE})
    assert desk.bench("--images", "given", "--partial").code == 0
    assert (
        "given: no picture of half dim is scored; in all 3 of 4 pictures (75%)." in (desk.out / "table.md").read_text()
    )


def test_of_several_pictures_all_must_be_there(desk: Desk) -> None:
    desk.pictures({**WHOLE, "bright/0-1.png": RED})
    desk.refused("half dim 0 'a dim red square': 1 of 2 pictures", "--images", "given")
    assert len(desk.done("--images", "given", "--seeds", "1").records) == 4


@pytest.mark.parametrize("partial", [True, False])
def test_a_folder_of_nothing_is_refused(desk: Desk, partial: bool) -> None:
    Path("given").mkdir()
    desk.refused("4 of 4 items lack pictures", "--images", "given", *(["--partial"] if partial else []))


def test_it_goes_on_with_what_is_new_and_notices_what_changed(desk: Desk) -> None:
    desk.pictures({"bright/0.png": RED})
    desk.done("--images", "given", "--partial")
    desk.pictures(WHOLE)
    whole = desk.done("--images", "given")
    assert scores(desk.done("--images", "given", out="whole")) == scores(whole)
    desk.pictures({"bright/0.png": BLUE})
    answer = desk.bench("--images", "given")
    assert answer.code == 2
    assert "is not the picture that out has scores of" in answer.err
    assert scores(read([desk.out])) == scores(whole)


def test_pictures_stand_beside_methods(desk: Desk) -> None:
    desk.pictures(WHOLE)
    found = desk.done("--images", "given", "--methods", "plain")
    assert list(found.about.methods) == ["plain", "given"]
    answer = desk.bench("--images", "plain=given", "--methods", "plain", out="clash")
    assert (answer.code, "Two methods have one name" in answer.err) == (2, True)
