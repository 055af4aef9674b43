"""A part made of anything, and what the checks say of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from pydantic import BaseModel

from referee.hooks import NoOptions, Spec
from referee.testing import Outcome
from referee.testing.checks import examine


@pytest.fixture
def spec() -> Callable[..., Spec]:
    """The spec of a part that a function makes."""

    def made(make: Callable[[], Any], options: type[BaseModel] = NoOptions) -> Spec:
        return Spec("part", "", lambda chosen, place: make(), options)

    return made


@pytest.fixture
def outcomes() -> Callable[..., dict[str, Outcome]]:
    """All outcomes by check, but for the look at imports: these modules import torch, and all of it."""

    def found(kind: Any, made: Spec, **asked: Any) -> dict[str, Outcome]:
        outcomes = examine(kind, made, asked.pop("options", {}), **{"skip": ["imports_nothing_heavy"], **asked})
        return {outcome.check: outcome for outcome in outcomes}

    return found
