"""The pocket world in words: its vocabulary, its grammar of captions, and which combinations training never saw.

    caption = noun | noun ("," noun)* "and" noun | noun relation noun ["and" noun]
    noun    = ("a" | "an") colour [texture] shape
    relation = "to the left of" | "to the right of" | "above" | "below"

This module needs no torch: the command line reads it to refuse a word before any model loads.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from functools import cache
from itertools import combinations
from typing import Literal

from referee.errors import PromptError

COLOURS = ("red", "green", "blue", "yellow", "orange", "purple", "cyan", "black")
SHAPES = ("circle", "square", "triangle", "star", "heart", "cross", "ring", "diamond")
TEXTURES = ("solid", "striped", "checkered", "dotted")
"""The first is what goes without saying: captions do not name it."""
RELATIONS = ("to the left of", "to the right of", "above", "below")
LITTLE = ("a", "an", "and", ",", ".", "to", "the", "left", "right", "of", "above", "below")
VOCABULARY = (*COLOURS, *SHAPES, *TEXTURES[1:], *LITTLE)
MAX_WORDS = 22
"""Words (commas count) that the text encoders read: 24 tokens with the marks of start and end."""

Kind = tuple[int, int]
"""(colour, shape), as indices."""
Split = Literal["tune", "test"]
Suite = Literal["attributes", "relations", "complex"]


@dataclass(frozen=True, slots=True)
class Thing:
    """One object in words, as indices into the tuples above."""

    colour: int
    shape: int
    texture: int = 0

    @property
    def kind(self) -> Kind:
        """Colour and shape: what is held out of training in combination."""
        return self.colour, self.shape

    def __str__(self) -> str:
        words = [COLOURS[self.colour], *([TEXTURES[self.texture]] if self.texture else []), SHAPES[self.shape]]
        return f"{'an' if words[0][0] in 'aeiou' else 'a'} {' '.join(words)}"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a caption asks for: its things in order, and the first one's place relative to the second, if said."""

    things: tuple[Thing, ...]
    relation: int | None = None

    def __str__(self) -> str:
        nouns = [str(thing) for thing in self.things]
        if self.relation is not None:
            nouns = [f"{nouns[0]} {RELATIONS[self.relation]} {nouns[1]}", *nouns[2:]]
        if len(nouns) == 1:
            return nouns[0]
        return f"{', '.join(nouns[:-1])} and {nouns[-1]}"


def split_words(text: str) -> list[str]:
    """Lower-cased words and punctuation marks, as the zoo's tokenizers cut them.

    >>> split_words("A red circle, please")
    ['a', 'red', 'circle', ',', 'please']
    """
    return re.findall(r"[^\W_]+|[^\w\s]|_", text.lower())


def check_prompt(text: str) -> None:
    """Refuse a prompt that the pocket zoo cannot read.

    Raises:
        PromptError: names the unknown words and shows the vocabulary, or says how long a prompt may be.
    """
    words = split_words(text)
    if unknown := list(dict.fromkeys(word for word in words if word not in VOCABULARY)):
        named = ", ".join(f"'{word}'" for word in unknown)
        raise PromptError(
            f"The pocket zoo does not know {named}. It draws a little world:\n"
            f"  colours   {' '.join(COLOURS)}\n"
            f"  textures  {' '.join(TEXTURES[1:])}\n"
            f"  shapes    {' '.join(SHAPES)}\n"
            f"  joined by 'and', ',', {', '.join(repr(relation) for relation in RELATIONS)}\n"
            'for example "a red circle and a blue striped square". '
            "Other words need a full-size zoo: see --zoo and `referee plugins`."
        )
    if len(words) > MAX_WORDS:
        raise PromptError(f"The prompt has {len(words)} words; the pocket zoo reads {MAX_WORDS}. Shorten it.")


def parse(text: str) -> Wanted:
    """The things and the relation that a caption asks for.

    Raises:
        PromptError: the words are unknown, or not put together as the grammar above has it.

    >>> str(parse("A red circle and an orange striped star."))
    'a red circle and an orange striped star'
    >>> len(parse("a red circle above a blue star and a black ring").things)
    3
    """
    check_prompt(text)
    joined = " ".join(word for word in split_words(text) if word != ".")
    relation = next((i for i, words in enumerate(RELATIONS) if f" {words} " in joined), None)
    if relation is None:
        return Wanted(tuple(_thing(piece, text) for piece in re.split(r" and | , ", joined)))
    first, second = joined.split(f" {RELATIONS[relation]} ", 1)
    things = tuple(_thing(piece, text) for piece in (first, *second.split(" and ")))
    if len(things) > 3:
        raise PromptError(f"Beside a relation there is room for one more thing, and '{text}' has {len(things)} in all.")
    return Wanted(things, relation)


def _thing(piece: str, text: str) -> Thing:
    names = "|".join
    pattern = rf"(?:an? )?({names(COLOURS)}) (?:({names(TEXTURES[1:])}) )?({names(SHAPES)})"
    if not (match := re.fullmatch(pattern, piece.strip())):
        raise PromptError(f"'{piece}' in '{text}' is not of the form 'a COLOUR [TEXTURE] SHAPE'.")
    colour, texture, shape = match.groups()
    return Thing(COLOURS.index(colour), SHAPES.index(shape), TEXTURES.index(texture) if texture else 0)


HELD_SINGLES: frozenset[Kind] = frozenset((c, (3 * c + 1) % 8) for c in range(8))
"""Eight (colour, shape) kinds, one of each colour and each shape, that no training scene shows."""


@cache
def held_pairs() -> dict[frozenset[Kind], Split]:
    """About a tenth of all pairs of kinds: no training scene shows both. Half is for tuning, half for tests."""
    draw = random.Random("held-out pairs")
    kinds = [(c, s) for c in range(8) for s in range(8)]
    pairs = [frozenset(pair) for pair in combinations(kinds, 2)]
    return {pair: draw.choice(("tune", "test")) for pair in pairs if draw.random() < 0.1}


def held_out(things: list[Kind]) -> bool:
    """Whether training must not show a scene of these things."""
    pairs = held_pairs()
    return any(kind in HELD_SINGLES for kind in things) or any(
        frozenset(pair) in pairs for pair in combinations(things, 2)
    )


def prompts(split: Split, count: int, suite: Suite = "attributes", seed: int = 0) -> list[str]:
    """Prompts that training never saw; what tunes a setting never tests it.

    "attributes" has two things, "relations" says how they lie to each other, "complex" has a third thing, and every
    other one of its prompts says how the first two lie. All differ in colour and in shape. Every fourth prompt has a
    held-out single (even colours for tuning, odd ones for tests), each other one a held-out pair of its split; the
    third thing brings in nothing else that is held out. The first prompts of a longer list are the shorter list.

    >>> prompts("test", 1) == prompts("test", 1), set(prompts("test", 60)) & set(prompts("tune", 60))
    (True, set())
    """
    draw = random.Random(f"{split} {suite} {seed}")
    singles = sorted(kind for kind in HELD_SINGLES if kind[0] % 2 == (split == "test"))
    pairs = sorted(tuple(sorted(pair)) for pair, home in held_pairs().items() if home == split)
    texts: list[str] = []
    while len(texts) < count:
        if len(texts) % 4 == 3:
            kinds = [draw.choice(singles), (draw.randrange(8), draw.randrange(8))]
            if kinds[1] in HELD_SINGLES or frozenset(kinds) in held_pairs():
                continue
        else:
            kinds = list(draw.choice(pairs))
            if any(kind in HELD_SINGLES for kind in kinds):
                continue
        if suite == "complex":
            kinds.append((draw.randrange(8), draw.randrange(8)))
            if kinds[2] in HELD_SINGLES or any(frozenset((kind, kinds[2])) in held_pairs() for kind in kinds[:2]):
                continue
        if any(len({kind[i] for kind in kinds}) < len(kinds) for i in range(2)):
            continue
        draw.shuffle(kinds)
        textures = [draw.choice((0, 0, 1, 2, 3)) for _ in kinds]
        things = tuple(Thing(*kind, texture) for kind, texture in zip(kinds, textures, strict=True))
        turn = (len(texts) + len(texts) // 4) % 2 == 1  # of two held-out singles that follow each other, one
        related = suite == "relations" or (suite == "complex" and turn)
        text = str(Wanted(things, draw.randrange(4) if related else None))
        if text not in texts:
            texts.append(text)
    return texts
