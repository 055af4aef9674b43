"""The prompt: what a person asks for. Apart, so that it can be refused before torch is imported."""

from __future__ import annotations

from dataclasses import dataclass
from unicodedata import category

from referee.errors import PromptError

MAX_PROMPT = 1000
"""Characters. Far beyond what any text encoder reads (77 tokens); longer input is a mistake, not a prompt."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """The words to draw. Each part reads them once, before the first step.

    Args:
        text: what a person types.
        phrases: the things in it, for referees that look at them one by one and would else make them out themselves.
        relations: how things lie to each other: (phrase, relation, phrase), e.g. ``("a dog", "left of", "a car")``.

    Raises:
        PromptError: the text is empty, longer than ``MAX_PROMPT`` characters, or has control characters; or one
            of the phrases is.

    >>> Prompt("  a red circle ").text
    'a red circle'
    """

    text: str
    phrases: tuple[str, ...] = ()
    relations: tuple[tuple[str, str, str], ...] = ()

    def __post_init__(self) -> None:
        text = " ".join(self.text.split())
        if not text:
            raise PromptError('The prompt is empty. Say what to draw, for example: "a red circle and a blue square".')
        if len(text) > MAX_PROMPT:
            raise PromptError(f"The prompt has {len(text)} characters; at most {MAX_PROMPT} are read. Shorten it.")
        if any(category(char) in ("Cc", "Cs") for char in text):  # they would fail when the picture is written
            raise PromptError(f"The prompt {text!a} has control characters or broken ones. Write it as plain text.")
        object.__setattr__(self, "text", text)
        object.__setattr__(self, "phrases", tuple(Prompt(phrase).text for phrase in self.phrases))
        for relation in self.relations:
            if len(relation) != 3:
                raise PromptError(f"A relation is (phrase, relation, phrase), not {relation!r}.")
        relations = tuple(tuple(Prompt(words).text for words in relation) for relation in self.relations)
        object.__setattr__(self, "relations", relations)
