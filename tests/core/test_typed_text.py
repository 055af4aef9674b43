"""Text options that look like something else, as they are typed."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel

from referee.errors import OptionError
from referee.options import validate
from referee.settings import Part
from referee.typed import parse_part


class Options(BaseModel):
    model: str = ""
    tag: str | None = None


@pytest.mark.parametrize("typed", ["123", "true", "1e3", "2024-01-01", "[1, 2]"])
@pytest.mark.parametrize("name", ["model", "tag"])
def test_the_hint_at_quotes_is_one_that_works(name: str, typed: str) -> None:
    def options(text: str) -> dict[str, Any]:
        read: dict[str, Any] = parse_part(f"clip:{name}={text}", Part)["options"]
        return read

    with pytest.raises(OptionError, match=rf"referee 'clip': {name}: .* is text in double quotes, {name}=\"\.\.\.\""):
        validate(Options, options(typed), "referee 'clip'")
    assert getattr(validate(Options, options(f'"{typed}"'), "referee 'clip'"), name) == typed
