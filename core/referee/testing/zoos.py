"""Checks of a zoo: its files are whole, its presets are settings, and its checkpoints fit parts that are there."""

from __future__ import annotations

from dataclasses import dataclass

from referee import zoos
from referee.errors import PromptError, RefereeError
from referee.hooks import Spec, ZooSpec
from referee.layers import preset
from referee.options import validate
from referee.parts import check
from referee.plugins import KINDS, SPECS, Registry
from referee.prompt import Prompt
from referee.settings import build
from referee.testing.outcome import Check, CheckFailed, LeftOut


@dataclass(frozen=True, slots=True)
class ZooCase:
    """A zoo and the plug-ins that are there."""

    spec: ZooSpec
    registry: Registry
    prompt: Prompt


def files_are_whole(case: ZooCase) -> str:
    """All files of all checkpoints are there, of the published size and not cut short."""
    try:
        shelf = case.spec.checkpoints()
    except RefereeError as error:
        raise CheckFailed(str(error)) from error
    if not any(checkpoint.files for checkpoint in shelf):
        raise LeftOut("its checkpoints list no files: a cut download would be found by the model library, if at all")
    for checkpoint in shelf:
        if not checkpoint.mend:
            raise CheckFailed(f"Its checkpoint '{checkpoint.name}' says no mend= for a missing file.")
        try:
            zoos.require(checkpoint)
        except RefereeError as error:
            raise CheckFailed(str(error)) from error
    return ", ".join(checkpoint.name for checkpoint in shelf)


def presets_are_settings(case: ZooCase) -> str:
    """Every preset is TOML that builds settings for this zoo; its own is among those that are known."""
    for name in {case.spec.preset, *case.spec.presets}:
        try:
            build([preset(name, case.registry), {"zoo": case.spec.name}])
        except (RefereeError, ValueError) as error:
            raise CheckFailed(f"The preset '{name}' cannot be used: {error}") from error
    return ", ".join(sorted({case.spec.preset, *case.spec.presets}))


def checkpoints_fit_parts(case: ZooCase) -> str:
    """Each checkpoint's options are options of a part that is there, and pass the part's own look at its files."""
    shelf = case.spec.checkpoints()
    for name in sorted({name for checkpoint in shelf for name in checkpoint.options}):
        options = zoos.options_of(shelf, name)
        kinds = [kind for kind in KINDS if SPECS.get(kind, Spec) is Spec and name in case.registry.names(kind)]
        if not kinds:
            raise CheckFailed(
                f"It has a checkpoint for '{name}', which no plug-in offers: name the part, not the library."
            )
        for kind in kinds:
            spec = case.registry.find(kind, name)
            try:
                chosen = validate(spec.options, options, f"{kind} '{name}'")
                if spec.check:
                    spec.check(chosen)
            except RefereeError as error:
                raise CheckFailed(f"Its checkpoint does not fit. {error}") from error
    return ", ".join(sorted({name for checkpoint in shelf for name in checkpoint.options}))


def a_run_would_start(case: ZooCase) -> None:
    """Its preset with its checkpoints passes all that is looked at before a model loads."""
    try:
        settings = build([preset(case.spec.preset, case.registry), {"zoo": case.spec.name}])
        check(settings, case.registry, case.prompt)
    except PromptError as error:
        raise LeftOut(f"it refuses the prompt: {error}") from error
    except RefereeError as error:
        raise CheckFailed(str(error)) from error


CHECKS: tuple[Check, ...] = (files_are_whole, presets_are_settings, checkpoints_fit_parts, a_run_would_start)
