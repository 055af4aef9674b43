"""Every check of a zoo can fail: one with one fault fails the check that looks for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict, Field

from referee.errors import PromptError, WeightsError
from referee.hooks import Checkpoint, Spec, ZooFile, ZooSpec, hookimpl
from referee.plugins import Registry
from referee.testing import (
    CheckFailed,
    ToyPrior,
    ToyReferee,
    check_zoo,
    zoos,
)
from referee.testing.checks import examine_zoo


class Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    model: str = Field("", description="a folder")


PRESET = 'height = 16\nwidth = 16\n[prior]\nname = "toy"\n[[referees]]\nname = "toy"\n'


def shelf(part: str = "toy", file: str = "test_zoos.py", **options: str) -> Callable[[], tuple[Checkpoint, ...]]:
    one = Checkpoint("toy", Path(__file__).parent, (ZooFile(file),) if file else (), {part: options}, mend="Fetch it.")
    return lambda: (one,)


ZOO = ZooSpec("toys", "", "toys", shelf(model="here"), {"toys": PRESET})


@pytest.fixture
def table() -> Registry:
    class Toys:
        @hookimpl
        def referee_referees(self, register: Any) -> None:
            def look(options: Model) -> None:
                if options.model == "cut":
                    raise WeightsError("model.safetensors is cut short.")

            register(Spec("toy", "", lambda o, p: ToyReferee(), Model, look))

        @hookimpl
        def referee_priors(self, register: Any) -> None:
            register(Spec("toy", "", lambda o, p: ToyPrior(), Model))

    registry = Registry()
    assert registry.add(Toys(), "toys").status == "active"
    return registry


def offered(registry: Registry, zoo: ZooSpec) -> ZooSpec:
    class Zoo:
        @hookimpl
        def referee_zoos(self, register: Any) -> None:
            register(zoo)

    assert registry.add(Zoo(), "zoo").status == "active"
    return zoo


def nothing(prompt: str) -> None:
    raise PromptError("draws nothing")


ZOOS: dict[str, tuple[str, str, str, dict[str, Any]]] = {
    "files": ("files_are_whole", "failed", "is missing", {"checkpoints": shelf(file="no.bin", model="x")}),
    "no files": ("files_are_whole", "skipped", "list no files", {"checkpoints": shelf(file="")}),
    "no mend": (
        "files_are_whole",
        "failed",
        "says no mend",
        {"checkpoints": lambda: (replace(shelf()()[0], mend=""),)},
    ),
    "preset": ("presets_are_settings", "failed", "There is no preset 'other'", {"preset": "other"}),
    "toml": ("presets_are_settings", "failed", "'bad' cannot be used", {"presets": {"toys": PRESET, "bad": "a = "}}),
    "setting": ("presets_are_settings", "failed", "no 'stepz'", {"presets": {"toys": PRESET, "bad": "stepz = 1"}}),
    "part": ("checkpoints_fit_parts", "failed", "which no plug-in offers", {"checkpoints": shelf("no")}),
    "option": ("checkpoints_fit_parts", "failed", "there is no 'folder'", {"checkpoints": shelf(folder="x")}),
    "cut": ("checkpoints_fit_parts", "failed", "cut short", {"checkpoints": shelf(model="cut")}),
    "start": ("a_run_would_start", "failed", "cut short", {"checkpoints": shelf(model="cut")}),
    "words": ("a_run_would_start", "skipped", "draws nothing", {"check_prompt": nothing}),
}


def test_a_whole_zoo_passes(table: Registry) -> None:
    assert {outcome.status for outcome in check_zoo(offered(table, ZOO), table)} == {"ok"}
    assert [check.__name__ for check in zoos.CHECKS] == [outcome.check for outcome in examine_zoo(ZOO, table)]


@pytest.mark.parametrize("fault", ZOOS)
def test_a_zoo_with_a_fault_is_caught(fault: str, table: Registry) -> None:
    check, status, says, changes = ZOOS[fault]
    found = {outcome.check: outcome for outcome in examine_zoo(offered(table, replace(ZOO, **changes)), table)}[check]
    assert found.status == status
    assert says in found.says
    if status == "failed":
        with pytest.raises(CheckFailed, match=says):
            check_zoo(replace(ZOO, **changes), table)
