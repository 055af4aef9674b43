"""A part under examination, and the checks that parts of every kind share."""

from __future__ import annotations

import inspect
import os
import pickle
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from pydantic import BaseModel, ValidationError
from torch import Tensor

from referee.errors import RefereeError, where
from referee.hooks import Place, Spec
from referee.options import validate
from referee.prompt import Prompt
from referee.settings import BalancerPart, RefereePart
from referee.testing.outcome import CheckFailed, LeftOut
from referee.testing.probe import apart, global_state, modules_in, under_seed
from referee.testing.start import start
from referee.typed import own_keys

Play = Callable[["Case"], Sequence[Tensor]]
"""Uses a part as a run would, always with the same input and the same generators; returns what comes out."""

MARK = 728_251_917
UNKNOWN = "no_such_option_at_all"


@dataclass(frozen=True, slots=True)
class Case:
    """One part, made with options at a place.

    Attributes:
        reseeded: whether its factory seeded torch's global generator.
        play: how a run would use it.
        here: the names in the working directory before the part was made.
    """

    kind: str
    spec: Spec
    options: BaseModel
    place: Place
    prompt: Prompt
    size: tuple[int, int]
    play: Play
    here: frozenset[str] = frozenset()
    part: Any = None
    reseeded: bool = False

    @classmethod
    def of(
        cls, kind: str, spec: Spec, options: Mapping[str, object], prompt: str, place: Place, size: tuple[int, int],
        play: Play,
    ) -> Case:  # fmt: skip
        """Validate the options, check them, and make the part.

        Raises:
            RefereeError: the options are refused, or files are missing.
        """
        chosen = validate(spec.options, options, f"{kind} '{spec.name}'")
        if spec.check:
            spec.check(chosen)
        return cls(kind, spec, chosen, place, Prompt(prompt), size, play, _here()).at(place)

    def at(self, place: Place) -> Case:
        """The same case with a part made for another place."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(MARK)
            part = self.spec.factory(self.options, place)
            reseeded = torch.initial_seed() != MARK
        return replace(self, place=place, part=part, reseeded=reseeded)


def imports_nothing_heavy(case: Any) -> str:
    """The plug-in's module is read whenever the command starts: in an interpreter of its own, what does it import?"""
    maker: Any = case.spec.factory if isinstance(case.spec, Spec) else case.spec.convert
    module = getattr(maker, "__module__", None)
    try:
        file = inspect.getfile(maker)
    except (TypeError, OSError):  # a partial, an object; a class of a single file
        file = None
    if module is None or file is None or module == "__main__":
        raise LeftOut("what makes it is not a function of a module")
    found = start(module, file)
    if found.error:
        raise CheckFailed(f"{module} cannot be imported alone: {found.error}")
    if found.heavy:
        raise CheckFailed(
            f"Importing {module} imports {', '.join(found.heavy)}: every start of the command, even its help, would "
            f"wait for that. Import it inside the factory, and for types alone under `if TYPE_CHECKING:`."
        )
    return f"{found.seconds * 1000:.0f} ms beyond referee's own"


def options_are_strict(case: Any) -> None:
    """A misspelt option is refused, and options are not changed once checked."""
    model = case.spec.options
    given = case.options.model_dump()
    try:
        model.model_validate({**given, UNKNOWN: 1})
    except ValidationError:
        pass
    else:
        raise CheckFailed(
            f"{model.__name__} takes options that it does not have: a misspelt one would do nothing, without a word. "
            f'Set model_config = ConfigDict(extra="forbid", frozen=True).'
        )
    if not model.model_config.get("frozen"):
        raise CheckFailed(
            f"{model.__name__} can be changed after it was checked. "
            f'Set model_config = ConfigDict(extra="forbid", frozen=True).'
        )


def options_round_trip(case: Any) -> None:
    """Options survive what a run's record and another process do to them."""
    model = case.spec.options
    mend = "Keep to numbers, text, lists of them, paths and enumerations; make objects of them in the factory."
    for mode in ("python", "json"):
        try:
            again = model.model_validate(case.options.model_dump(mode=mode))
        except Exception as error:
            raise CheckFailed(
                f"Its options do not come back from model_dump(mode={mode!r}): {where(error)}. {mend}"
            ) from error
        if again != case.options:
            raise CheckFailed(f"Its options come back from model_dump(mode={mode!r}) as others: {again!r}. {mend}")
    if model.__module__ not in sys.modules:  # a single file as a plug-in, which no other process imports
        return
    try:
        same = pickle.loads(pickle.dumps(case.options)) == case.options  # its own bytes, of a moment ago
    except Exception as error:
        raise CheckFailed(f"Its options cannot be pickled for another process: {where(error)}. {mend}") from error
    if not same:
        raise CheckFailed(f"Its options come back from pickle as others. {mend}")


def options_are_described(case: Any) -> None:
    """The descriptions of the fields are the only help that a person gets."""
    bare = [name for name, field in case.spec.options.model_fields.items() if not field.description]
    if bare:
        raise CheckFailed(
            f"{', '.join(bare)}: no description, and `referee plugins show {case.spec.name}` has nothing else to show. "
            f'Write Field(default, description="half a line, with the unit").'
        )


def repeats_itself(case: Case) -> None:
    """The same input and generators give the same output, whatever the global seed."""
    first, second = (under_seed(seed, lambda: case.play(case)) for seed in (1, 2))
    for a, b in zip(first, second, strict=True):
        if (difference := apart(a, b)) > 1e-5:
            raise CheckFailed(
                f"Two calls on the same input differ, by {difference:.1g} of their size: a seed would not draw its "
                "picture again. Usual reasons: dropout or BatchNorm in training mode (call .eval()), draws from "
                "torch's global generator (draw from those that are handed in), a value kept from the call before."
            )


def leaves_global_seeds_alone(case: Case) -> None:
    """Neither seeds nor draws from the generators that belong to everybody."""
    if case.reseeded:
        raise CheckFailed(
            "Its factory calls torch.manual_seed: from then on everybody's draws in this process are other ones. Use a "
            "torch.Generator of its own."
        )
    before = global_state()
    case.play(case)
    if global_state() != before:
        raise CheckFailed(
            "It draws from the global generator of torch, numpy or random (or seeds it): what a seed draws then "
            "depends on what else runs in this process. Use the generators that are handed in, or a torch.Generator "
            "of its own."
        )


def _here() -> frozenset[str]:
    return frozenset(entry.name for entry in os.scandir()) - {"__pycache__", ".pytest_cache"}


def writes_nothing(case: Case) -> None:
    """Leaves the folder in which the command was typed as it was."""

    case.play(case)
    if changed := sorted(_here() ^ case.here):
        raise CheckFailed(
            f"It changes the working directory: {changed[0]}. A run writes into its own folder alone; caches belong "
            f"into the library's own cache folder, what is only for looking at into a `referee_step` hook."
        )


def is_frozen(case: Case) -> str:
    """Its models take no gradient and are in evaluation mode; what cannot be found cannot be looked at."""
    reader = case.part.read(case.prompt) if hasattr(case.part, "read") else None
    modules = modules_in(case.part, reader)
    if not modules:
        raise LeftOut("no torch module was found in it")
    for module in modules:
        if wanting := next((name for name, p in module.named_parameters() if p.requires_grad), None):
            raise CheckFailed(
                f"{type(module).__name__}.{wanting} wants a gradient: it costs memory at every step and is never used. "
                f"Call model.requires_grad_(False)."
            )
        if training := [name for name, part in module.named_modules() if part.training]:
            raise CheckFailed(
                f"{type(module).__name__} is in training mode{training[0] and f' (first: {training[0]})'}: dropout "
                "draws, and BatchNorm takes the batch's statistics for its own. Call model.eval()."
            )
    case.play(case)
    if any(p.grad is not None for module in modules for p in module.parameters()):
        raise CheckFailed("Its parameters gather gradients: call model.requires_grad_(False), never loss.backward().")
    return f"{sum(1 for m in modules for _ in m.parameters())} tensors looked at"


def agrees_in_bfloat16(case: Case) -> str:
    """``--dtype bfloat16`` gives nearly the same, or is refused with a sentence."""
    if case.place.dtype != "float32":
        raise LeftOut(f"it is examined in {case.place.dtype}")
    try:
        other = case.at(replace(case.place, dtype="bfloat16"))
    except RefereeError as refusal:
        raise LeftOut(f"it refuses bfloat16: {refusal}") from refusal
    worst = max(apart(a, b) for a, b in zip(other.play(other), case.play(case), strict=True))
    if not worst < 0.3:
        raise CheckFailed(
            f"In bfloat16 what it gives is off by {worst:.1g} of its size. Keep inputs and outputs in float32, move "
            "the model alone (or use torch.autocast), and keep norms, softmax and losses in float32; or refuse the "
            "type in the factory with an OptionError."
        )
    return f"off by {worst:.1g}"


def options_can_be_typed(case: Case) -> None:
    """None has the name of a key of the part itself, which would be taken for that: ``-r NAME:weight=2``."""
    keys = own_keys(RefereePart if case.kind == "referee" else BalancerPart)
    if taken := sorted(keys.keys() & case.spec.options.model_fields.keys()):
        raise CheckFailed(f"{taken[0]}= after the colon means the {case.kind}'s place, not this option: rename it.")


SHARED = (imports_nothing_heavy, options_are_strict, options_round_trip, options_are_described)
"""Of the spec and its options; a converter is held to these, too."""
PLAYED = (repeats_itself, leaves_global_seeds_alone, writes_nothing, is_frozen, agrees_in_bfloat16)
"""Of what the part does, through ``Case.play``."""
