"""What a prompt of T2I-CompBench names: the phrases that BLIP-VQA asks for, the two things that the spatial score looks
for, and the prompt without its adjectives, which is what CLIP reads of "complex".

Three sources; a report says which it was, as only the second gives the benchmark's own numbers:

- data: a JSON file, made once where spaCy's model can be had. ``{"made by": "spaCy 3.8.7, en_core_web_sm 3.8.0",
  "prompts": {PROMPT: {"phrases": [...], "objects": [FIRST, SECOND], "plain": TEXT}}}``; ``objects`` may be [] and
  "objects" and "plain" may be left out where they are not needed;
- spacy: noun chunks and parts of speech by ``en_core_web_sm``, read as the benchmark's code reads them;
- template: the phrase splitter of `referee_grounding_vqa`, and word lists for adjectives. It is not the benchmark's
  parser, and how far it agrees with it is not known.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from referee.errors import OptionError
from referee_compbench.template import TEMPLATE, template

MODEL = "en_core_web_sm"
NO_PHRASES = frozenset({"top", "the side", "the left", "the right"})
"""Chunks that the benchmark leaves out; "the top" stays."""
PEOPLE = frozenset({"girl", "boy", "man", "woman"})
"""Who is looked for as "person"."""
PREPOSITIONS = frozenset({"on top of", "on bottom of", "on the left", "on the right", "next to", "on side of", "near"})
"""Between the two things of a prompt of "complex"; "on the top of" is not among them."""


class _Given(BaseModel):
    """What a file of data says of one prompt."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    phrases: tuple[str, ...]
    objects: tuple[str, str] | tuple[()] | None = None
    plain: str | None = None


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    made_by: str = Field(alias="made by", min_length=1)
    prompts: dict[str, _Given] = Field(min_length=1)


@dataclass(frozen=True, slots=True)
class Reading:
    """What a prompt names.

    Attributes:
        phrases: in order, repeats too.
        objects: the two things of a spatial prompt; None if it has not two.
        plain: the prompt without its adjectives.
        source: who says so.
    """

    phrases: tuple[str, ...]
    objects: tuple[str, str] | None
    plain: str
    source: str


Reader = Callable[[str, bool], Reading]
"""Reads a prompt; and whether it is one of "complex", whose two things are sought otherwise."""


def reader(given: Path | None, parser: str) -> Reader:
    """Data first, prompt by prompt; then spaCy if it is there or asked for; else templates.

    Args:
        given: a file of data.
        parser: "auto", "spacy" or "template".

    Raises:
        OptionError: the file is none of data.
    """
    data = read_given(given) if given is not None else None
    parsed: Reader = by_spacy if parser == "spacy" or (parser == "auto" and spacy_is_here()) else by_template

    def read(prompt: str, complex_: bool) -> Reading:
        if data is None or (said := data.prompts.get(prompt)) is None:
            return parsed(prompt, complex_)
        other = None if said.objects is not None and said.plain is not None else parsed(prompt, complex_)
        objects = said.objects if said.objects is not None else other.objects if other else None
        plain = said.plain if said.plain is not None else other.plain if other else prompt
        return Reading(said.phrases, _people(objects), plain, f"data: {data.made_by}")

    return read


def read_given(path: Path) -> _File:
    """A file of data.

    Raises:
        OptionError: it is missing or of another form; names the place.
    """
    form = '{"made by": "...", "prompts": {"a green bench": {"phrases": ["a green bench"]}}}'
    try:
        return _File.model_validate_json(path.expanduser().read_bytes())
    except OSError as error:
        raise OptionError(f"phrases={path} cannot be read: {error.strerror or error}.") from error
    except ValidationError as error:
        first = error.errors()[0]
        place = " -> ".join(map(str, first["loc"]))
        where = f"{place}: " if place else ""
        raise OptionError(f"phrases={path}: {where}{first['msg']}. Its form is {form}.") from error


def spacy_is_here() -> bool:
    """Whether spaCy and its small English model are installed; nothing installs them."""
    return find_spec("spacy") is not None and bool(import_module("spacy").util.is_package(MODEL))


@cache
def _spacy() -> Any:
    return import_module("spacy").load(MODEL)


def by_spacy(prompt: str, complex_: bool) -> Reading:
    """As the benchmark's code reads a prompt."""
    document = _spacy()(prompt)
    chunks = tuple(chunk.text for chunk in document.noun_chunks if chunk.text not in NO_PHRASES)
    tokens = [(token.text, token.pos_) for token in document]
    texts = [" ".join(text for text, _ in tokens[i : i + 3]) for i in range(len(tokens))]
    objects = _around(tokens, texts) if complex_ else _first_and_last(tokens)
    plain = " ".join(text for text, kind in tokens if kind != "ADJ")
    return Reading(chunks, _people(objects), plain, f"spaCy {_version('spacy')}, {MODEL} {_version(MODEL)}")


def _first_and_last(tokens: Sequence[tuple[str, str]]) -> tuple[str, str] | None:
    nouns = [text for text, kind in tokens if kind == "NOUN"]
    return (nouns[0], nouns[-1]) if nouns else None


def _around(tokens: Sequence[tuple[str, str]], texts: Sequence[str]) -> tuple[str, str] | None:
    """The nouns next to a preposition, of all prepositions together: two, or the benchmark takes none."""
    found: list[str] = []
    for i, text in enumerate(texts):
        words = text.split(" ")
        length = next((n for n in (3, 2, 1) if " ".join(words[:n]) in PREPOSITIONS and len(words) >= n), 0)
        if not length:
            continue
        before = next((word for word, kind in reversed(tokens[:i]) if kind in ("NOUN", "PROPN")), None)
        after = _after(tokens[i + length :])
        found += [word for word in (before, after) if word is not None]
    return (found[0], found[1]) if len(found) == 2 else None


def _after(tokens: Sequence[tuple[str, str]]) -> str | None:
    """The first noun; where there is none, the last word of the first name that does not end the prompt."""
    for word, kind in tokens:
        if kind == "NOUN":
            return word
    return next((word for (word, kind), (_, following) in pairwise(tokens) if kind == "PROPN" != following), None)


def by_template(prompt: str, complex_: bool) -> Reading:
    """Without a parser, see `referee_compbench.template`."""
    named, objects, plain = template(prompt)
    return Reading(named, _people(objects), plain, TEMPLATE)


def _people(objects: Sequence[str] | None) -> tuple[str, str] | None:
    if not objects:
        return None
    first, second = ("person" if name in PEOPLE else name for name in objects)
    return first, second


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "?"
