"""What the grounding-VQA referee makes out of a prompt: phrases, relations, and where they come from."""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from referee.errors import PromptError
from referee.prompt import Prompt
from referee_grounding_vqa.phrases import MAX_WORDS, RELATIONS, ask
from referee_pocket.words import parse, prompts


@pytest.mark.parametrize(
    ("text", "phrases"),
    [
        ("a teapot", ["a teapot"]),
        ("A red apple and a green cup.", ["a red apple", "a green cup"]),
        ("a red circle, an orange star and a black ring", ["a red circle", "an orange star", "a black ring"]),
        ("woollen socks and a tin kettle", ["woollen socks", "a tin kettle"]),
        ("a house with a blue door and white shutters", ["a house", "a blue door", "white shutters"]),
        ("a black and white dog on a yellow rug", ["a black and white dog", "a yellow rug"]),
        ("a tall, thin man beside a small tree", ["a tall thin man", "a small tree"]),
        ("a piece of green cake on a plate", ["a piece of green cake", "a plate"]),
        ("the silver pan and copper ladle stir the soup", ["the silver pan", "copper ladle", "the soup"]),
        ("a grey cat sits on a red sofa", ["a grey cat", "a red sofa"]),
        ("a lamp and a steel stand", ["a lamp", "a steel stand"]),
        ("a bicycle is parked in front of a brown shop", ["a bicycle", "a brown shop"]),
        ("both the cats", ["both the cats"]),
        ("the apple is green and a cup that is blue", ["the green apple", "a blue cup"]),
        ("a dog without a hat, a cat with no tail and a bird", ["a dog", "a cat", "a bird"]),
        ("two red cubes and two red cubes", ["two red cubes"]),
        ("a T-shirt and a farmer's hat", ["a t-shirt", "a farmer's hat"]),
    ],
)
def test_phrases(text: str, phrases: list[str]) -> None:
    asked = ask(Prompt(text))
    assert list(asked.phrases) == phrases
    assert asked.source == "grammar"


@pytest.mark.parametrize(
    ("words", "relation"),
    [
        ("to the left of", "left of"), ("on the left of", "left of"), ("on the left side of", "left of"),
        ("left of", "left of"), ("on the right of", "right of"), ("is to the right of", "right of"),
        ("above", "above"), ("on top of", "above"), ("on the top of", "above"), ("sitting on top of", "above"),
        ("below", "below"), ("under", "below"), ("on the bottom of", "below"), ("is hanging beneath", "below"),
        ("next to", "near"), ("near", "near"), ("on side of", "near"), ("on the side of", "near"), ("beside", "near"),
    ],
)  # fmt: skip
def test_relations(words: str, relation: str) -> None:
    asked = ask(Prompt(f"A big dog {words} a red car."))
    assert asked.phrases == ("a big dog", "a red car")
    assert asked.relations == (("a big dog", relation, "a red car"),)


def test_a_relation_joins_its_neighbours() -> None:
    asked = ask(Prompt("a pond and a dog to the left of a red car and a bird above a tree"))
    assert asked.relations == (("a dog", "left of", "a red car"), ("a bird", "above", "a tree"))
    assert ask(Prompt("a dog nearby")).relations == ()


def test_the_pocket_worlds_prompts_of_three_things() -> None:
    for text in prompts("tune", 60, "complex"):
        asked, wanted = ask(Prompt(text)), parse(text)
        assert asked.phrases == tuple(map(str, wanted.things))
        assert len(asked.relations) == (wanted.relation is not None)
        assert all((first, second) == asked.phrases[:2] for first, _, second in asked.relations)


@pytest.mark.parametrize("suite", ["attributes", "relations"])
def test_the_pocket_worlds_prompts(suite: Any) -> None:
    for text in prompts("tune", 60, suite):
        asked = ask(Prompt(text))
        assert len(asked.phrases) == 2
        assert len(asked.relations) == (suite == "relations")
        if asked.relations:
            ((first, relation, second),) = asked.relations
            assert text == f"{first} {'to the ' if relation.endswith(' of') else ''}{relation} {second}"
        else:
            assert text == " and ".join(asked.phrases)


def test_data_goes_before_everything() -> None:
    prompt = Prompt("whatever this says", ("a red dog",), (("a red dog", "near", "a hat"),))
    asked = ask(prompt)
    assert (asked.phrases, asked.relations, asked.source) == (("a red dog", "a hat"), prompt.relations, "data")


def test_a_relation_nobody_knows_is_refused() -> None:
    with pytest.raises(PromptError, match="'inside' of 'a dog' and 'a box' is none of 'left of'"):
        ask(Prompt("a dog", relations=(("a dog", "inside", "a box"),)))


@pytest.mark.parametrize("text", ["and with of", "...", "the", "next to"])
def test_a_prompt_without_a_thing_says_how_to_give_phrases(text: str) -> None:
    with pytest.raises(PromptError, match=r"Understood was: .*Prompt\(text, phrases="):
        ask(Prompt(text))


def test_words_that_make_no_phrase_are_named_with_what_was_understood() -> None:
    long = " ".join(f"word{i}" for i in range(MAX_WORDS + 1))
    with pytest.raises(PromptError, match=rf"'{long}' were not understood.*Understood was: 'a red dog'"):
        ask(Prompt(f"a red dog and {long}"))


@given(st.text())
def test_any_prompt_is_understood_or_refused(text: str) -> None:
    try:
        asked = ask(Prompt(text))
    except PromptError:
        return
    assert all(phrase.strip() for phrase in asked.phrases)
    assert all(a in asked.phrases and b in asked.phrases and r in RELATIONS for a, r, b in asked.relations)


def test_spacy_is_asked_where_its_model_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its model cannot be had from the package index, so this stands in for it: what is made of chunks."""
    text = "a dog on the left of a car"
    chunks = [(0, 5), (9, 17), (21, 26)]

    def load(name: str) -> Any:
        spans = [SimpleNamespace(start_char=a, end_char=b, text=text[a:b]) for a, b in chunks]
        return lambda words: SimpleNamespace(noun_chunks=spans)

    spacy = ModuleType("spacy")
    spacy.__spec__ = ModuleSpec("spacy", None)
    installed = True
    spacy.util = SimpleNamespace(is_package=lambda name: installed and name == "en_core_web_sm")  # type: ignore[attr-defined]
    spacy.load = load  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "spacy", spacy)
    asked = ask(Prompt(text))
    assert (asked.phrases, asked.source) == (("a dog", "a car"), "spacy")
    assert asked.relations == (("a dog", "left of", "a car"),)
    installed = False
    assert ask(Prompt(text)).source == "grammar"
