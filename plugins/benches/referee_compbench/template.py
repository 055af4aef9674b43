"""What a prompt names, where there is no parser: by the joints of its sentence and lists of words.

The phrases are those of `referee_grounding_vqa.phrases`, a little grammar; the lists say what an adjective looks like
before a thing's name, and were looked over on the benchmark's prompts. None of it is the benchmark's parser.
"""

from __future__ import annotations

import re

from referee_compbench.spatial import relation_in
from referee_grounding_vqa.phrases import phrases as split

TEMPLATE = "templates"


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_DETERMINERS = _words("a an the this that these those its his her their our your my one two three four some")
_ADJECTIVES = _words(
    "red orange yellow green blue purple pink brown black white grey gray gold silver beige tan cyan whitish round "
    "square oval big small large little tiny long short tall thick thin wide soft hard rough smooth warm hot cool "
    "cold bright dark light old new young sharp dull sleek crisp fresh tart sour sweet ripe damp wet dry deep clean "
    "plain calm sticky plush matte opaque translucent delicate fragrant gentle tender vibrant brilliant ancient human "
    "grand lush rich dim early open intricate distant elegant hardcover"
)
_ENDINGS = re.compile(r"\w{2,}(?:y|ed|ing|ful|ous|al|ar|ic|en|ent|ant|ive|less|able|ular)|\w+-\w+")
_NOUNS = _words(
    "story berry lily candy city country butterfly ivy jelly wedding ceiling living dining rocking hiking swimming "
    "watering rolling baking measuring metal crystal journal garden kitchen oven chicken linen kitten penguin music "
    "picnic fabric car guitar jar sugar collar cellar plant elephant pendant plastic ceramic garlic teddy cherry bed "
    "morning engine building medal petal display symbol strawberry raspberry kitty puppy baby fairy body"
)
"""Words that end like adjectives and are none."""
_TRAILERS = _words("lay lie lies sat sits swam stood stands hung hangs rests tall up")
"""Verbs and their company that the splitter leaves at a phrase's end: "the tomato lay next to ..."."""


def template(prompt: str) -> tuple[tuple[str, ...], tuple[str, str] | None, str]:
    """Phrases by joints, things by the relation's words, adjectives by lists.

    Returns:
        The phrases; the things before and after the relation, if there is one; the prompt without its adjectives.

    >>> template("The red hat was on top of the coat rack.")
    (('the red hat', 'the coat rack'), ('hat', 'coat rack'), 'The hat was on top of the coat rack.')
    """
    text = prompt.lower()
    spans = list(split(text))
    named = tuple(" ".join(_named(span.text)) for span in spans)
    relation = relation_in(text)
    objects = None
    if relation is not None:
        at = text.index(relation)
        before = [span.text for span in spans if span.start < at]
        after = [span.text for span in spans if span.start >= at]
        if before and after:
            objects = (bare(before[-1]), bare(after[0]))
    plain = prompt
    for phrase in named:
        for word in _adjectives(phrase):
            plain = re.sub(rf"(?i)\b{re.escape(word)}\b,?\s*", "", plain, count=1)
    return named, objects, plain


def bare(phrase: str) -> str:
    """A phrase without determiner and adjectives.

    >>> bare("the fluffy white coffee table")
    'coffee table'
    """
    gone = _adjectives(phrase)
    words = [word for word in _named(phrase) if word not in gone]
    while len(words) > 1 and words[0] in _DETERMINERS | {"and"}:
        del words[0]
    return " ".join(words)


def _adjectives(phrase: str) -> list[str]:
    """Those before a phrase's last word, which names the thing."""
    return [word for word in _named(phrase)[:-1] if word in _ADJECTIVES or _ends_like_one(word)]


def _named(phrase: str) -> list[str]:
    """A phrase's words up to the name of the thing."""
    words = phrase.split()
    while len(words) > 2 and (words[-1] in _TRAILERS or (len(words[-1]) > 4 and words[-1].endswith("ed"))):
        words.pop()
    return words


def _ends_like_one(word: str) -> bool:
    return word not in _NOUNS and _ENDINGS.fullmatch(word) is not None
