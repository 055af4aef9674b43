"""What would make a run fit into so much memory: the cheapest of a few known changes, and the flags to type for it.

From what costs nothing to what shows in the picture: half precision; fewer views at once; parts that keep less and
compute it again (their option ``recompute``, if they have one); referees that rest in the CPU's memory between their
turns (``offload``), where that is another; what a zoo offers in place of a part (its checkpoints' ``thrift``, such as
a tiny decoder).
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from referee.hooks import Checkpoint
from referee.layers import merge
from referee.planning.preflight import Forecast, Scales
from referee.plugins import Registry
from referee.settings import Part, Settings, build

RECOMPUTE = "recompute"
"""The option's name, by convention: true keeps less in memory and computes it again."""


@dataclass(frozen=True, slots=True)
class Fit:
    """What was chosen.

    Attributes:
        forecast: with it.
        fits: False if nothing known is enough; then it is the least there is.
        chosen: each change in words.
        flags: what to type, after what was typed.
    """

    forecast: Forecast
    fits: bool
    chosen: tuple[str, ...]
    flags: tuple[str, ...]


def fit(scales: Scales, registry: Registry, settings: Settings, memory: int, apart: bool) -> Fit:
    """The first of the known changes, from cheap to dear, that needs at most so many bytes.

    Args:
        apart: they are not the CPU's, so weights may rest there.
    """
    for candidate in _candidates(scales, registry, settings, apart):
        forecast = scales.weigh(candidate)
        if fits := forecast.need(apart) <= memory:
            break
    return Fit(forecast, fits, tuple(_told(settings, candidate)), tuple(_flags(settings, candidate)))


def _candidates(scales: Scales, registry: Registry, settings: Settings, apart: bool) -> Iterator[Settings]:
    """The settings themselves, then each change on top of those before it, with ever fewer views at once."""
    yield settings
    changes: list[Mapping[str, Any]] = [
        {"dtype": "bfloat16" if settings.dtype == "float32" else settings.dtype},
        {"referees": _thrifty(registry, settings, resting=False)},
        {"prior": _recomputed(registry, settings)},
        *([{"referees": _thrifty(registry, settings, resting=True)}] if apart and len(settings.referees) > 1 else []),
        {"prior": _replaced(scales.shelf, settings)},
    ]
    rung = settings
    for change in changes:
        rung = _with(rung, change)
        batch = rung.rules.micro_batch
        while batch >= 1:
            yield _with(rung, {"rules": {"micro_batch": batch}})
            batch //= 2


def _thrifty(registry: Registry, settings: Settings, *, resting: bool) -> list[dict[str, Any]]:
    """The referees, each with the option `RECOMPUTE` if it has it; and resting between their turns."""
    parts: list[dict[str, Any]] = _table(settings)["referees"]
    for part in parts:
        if RECOMPUTE in registry.find("referee", part["name"]).options.model_fields:
            part["options"] = {**part.get("options", {}), RECOMPUTE: True}
        part["offload"] = part["offload"] or resting
    return parts


def _recomputed(registry: Registry, settings: Settings) -> dict[str, Any]:
    """The prior, with the option `RECOMPUTE` if it has it."""
    assert settings.prior
    has = RECOMPUTE in registry.find("prior", settings.prior.name).options.model_fields
    return {"name": settings.prior.name, "options": {**settings.prior.options, **({RECOMPUTE: True} if has else {})}}


def _replaced(shelf: Sequence[Checkpoint], settings: Settings) -> dict[str, Any]:
    """The prior with what the zoo offers for less memory, but what was chosen already."""
    assert settings.prior
    options: dict[str, Any] = {}
    for checkpoint in shelf:
        options |= checkpoint.thrift.get(settings.prior.name, {})
    return {"name": settings.prior.name, "options": {**options, **settings.prior.options}}


def _with(settings: Settings, change: Mapping[str, Any]) -> Settings:
    return build([merge(_table(settings), change)])


def _table(settings: Settings) -> dict[str, Any]:
    table = settings.model_dump(mode="json", exclude_none=True)
    return {"zoo": "none", **table}


def _told(before: Settings, after: Settings) -> Iterator[str]:
    if after.dtype != before.dtype:
        yield f"models in {after.dtype}: half the memory, a little rounding"
    if after.rules.micro_batch != before.rules.micro_batch:
        yield f"{after.rules.micro_batch} views at once: the same result, somewhat slower"
    if any(a.options != b.options for a, b in zip(after.referees, before.referees, strict=True)):
        yield "referees keep less and compute it again: the same result, a third more of their time"
    if any(a.offload != b.offload for a, b in zip(after.referees, before.referees, strict=True)):
        yield "referees rest in the CPU's memory between their turns: the same result, and their weights travel"
    if after.prior and before.prior:
        new = {key: value for key, value in after.prior.options.items() if before.prior.options.get(key) != value}
        if new.pop(RECOMPUTE, False):
            yield "the decoder keeps less and decodes again for each referee: the same result"
        if new:
            yield f"{', '.join(f'{key}={value}' for key, value in new.items())}: another picture, near the same"


def _flags(before: Settings, after: Settings) -> Iterator[str]:
    if after.dtype != before.dtype:
        yield f"--dtype {after.dtype}"
    if after.rules.micro_batch != before.rules.micro_batch:
        yield f"--set rules.micro_batch={after.rules.micro_batch}"
    if after.referees != before.referees:
        yield from (f"--referee {shlex.quote(typed(part))}" for part in after.referees)
    if after.prior != before.prior and after.prior:
        yield f"--prior {shlex.quote(typed(after.prior))}"


def typed(part: Part) -> str:
    """A part as it is typed: what `referee.typed.parse_part` reads.

    >>> from referee.settings import RefereePart
    >>> typed(RefereePart(name="clip", weight="cosine(1, 0.5)", options={"recompute": True}))
    'clip:weight=cosine(1.0, 0.5),recompute=true'
    """
    table = part.model_dump(mode="json", by_alias=True, exclude_defaults=True, exclude={"name", "options"})
    values = {**table, **part.options}
    return part.name + ":" * bool(values) + ",".join(f"{key}={_value(value)}" for key, value in values.items())


def _value(value: Any) -> str:
    """As TOML on one line; text bare where it may be."""
    if isinstance(value, str):
        bare = value.strip() == value and not set(value) & set('",=') and value.lower() not in ("true", "false", "")
        schedule = value.endswith(")") and "(" in value and '"' not in value
        return value if bare or schedule else json.dumps(value, ensure_ascii=False)
    return _inline(value)


def _inline(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {_inline(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_inline, value)) + "]"
    return json.dumps(value, ensure_ascii=False)
