"""What is a prompt, and what is refused before anything loads."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from referee.errors import PromptError
from referee.prompt import MAX_PROMPT, Prompt


def test_white_space_is_folded() -> None:
    assert Prompt(" a \t red\n\ncircle ").text == "a red circle"


@pytest.mark.parametrize("text", ["", " ", "\n\t"])
def test_an_empty_prompt_is_refused(text: str) -> None:
    with pytest.raises(PromptError, match="The prompt is empty"):
        Prompt(text)


def test_length_has_a_limit() -> None:
    assert len(Prompt("x" * MAX_PROMPT).text) == MAX_PROMPT
    with pytest.raises(PromptError, match=f"has {MAX_PROMPT + 1} characters"):
        Prompt("x" * (MAX_PROMPT + 1))


@pytest.mark.parametrize("text", ["a\0b", "red\x1b[31m", "from a latin-1 terminal \udcfc"])
def test_what_could_not_be_written_down_is_refused(text: str) -> None:
    with pytest.raises(PromptError, match="control characters or broken ones"):
        Prompt(text)


def test_phrases_and_relations_come_along_as_data() -> None:
    given_ = Prompt("both", ("a red  dog", "a car"), (("a red dog", "left of", " a car"),))
    assert given_.phrases == ("a red dog", "a car")
    assert given_.relations == (("a red dog", "left of", "a car"),)
    assert Prompt("both").phrases == Prompt("both").relations == ()
    with pytest.raises(PromptError, match="The prompt is empty"):
        Prompt("both", phrases=("a dog", " "))
    with pytest.raises(PromptError, match=r"\(phrase, relation, phrase\), not \('a dog', 'a car'\)"):
        Prompt("both", relations=(("a dog", "a car"),))  # type: ignore[arg-type]


@given(st.text())
def test_any_text_is_a_prompt_or_a_prompt_error(text: str) -> None:
    try:
        prompt = Prompt(text)
    except PromptError:
        return
    assert prompt.text == prompt.text.strip()
    assert Prompt(prompt.text) == prompt
    prompt.text.encode()
