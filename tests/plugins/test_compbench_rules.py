"""T2I-CompBench's and GenEval's rules as pure functions: cases worked out by hand, and what must hold for all boxes."""

from __future__ import annotations

import math
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from referee_compbench.boxes import Box, Found, distinct, iou, surest
from referee_compbench.geneval import COLOURS, TASKS, Clause, Task, correct, counted
from referee_compbench.scores import attribute_score, key, rounded, route, three_in_one
from referee_compbench.spatial import (
    DISTANCE,
    RELATIONS,
    directions,
    frame,
    position_score,
    relation_in,
    relation_score,
    spatial_score,
)

SIDES = {"on the left of": "on the right of", "on the top of": "on the bottom of"}
SIDES |= {b: a for a, b in SIDES.items()}
settings.register_profile("compbench", derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
settings.load_profile("compbench")


def box(x: int, y: int, width: int, height: int) -> Box:
    return Box(float(x), float(y), float(x + width), float(y + height))


def boxes() -> st.SearchStrategy[Box]:
    """Of whole pixels, with an area."""
    return st.builds(box, *[st.integers(0, 400)] * 2, *[st.integers(1, 79)] * 2)


def finds() -> st.SearchStrategy[Found]:
    return st.builds(Found, st.floats(0.01, 1), boxes())


def at(x: float, y: float, size: float = 40) -> Box:
    """A square about a centre."""
    return Box(x - size / 2, y - size / 2, x + size / 2, y + size / 2)


# --- boxes ---------------------------------------------------------------------------------------------------


@given(boxes(), boxes())
def test_iou_is_a_share_the_same_both_ways(a: Box, b: Box) -> None:
    assert 0 <= iou(a, b) == iou(b, a) <= 1
    assert iou(a, a) == 1


def test_iou_by_hand() -> None:
    assert iou(Box(0, 0, 10, 10), Box(5, 5, 15, 15)) == 25 / 175
    assert iou(Box(0, 0, 10, 10), Box(10, 0, 20, 10)) == 0
    assert iou(Box(0, 0, 10, 10), Box(20, 20, 30, 30)) == 0
    assert iou(Box(3, 3, 3, 3), Box(3, 3, 3, 3)) == 0  # no area, and no division by zero


@given(st.lists(finds(), max_size=8))
def test_each_thing_is_kept_once_and_the_surest_always(found: list[Found]) -> None:
    kept = distinct(found)
    assert [one.confidence for one in kept] == sorted((one.confidence for one in kept), reverse=True)
    assert all(iou(a.box, b.box) <= 0.5 for i, a in enumerate(kept) for b in kept[:i])
    assert all(any(iou(one.box, other.box) > 0.5 or one == other for other in kept) for one in found)
    assert bool(kept) == bool(found)


def test_the_surest_is_taken_if_it_is_sure_enough() -> None:
    found = [Found(0.4, at(10, 10)), Found(0.6, at(50, 50)), Found(0.5, at(90, 90))]
    assert surest(found, 0.5) == found[1]
    assert surest(found, 0.6) is None  # above, not at
    assert surest([], 0.1) is None


# --- T2I-CompBench: 2D-spatial -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prompt", "relation"),
    [
        ("a mouse on side of a key", "on side of"),
        ("a giraffe next to a lamp", "next to"),
        ("a cat near a box", "near"),
        ("a girl on the left of a frog", "on the left of"),
        ("a girl on the right of a frog", "on the right of"),
        ("a girl on the bottom of a frog", "on the bottom of"),
        ("a girl on the top of a frog", "on the top of"),
        ("The red hat was on top of the coat.", "on top of"),
        ("a dog near a lamp on the left of a cup", "near"),  # by the order of the list, not of the prompt
        ("a pond nearby", "near"),  # part of a word is enough
        ("A cat above a dog", None),
        ("A cat Next to a dog", None),  # by the very letters
    ],
)
def test_the_relation_is_the_first_of_the_list_that_is_in_the_prompt(prompt: str, relation: str | None) -> None:
    assert relation_in(prompt) == relation


def test_one_near_axis_is_enough_to_be_near() -> None:
    """Trap: the published code says OR."""
    for relation in ("near", "next to", "on side of"):
        assert relation_score(relation, at(20, 20), at(460, 20)) == 1  # 440 px apart, in one row
        assert relation_score(relation, at(0, 0), at(DISTANCE, DISTANCE)) == 1  # not below 150, and 150 / 150
        assert relation_score(relation, at(0, 0), at(300, 200)) == 150 / 300
        assert relation_score(relation, at(0, 0), at(200, 400)) == 150 / 400


@pytest.mark.parametrize(
    ("relation", "first"),
    [
        ("on the left of", (100, 240)), ("on the right of", (380, 240)), ("on the top of", (240, 100)),
        ("on the bottom of", (240, 380)),
    ],
)  # fmt: skip
def test_x_runs_to_the_right_and_y_downwards(relation: str, first: tuple[float, float]) -> None:
    middle = at(240, 240)
    assert relation_score(relation, at(*first), middle) == 1
    assert relation_score(relation, middle, at(*first)) == 0
    for other in SIDES.keys() - {relation}:
        assert relation_score(other, at(*first), middle) == 0


def test_a_direction_must_outweigh_the_other_axis() -> None:
    assert relation_score("on the left of", at(100, 100), at(200, 199)) == 1
    assert relation_score("on the left of", at(100, 100), at(200, 200)) == 0  # on the diagonal neither holds
    assert relation_score("on the top of", at(100, 100), at(200, 200)) == 0


def test_overlap_fades_a_direction() -> None:
    a, b = Box(0, 0, 10, 10), Box(5, 0, 15, 10)  # iou 1/3
    assert relation_score("on the left of", a, b) == pytest.approx(0.1 / (1 / 3))
    assert relation_score("on the left of", Box(0, 0, 100, 10), Box(82, 0, 182, 10)) == 1  # 18 / 182 < .1
    just = relation_score("on the left of", Box(0, 0, 110, 10), Box(90, 0, 200, 10))  # 20 / 200: no longer below .1
    assert just == 1.0
    assert relation_score("near", a, b) == 1  # which overlap does not matter for


def test_on_top_of_never_scores() -> None:
    """Trap: it is in the list and has no branch: 33 prompts of "complex" have no spatial score whatever they show."""
    assert relation_score("on top of", at(240, 100), at(240, 380)) == 0
    sure = (Found(0.99, at(240, 100)), Found(0.99, at(240, 380)))
    assert spatial_score("on top of", *sure) == 0
    assert spatial_score("on the top of", *sure) == pytest.approx(0.995)
    assert relation_score(None, at(240, 100), at(240, 380)) == 0


def test_nothing_below_a_half_remains() -> None:
    """Trap: so one thing alone never scores."""
    left, right = at(100, 240), at(380, 240)
    say = "on the left of"
    assert spatial_score(say, Found(1, left), None) == 0
    assert spatial_score(say, None, Found(1, right)) == 0
    assert spatial_score(say, None, None) == 0
    assert spatial_score(say, Found(0.6, left), Found(0.8, right)) == pytest.approx(0.85)
    assert spatial_score(say, Found(0.9, right), Found(0.9, left)) == 0  # .45, and cut
    assert spatial_score(say, Found(1, right), Found(1, left)) == 0.5  # not below


@given(st.none() | finds(), st.none() | finds(), st.sampled_from([*RELATIONS, None]))
def test_the_closed_form_of_the_cut(a: Found | None, b: Found | None, relation: str | None) -> None:
    """The score is not 0 only if both are found and r >= 1 - (c1 + c2) / 2."""
    score = spatial_score(relation, a, b)
    assert score == 0 or 0.5 <= score <= 1
    if a is None or b is None:
        assert score == 0
        return
    r = relation_score(relation, a.box, b.box)
    assert 0 <= r <= 1
    sure = (a.confidence + b.confidence) / 2
    assume(abs(r - (1 - sure)) > 1e-9)
    assert (score > 0) == (r >= 1 - sure)
    if score:
        assert score == pytest.approx(sure / 2 + r / 2)


@given(boxes(), boxes(), st.sampled_from(RELATIONS))
def test_from_the_other_side(a: Box, b: Box, relation: str) -> None:
    mirrored = SIDES.get(relation, relation)
    assert relation_score(relation, a, b) == relation_score(mirrored, b, a)
    if relation in SIDES:
        assert not (relation_score(relation, a, b) and relation_score(mirrored, a, b))


def test_pixel_constants_are_meant_at_479() -> None:
    for side in (64, 512, 1024):
        assert frame(side, side) == (479 / side, 479 / side)
    x, y = frame(512, 768)  # the longer side may have 480, and both shrink
    assert (x, y) == (480 / 768, 480 / 768)
    a, b = Box(0, 0, 40, 40), Box(160, 160, 200, 200)  # 160 px apart at 512 are 149.7 at 479
    scaled = [box.scaled(*frame(512, 512)) for box in (a, b)]
    assert relation_score("near", a, b) == 150 / 160
    assert relation_score("near", *scaled) == 1


# --- GenEval: where --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("offset", "wanted"),
    [
        ((-100, 0), {"left of"}), ((100, 0), {"right of"}), ((0, -100), {"above"}), ((0, 100), {"below"}),
        ((-100, -100), {"left of", "above"}), ((100, 100), {"right of", "below"}), ((0, 0), set()),
        ((-8, 8), set()),  # not more than a tenth of both sizes
        ((-100, -30), {"left of"}),
    ],
)  # fmt: skip
def test_directions_by_hand(offset: tuple[float, float], wanted: set[str]) -> None:
    assert directions(at(240 + offset[0], 240 + offset[1]), at(240, 240)) == wanted


def test_the_offset_that_counts_is_less_than_the_offset() -> None:
    """o' = |o| - .1 (w1 + w2), over the whole |o|: 100 px apart, boxes of 260 px leave .48 of it, of 240 px .52."""
    assert directions(at(100, 240, 260), at(200, 240, 260)) == set()
    assert directions(at(100, 240, 240), at(200, 240, 240)) == {"left of"}


@given(boxes(), boxes())
def test_directions_turn_round(a: Box, b: Box) -> None:
    turned = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
    assert {turned[name] for name in directions(a, b)} == directions(b, a)
    assert not {"left of", "right of"} <= directions(a, b)
    assert not {"above", "below"} <= directions(a, b)


@given(boxes(), boxes())
def test_directions_by_the_formula(a: Box, b: Box) -> None:
    """Once more with numpy, axis by axis."""
    both = np.array([a, b]).reshape(2, 2, 2)
    offset = both.mean(1)[0] - both.mean(1)[1]
    sizes = (both[:, 1] - both[:, 0]).sum(0)
    left = np.sign(offset) * np.maximum(np.abs(offset) - 0.1 * sizes, 0)
    wanted = set()
    if (np.abs(left) >= 1e-3).any():
        dx, dy = left / np.linalg.norm(offset)
        assume(min(abs(abs(dx) - 0.5), abs(abs(dy) - 0.5)) > 1e-9)
        wanted |= {"left of"} if dx < -0.5 else {"right of"} if dx > 0.5 else set()
        wanted |= {"above"} if dy < -0.5 else {"below"} if dy > 0.5 else set()
    assert directions(a, b) == wanted


def test_genevals_rule_on_compbenchs_prompts() -> None:
    high, low = Found(0.5, at(240, 100)), Found(0.5, at(240, 380))
    assert position_score("on the top of", high, low) == 1
    assert position_score("on top of", high, low) == 1  # which CompBench's own rule does not know
    assert position_score("on the bottom of", high, low) == 0
    assert position_score("on the top of", high, None) == 0
    assert position_score("near", high, low) is None
    assert position_score(None, high, low) is None


# --- T2I-CompBench: BLIP-VQA and 3-in-1 -----------------------------------------------------------------------


def test_answers_are_rounded_one_by_one_and_their_product_again() -> None:
    assert attribute_score([0.98765432]) == 0.9877
    assert attribute_score([0.00004, 1.0]) == 0  # gone before the product
    assert attribute_score([0.12344, 0.5]) == 0.0617  # .1234 * .5, where .12344 * .5 = .06172
    assert attribute_score([0.33335, 0.33335]) == rounded(float(np.float32(0.3333) * np.float32(0.3333)))


def test_no_phrase_scores_one() -> None:
    assert attribute_score([]) == 1


def test_only_the_first_eight_phrases_count() -> None:
    """Trap: it was two until December 2023."""
    assert attribute_score([0.5] * 8 + [0.0]) == attribute_score([0.5] * 8) == 0.0039
    assert attribute_score([0.5, 0.5, 0.0], most=2) == 0.25


def test_the_product_is_in_single_precision() -> None:
    """A pair whose product is cut otherwise in double precision exists, and is cut as in single."""
    grid = [i / 10000 for i in range(1, 10000, 7)]
    pairs = [(a, b) for a, b in product(grid[:400], grid[-400:]) if rounded(a * b) != attribute_score([a, b])]
    assert pairs
    a, b = pairs[0]
    assert attribute_score([a, b]) == rounded(float(np.float32(a) * np.float32(b)))


@given(st.lists(st.floats(0, 1), max_size=10))
def test_more_phrases_never_help(answers: list[float]) -> None:
    score = attribute_score(answers)
    assert 0 <= score <= 1
    assert score == rounded(score)
    assert attribute_score([*answers, 0.7]) <= score
    exact = math.prod(answers[:8])
    assert score == pytest.approx(exact, abs=5e-5 * 9)


def test_three_in_one_by_hand() -> None:
    assert three_in_one(0.8, 0.6, 0.3, "spatial") == pytest.approx(0.7)
    assert three_in_one(0.8, 0.6, 0.3, "action") == pytest.approx(0.55)
    assert three_in_one(0.8, 0.6, 0.3, "both") == pytest.approx(1.7 / 3)


def test_routes_are_looked_up_without_full_stop_and_capitals() -> None:
    spatial, action = frozenset({key("The hat was near the coat.")}), frozenset({key("A dog runs. Fast.")})
    assert route("the hat was near the coat", spatial, action) == "spatial"
    assert route("A dog runs.", spatial, action) == "action"
    assert route("A dog runs near the coat.", spatial, action) == "both"
    assert route("The hat was near the coat.", spatial, spatial) == "spatial"  # which is asked first


# --- GenEval ---------------------------------------------------------------------------------------------------


def task(*include: dict[str, Any], exclude: tuple[dict[str, Any], ...] = (), tag: str = "two_object") -> Task:
    return Task.model_validate({"tag": tag, "prompt": "p", "include": include, "exclude": exclude})


def red(one: Found, name: str) -> str:
    """For boxes whose left half of the picture is red."""
    return "red" if one.box.x0 < 240 else "blue"


def right(said: Task, **objects: list[Box]) -> bool:
    given = {name: [Found(0.9 - i / 100, box) for i, box in enumerate(each)] for name, each in objects.items()}
    verdict, faults = correct(said, given, red)
    assert verdict == (not faults)
    return verdict


def test_objects_must_be_there() -> None:
    one = task({"class": "dog", "count": 1}, tag="single_object")
    assert right(one, dog=[at(9, 9)])
    assert right(one, dog=[at(9, 9), at(90, 90)])  # more of them are no fault
    assert not right(one, cat=[at(9, 9)])
    two = task({"class": "dog", "count": 1}, {"class": "cat", "count": 1})
    assert right(two, dog=[at(9, 9)], cat=[at(9, 9)])
    assert not right(two, dog=[at(9, 9)])


def test_counting_means_exactly() -> None:
    three = task({"class": "dog", "count": 3}, exclude=({"class": "dog", "count": 4},), tag="counting")
    for number in range(6):
        assert right(three, dog=[at(40 * i, 9) for i in range(number)]) == (number == 3)


def test_colours_are_those_of_the_surest() -> None:
    said = task({"class": "dog", "count": 1, "color": "red"}, tag="colors")
    assert right(said, dog=[at(100, 100), at(400, 100)])
    assert not right(said, dog=[at(400, 100), at(100, 100)])  # only the first is looked at
    both = task({"class": "dog", "count": 2, "color": "red"})
    assert not right(both, dog=[at(100, 100), at(400, 100)])
    assert right(both, dog=[at(100, 100), at(200, 100), at(400, 100)])


def test_colours_are_bound_to_their_things() -> None:
    said = task(
        {"class": "dog", "count": 1, "color": "red"}, {"class": "cat", "count": 1, "color": "blue"}, tag="color_attr"
    )
    assert right(said, dog=[at(100, 100)], cat=[at(400, 100)])
    assert not right(said, dog=[at(400, 100)], cat=[at(100, 100)])


def test_positions_are_seen_from_the_clause_that_is_named() -> None:
    said = task({"class": "cat", "count": 1}, {"class": "dog", "count": 1, "position": ["left of", 0]}, tag="position")
    assert right(said, cat=[at(400, 100)], dog=[at(100, 100)])
    assert not right(said, cat=[at(100, 100)], dog=[at(400, 100)])
    assert right(said, cat=[at(400, 100)], dog=[at(100, 100), at(450, 100)])
    assert not right(said, dog=[at(100, 100)])
    assert "nothing that 'dog' could be left of" in correct(said, {"dog": [Found(1, at(1, 1))]}, red)[1][1]
    pairs = task({"class": "cat", "count": 2}, {"class": "dog", "count": 1, "position": ["left of", 0]})
    assert not right(pairs, cat=[at(400, 100), at(50, 100)], dog=[at(200, 100)])  # of both of them


def test_a_thing_of_the_wrong_colour_is_no_target() -> None:
    said = task({"class": "cat", "count": 1, "color": "red"}, {"class": "dog", "count": 1, "position": ["left of", 0]})
    assert right(said, cat=[at(200, 100)], dog=[at(50, 100)])
    assert not right(said, cat=[at(400, 100)], dog=[at(50, 100)])


def test_sixteen_of_a_class_are_looked_at_above_the_threshold() -> None:
    found = [Found(0.2 + i / 100, at(i, i)) for i in range(30)]
    chosen = counted(found, 0.3)
    assert len(chosen) == 16
    assert chosen[0].confidence == pytest.approx(0.49)
    assert all(one.confidence > 0.3 for one in counted(found, 0.3))
    assert len(counted(found, 0.4)) == 9  # above, not at


@pytest.mark.parametrize(
    "clause",
    [
        {"class": "dog"}, {"class": "", "count": 1}, {"class": "dog", "count": 0},
        {"class": "dog", "count": 1, "color": "mauve"}, {"class": "dog", "count": 1, "position": ["inside", 0]},
        {"class": "dog", "count": 1, "position": ["left of"]},
    ],
)  # fmt: skip
def test_a_clause_that_says_nothing_that_can_be_judged_is_refused(clause: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Clause.model_validate(clause)


def test_a_clause_cannot_be_seen_from_one_after_it() -> None:
    for group in (1, 2, -1):
        with pytest.raises(ValidationError, match="not before it"):
            task({"class": "cat", "count": 1}, {"class": "dog", "count": 1, "position": ["above", group]})


def test_the_tasks_and_colours_are_genevals() -> None:
    assert len(TASKS) == 6
    assert len(COLOURS) == 10
