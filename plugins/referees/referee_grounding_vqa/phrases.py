"""What a prompt asks for: its noun phrases, and how they lie to each other. No model library is needed.

Three sources, the first that is there: the caller's own data (`Prompt.phrases`, `Prompt.relations`); spaCy's noun
chunks, which T2I-CompBench takes (arXiv 2307.06350, section 4.1), where spaCy and its small English model happen to be
installed; else the little grammar below, which is not the benchmark's parser. `Asked.source` says which it was.

    phrase    = words between joints; a determiner opens a new one, and the word before it was a verb
    joint     = "and" | "with" | "has" | "," | preposition | form of "to be" | relation
    relation  = "to the left of" | "on the right of" | "above" | "on top of" | "below" | "under" | "next to" | ...

"of" stays inside ("a piece of cake"), and so do adjectives joined by "and" or a comma ("a black and white cat"). A
colour that is said of a thing goes to it ("the car is red"); what is denied ("without a hat") is not asked for.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from typing import Literal, NamedTuple

from referee.errors import PromptError
from referee.prompt import Prompt

Source = Literal["data", "spacy", "grammar"]

RELATIONS: dict[str, str] = {
    "left of": r"(?:(?:to|on|at) the )?left(?:-hand)?(?: side)? of",
    "right of": r"(?:(?:to|on|at) the )?right(?:-hand)?(?: side)? of",
    "above": r"(?:on|at) (?:the )?top of|above|over",
    "below": r"(?:on|at) the bottom of|below|underneath|under|beneath",
    "near": r"next to|close to|(?:on|at|by) (?:the )?side of|nearby|near|beside|alongside",
}
"""Pattern of each relation's wordings. "near" has no direction."""

MODEL = "en_core_web_sm"
NO_CHUNKS = ("top", "the side", "the left", "the right")
"""Chunks that the benchmark leaves out: parts of a relation."""
MAX_WORDS = 7
"""Of a phrase: what is longer was not understood."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_DETERMINERS = _words(
    "a an the this these those some many several each every both another its their his her my our your one two three "
    "four five six seven eight nine ten"
)
_JOINTS = _words("and but with has have having wearing holding plus while which that who & + , ; :")
_PREPOSITIONS = _words(
    "in on at by for from into onto to inside within through across along around behind between before against "
    "during out off up down toward towards as"
) | {"in front of"}
_DENIALS = _words("without no not")
_TO_BE = _words("is are was were be being been")
_STEMS = _words("sit stand rest hang lie perch nap float lean")
_POSTURES = _words(
    "sits sitting stands standing rests resting hangs hanging lies lying perches perched floats floating leans leaning "
    "hung sat stood placed located parked flying kept nearby empty"
)
"""Words at a phrase's end that say how the thing is there: dropped; the stems, which may be nouns, only before a
preposition."""
_COLOURS = _words(
    "black white red green blue yellow orange purple cyan pink brown grey gray gold silver tan beige whitish"
)
_ADJECTIVES = _words("big small large little tiny huge long short tall round square old new bright dark")

_RELATION = re.compile("|".join(rf"(?P<r{i}>\b(?:{words})\b)" for i, words in enumerate(RELATIONS.values())))
_TOKEN = re.compile(r"in front of|[^\W_][\w'’.:-]*\w|[^\W_]|[,;:&+]")


class Span(NamedTuple):
    """A phrase and where it stands in the prompt."""

    start: int
    end: int
    text: str


@dataclass(frozen=True, slots=True)
class Asked:
    """What a prompt asks for.

    Attributes:
        phrases: each once, in order.
        relations: (phrase, one of `RELATIONS`, phrase).
        source: where they come from.
    """

    phrases: tuple[str, ...]
    relations: tuple[tuple[str, str, str], ...]
    source: Source


def ask(prompt: Prompt) -> Asked:
    """Read the phrases and relations of a prompt.

    Raises:
        PromptError: none can be made out, or given ones are of no use; names what was understood.

    >>> ask(Prompt("a red circle above a blue square")).relations
    (('a red circle', 'above', 'a blue square'),)
    """
    if prompt.phrases or prompt.relations:
        return _given(prompt)
    text = prompt.text.lower()
    chunks, source = _chunks(text)
    if not chunks:
        raise PromptError(f"No phrase can be made out in '{prompt.text}'. {_mend(())}")
    if long := [span.text for span in chunks if len(span.text.split()) > MAX_WORDS]:
        raise PromptError(
            f"In '{prompt.text}' the words '{long[0]}' were not understood as a phrase. "
            + _mend(tuple(span.text for span in chunks if span.text not in long))
        )
    return Asked(tuple(dict.fromkeys(span.text for span in chunks)), tuple(_relations(text, chunks)), source)


def _mend(phrases: tuple[str, ...]) -> str:
    understood = ", ".join(f"'{phrase}'" for phrase in phrases) or "nothing"
    return (
        f'Understood was: {understood}. Say it in simpler words, such as "a red apple to the left of a green cup", or '
        'give them as data: Prompt(text, phrases=("a red apple", ...), relations=(("a red apple", "left of", "a green '
        'cup"), ...)).'
    )


def _given(prompt: Prompt) -> Asked:
    for first, relation, second in prompt.relations:
        if relation not in RELATIONS:
            known = ", ".join(f"'{name}'" for name in RELATIONS)
            raise PromptError(f"The relation '{relation}' of '{first}' and '{second}' is none of {known}.")
    named = [phrase for first, _, second in prompt.relations for phrase in (first, second)]
    return Asked(tuple(dict.fromkeys((*prompt.phrases, *named))), prompt.relations, "data")


def _chunks(text: str) -> tuple[list[Span], Source]:
    if find_spec("spacy") is None or not (spacy := import_module("spacy")).util.is_package(MODEL):
        return list(phrases(text)), "grammar"
    relations = [found.span() for found in _RELATION.finditer(text)]
    found = [Span(chunk.start_char, chunk.end_char, chunk.text) for chunk in spacy.load(MODEL)(text).noun_chunks]
    return [
        span for span in found
        if span.text not in NO_CHUNKS and not any(start <= span.start and span.end <= end for start, end in relations)
    ], "spacy"  # fmt: skip


def _relations(text: str, chunks: list[Span]) -> Iterator[tuple[str, str, str]]:
    """Each relation's words with the phrases nearest before and after them."""
    names = list(RELATIONS)
    for found in _RELATION.finditer(text):
        before = [span.text for span in chunks if span.end <= found.start()]
        after = [span.text for span in chunks if span.start >= found.end()]
        if before and after:
            yield before[-1], names[int(str(found.lastgroup)[1:])], after[0]


def phrases(text: str) -> Iterator[Span]:
    """The grammar: noun phrases of a prompt in lower case.

    >>> [span.text for span in phrases("the wooden spoon and metallic ladle serve the soup in a plastic bowl.")]
    ['the wooden spoon', 'metallic ladle', 'the soup', 'a plastic bowl']
    """
    pieces = [_Piece("")]
    end = 0
    for relation in [*_RELATION.finditer(text), None]:
        for token in _TOKEN.finditer(text, end, relation.start() if relation else len(text)):
            word, last = token.group(), pieces[-1]
            if (kind := _kind(word)) and not (word in ("and", ",") and last.adjectives_go_on(text[token.end() :])):
                pieces.append(_Piece(kind))
            elif word in _DETERMINERS and last.is_whole():
                last.drop_verb()
                pieces.append(_Piece("", [token]))
            else:
                last.tokens.append(token)
        if relation:
            end = relation.end()
            pieces.append(_Piece("relation"))
    for i, piece in enumerate(pieces):
        named = [before for before in pieces[:i] if before.words]
        if named and piece.opened_by == "be" and len(piece.words) == 1 and piece.words[0] in _COLOURS:
            named[-1].colour = piece.words[0]
    for piece, after in zip(pieces, [*pieces[1:], _Piece("")], strict=True):
        if span := piece.span(after.opened_by):
            yield span


@dataclass(slots=True)
class _Piece:
    """The words between two joints, the kind of the joint before them, and a colour that is said of them later."""

    opened_by: str
    tokens: list[re.Match[str]] = field(default_factory=list)
    colour: str = ""

    @property
    def words(self) -> list[str]:
        return [token.group() for token in self.tokens]

    def is_whole(self) -> bool:
        """Whether a determiner that comes now opens a new phrase: not in "both the cats" nor in "a row of the cats"."""
        return bool(self.tokens) and self.words[-1] != "of" and not _DETERMINERS.issuperset(self.words)

    def drop_verb(self) -> None:
        """A determiner follows with no joint: "metallic ladle serve | the soup"."""
        if sum(word not in _DETERMINERS for word in self.words) > 1:
            self.tokens.pop()

    def adjectives_go_on(self, rest: str) -> bool:
        """Whether "and" or a comma stands among adjectives: "a black and white cat", "a long, narrow kitchen"."""
        words = self.words
        adjectives = words[1:] if words and words[0] in _DETERMINERS else words
        follow = re.match(r"\s*([\w'-]+)\s+([\w'-]+)", rest)
        if not follow or follow[1] in _DETERMINERS or _kind(follow[2]) or len(adjectives) != 1:
            return False
        return adjectives[0] in _COLOURS or (len(words) == 2 and adjectives[0] in _ADJECTIVES)

    def span(self, after: str) -> Span | None:
        """The phrase, without what is said of its posture; None if it names no thing ("is parked")."""
        while len(self.tokens) > 1 and (
            self.words[-1] in _POSTURES or (self.words[-1] in _STEMS and after in ("preposition", "relation"))
        ):
            self.tokens.pop()
        while self.tokens and self.words[0] == "of":
            del self.tokens[0]
        words = self.words
        bare = not words or words[0] not in _DETERMINERS
        if self.opened_by == "denied" or (self.opened_by == "be" and bare):
            return None
        if all(word in _DETERMINERS | _POSTURES for word in words):
            return None
        if self.colour:
            words = [self.colour, *words] if bare else [words[0], self.colour, *words[1:]]
        return Span(self.tokens[0].start(), self.tokens[-1].end(), " ".join(word for word in words if word != ","))


def _kind(word: str) -> str:
    if word in _JOINTS:
        return "joint"
    if word in _PREPOSITIONS:
        return "preposition"
    if word in _DENIALS:
        return "denied"
    return "be" if word in _TO_BE else ""
