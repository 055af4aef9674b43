"""The judge at work with real parts, and the pocket world's detector as a referee, held against its own verdicts."""

from __future__ import annotations

import itertools
import random
import warnings
from dataclasses import replace

import pytest
import torch

from referee import Judge, load, score
from referee.errors import PromptError
from referee.folder import checkpoint
from referee.parts import Parts
from referee.play import drain
from referee.plugins import discover
from referee.prompt import Prompt
from referee.result import Standing
from referee.testing import check_referee
from referee_pocket import world
from referee_pocket.judge import Judge as PocketJudge
from referee_pocket.referee import DetectorReferee
from referee_pocket.words import Thing, Wanted

PROMPT = "a red circle and a blue striped square"
FEW = {"rules": {"steps": 6, "tail": 1, "views": 2}}


@pytest.fixture(scope="module")
def pocket() -> DetectorReferee:
    return DetectorReferee(PocketJudge().detector)


@pytest.fixture(scope="module")
def parts() -> Parts:
    return load(judge="clip", settings={**FEW, "judge": {"every": 1, "pick": True}}, device="cpu")


def test_it_keeps_the_contract() -> None:
    check_referee(discover().find("referee", "pocket-judge"), prompt=PROMPT)


def test_its_doubt_is_small_where_things_are_as_asked_and_nowhere_else(pocket: DetectorReferee) -> None:
    """Two things in 40 scenes that no training saw: as they are, with colours swapped, and those of the next scene."""
    scenes = world.sample(40, torch.Generator().manual_seed(7), count=2, with_held_out=True)
    x = world.render(scenes)
    for i in range(40):
        a, b = scenes.things(i)
        there = Wanted((a, b))
        swapped = Wanted((Thing(b.colour, a.shape, a.texture), Thing(a.colour, b.shape, b.texture)))
        elsewhere = Wanted(tuple(scenes.things((i + 1) % 40)))
        right, mixed, wrong = (
            pocket.read(Prompt(str(wanted)))(x[i : i + 1]).item() for wanted in (there, swapped, elsewhere)
        )
        assert right < 0.5
        assert wrong > right + 2
        if a.colour != b.colour and a.shape != b.shape:
            assert mixed > right + 2


def test_its_relations_are_those_of_the_verdict(pocket: DetectorReferee) -> None:
    """P(relation) is above 1/2 exactly where the verdict says that it is right."""
    judge = PocketJudge()
    scenes = world.sample(40, torch.Generator().manual_seed(8), count=2, with_held_out=True)
    x, found = world.render(scenes), []
    for i, relation in itertools.product(range(40), range(4)):
        things = tuple(scenes.things(i))
        plain, told = (Wanted(things, each) for each in (None, relation))
        losses = [pocket.read(Prompt(str(wanted)))(x[i : i + 1]).item() for wanted in (plain, told)]
        p = torch.tensor(2 * losses[0] - 3 * losses[1]).exp().item()  # means over two things, and over those and it
        verdict = judge.score(x[i : i + 1], told)[0].relation
        found.append((verdict, p > 0.5))
    assert all(verdict == likely for verdict, likely in found)
    assert sum(verdict is True for verdict, _ in found) == 40


def test_its_gradient_leads_to_what_is_asked_for(pocket: DetectorReferee) -> None:
    x = torch.full((1, 3, 64, 64), 0.5).requires_grad_()
    loss = pocket.read(Prompt("a red circle to the left of a blue square"))
    before = loss(x)
    (gradient,) = torch.autograd.grad(before.sum(), x)
    assert loss(x - gradient / gradient.abs().max() / 10).item() < before.item()


def test_what_is_no_sentence_of_the_world_is_refused_before_it_loads() -> None:
    spec = discover().find("referee", "pocket-judge")
    assert spec.check_prompt is not None
    spec.check_prompt(PROMPT)
    with pytest.raises(PromptError, match="not of the form"):
        spec.check_prompt("a red")


@pytest.mark.parametrize(
    ("judge", "kin"), [("clip", []), ("blip2", ["blip2", "grounding-vqa"]), ("pocket-judge", [])]
)  # fmt: skip
def test_families_of_the_built_in_referees(judge: str, kin: list[str]) -> None:
    from referee.layers import preset
    from referee.parts import check
    from referee.settings import build

    registry = discover()
    players = {"referees": [{"name": "blip2"}, {"name": "grounding-vqa"}], "judge": {"name": judge}}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        plan = check(build([preset("pocket", registry), players]), registry, Prompt(PROMPT))
    assert plan.judge is not None
    assert [" and ".join(f"'{name}'" for name in kin) in str(each.message) for each in caught] == [True] * bool(kin)


def test_a_run_with_a_real_judge_goes_on_bit_for_bit(parts: Parts) -> None:
    assert parts.judge is not None
    pocket = load(judge="pocket-judge", settings=FEW, device="cpu").judge
    assert pocket is not None
    parts = replace(parts, judge=Judge("pocket-judge", pocket.referee, every=2, pick=True))
    kept: list[bytes] = []
    whole = drain(Prompt(PROMPT), parts, (5, 6), keep=lambda standing, _: kept.append(checkpoint.encode(standing, "")))
    assert [row["step"] for row in whole.history if "judge" in row] == [1, 3, 5]
    for cut in (random.Random(0).randrange(2, 4), 5):
        standing = checkpoint._standing(checkpoint.safetensors.torch.load(kept[cut - 1]), 2)
        assert isinstance(standing, Standing)
        rest = drain(Prompt(PROMPT), parts, (5, 6), standing=standing, history=whole.history)
        assert torch.equal(rest.z, whole.z)
        assert (rest.history, rest.judged) == (whole.history, whole.judged)


def test_a_verdict_of_clip_is_its_score_of_the_clean_picture(parts: Parts) -> None:
    assert parts.judge is not None
    from referee import Seat

    result = drain(Prompt(PROMPT), parts, (5, 6))
    assert result.judged is not None
    seat = Seat("clip", parts.judge.referee)
    scores = [score(x[None], PROMPT, [seat])["clip"] for x in result.images]
    assert scores == pytest.approx(list(result.judged.losses), abs=1e-6)
    said = [row["judge"] for row in result.history]
    assert len(said) == 6
    for i in range(2):
        column = [row[i] for row in said]
        assert result.judged.losses[i] == min(column)
        assert result.judged.taken[i] == 1 + column.index(min(column))
    assert result.judged.picked == min(range(2), key=lambda i: result.judged.losses[i])  # type: ignore[index,union-attr]
