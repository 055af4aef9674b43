"""What parts of all kinds are held to: the toys pass it all; options and imports with a fault are caught."""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict, Field

from referee import balance
from referee.contract import Prompt, Pull
from referee.hooks import Spec
from referee.testing import (
    Outcome,
    ToyAugmentation,
    ToyPrior,
    ToyReferee,
    augmentations,
    balancers,
    priors,
    referees,
)

Outcomes = Callable[..., dict[str, Outcome]]
Make = Callable[..., Spec]


EXAMINED: dict[str, Any] = {
    "referee": (referees, ToyReferee), "prior": (priors, ToyPrior), "augmentation": (augmentations, ToyAugmentation),
    "balancer": (balancers, lambda: balance.norm),
}  # fmt: skip


@pytest.mark.parametrize("kind", EXAMINED)
def test_the_toys_pass(kind: str, spec: Make, outcomes: Outcomes) -> None:
    module, make = EXAMINED[kind]
    found = outcomes(kind, spec(make))
    assert [outcome for outcome in found.values() if outcome.status == "failed"] == []
    assert list(found) == [check.__name__ for check in module.CHECKS]
    skipped = {name for name, outcome in found.items() if outcome.status == "skipped"}
    # As asked; and no toy has a model or a way of its own to look at pictures.
    assert skipped - {"views_whole_pictures"} == {"imports_nothing_heavy", "is_frozen"}


class Chatty(ToyPrior):
    def read(self, prompt: Prompt) -> Pull:
        warnings.warn("it will not see the end of the prompt", stacklevel=2)
        return super().read(prompt)


def test_what_a_part_warns_of_the_checks_own_prompt_is_not_said(
    spec: Make, outcomes: Outcomes, recwarn: pytest.WarningsRecorder
) -> None:
    assert {outcome.status for outcome in outcomes("prior", spec(Chatty)).values()} <= {"ok", "skipped"}
    assert list(recwarn) == []


class Loose(BaseModel):
    model_config = ConfigDict(frozen=True)


class Soft(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Odd(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    a: int = 1


class Once(BaseModel):
    """Comes back from a dump as another."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)
    how: Any = Field(default=print, description="not data")
    what: Any = Field(default_factory=lambda: lambda x: x, description="not data")


OPTIONS: dict[str, tuple[type[BaseModel], str, str]] = {
    "extra": (Loose, "options_are_strict", "a misspelt one would do nothing"),
    "mutable": (Soft, "options_are_strict", "can be changed after it was checked"),
    "bare": (Odd, "options_are_described", "a: no description"),
    "no data": (Once, "options_round_trip", r"do not come back from model_dump\(mode='json'\)"),
}


@pytest.mark.parametrize("fault", OPTIONS)
@pytest.mark.parametrize("kind", EXAMINED)
def test_options_with_a_fault_are_caught(kind: str, fault: str, spec: Make, outcomes: Outcomes) -> None:
    model, check, says = OPTIONS[fault]
    found = outcomes(kind, spec(EXAMINED[kind][1], model))[check]
    assert found.status == "failed"
    with pytest.raises(AssertionError, match=says):
        raise AssertionError(found.says)


def test_options_that_cannot_be_pickled_are_caught(spec: Make, outcomes: Outcomes) -> None:
    class Local(BaseModel):  # pickle finds classes by their place in a module
        model_config = ConfigDict(extra="forbid", frozen=True)
        a: int = Field(1, description="a")

    found = outcomes("referee", spec(ToyReferee, Local))["options_round_trip"]
    assert "cannot be pickled for another process" in found.says


def plugin_file(folder: Path, line: str, monkeypatch: pytest.MonkeyPatch) -> Spec:
    """The spec of a plug-in in a module of its own, which begins with that line."""
    code = f"{line}\n\ndef make(options, place):\n    from referee.testing import ToyReferee\n    return ToyReferee()\n"
    (folder / "stranger_checked.py").write_text(code)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, "stranger_checked", raising=False)
    return Spec("part", "", importlib.import_module("stranger_checked").make)


def test_heavy_imports_are_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, outcomes: Outcomes) -> None:
    heavy = outcomes("referee", plugin_file(tmp_path, "import torch", monkeypatch), skip=[])["imports_nothing_heavy"]
    assert heavy.status == "failed"
    assert "Importing stranger_checked imports numpy, torch: every start" in heavy.says
    light = outcomes("referee", plugin_file(tmp_path, "import json", monkeypatch), skip=[])["imports_nothing_heavy"]
    assert light.status == "ok"
    assert "ms beyond referee's own" in light.says
    broken = plugin_file(tmp_path, "import json", monkeypatch)
    (tmp_path / "stranger_checked.py").write_text("import no_such_library_at_all")
    found = outcomes("referee", broken, skip=[])["imports_nothing_heavy"]
    assert "cannot be imported alone: ModuleNotFoundError: No module named 'no_such_library_at_all'" in found.says
