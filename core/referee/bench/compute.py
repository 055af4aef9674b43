"""Equal compute: what a picture costs by any way of making it, and how many samples or iterations cost so much.

The unit is the FLOP, 2 per multiply-add of matrix products, convolutions and attention, forward and backward, by the
meter of `referee plan` (`referee.planning.meter`). It is what the models compute and the same on every machine; seconds
hang on batches and on the machine, and are measured beside it (``cpu_seconds`` of a bench's records).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from referee.bench.draws import DRAWS
from referee.bench.peers import COUNTS
from referee.errors import OptionError
from referee.options import validate
from referee.parts import Parts
from referee.planning.meter import Meter
from referee.planning.preflight import Scales, outlined
from referee.plugins import Registry
from referee.prompt import Prompt
from referee.settings import Settings


def of_run(settings: Settings, registry: Registry, prompt: Prompt) -> int:
    """FLOPs of a run, foretold as `referee plan` does: nothing is drawn."""
    zoo = registry.find("zoo", settings.zoo) if settings.zoo else None
    with outlined(zoo) as shelf:
        return Scales(registry, prompt, zoo, shelf).weigh(settings).run


def of_draw(name: str, options: Mapping[str, Any], parts: Parts, prompt: Prompt) -> int:
    """FLOPs of a picture by a way of `referee.bench.draws.DRAWS`: it is drawn once, with seed 0, and counted.

    Raises:
        OptionError: an option is unknown or wrong.
    """
    way, meter = DRAWS[name], Meter()
    checked = validate(way.options, options, f"draw '{name}'")
    with meter:
        way.draw(parts, prompt, 0, checked)
    return meter.flop


def equal(name: str, options: Mapping[str, Any], parts: Parts, prompt: Prompt, flop: int) -> dict[str, Any]:
    """The options with that number of samples or iterations whose cost comes nearest to so many FLOPs.

    The cost is a line in that number, if every referee is asked every time: two pictures of the least kind tell it.

    Args:
        name: a way of `referee.bench.peers.COUNTS`.
        options: its others.
        parts: as it will be drawn with.
        prompt: as long as the others.
        flop: what it may cost, e.g. `of_run`.

    Raises:
        OptionError: no number of this way's options sets its cost.

    >>> from referee.play import parts_of
    >>> from referee.testing import ToyPrior, ToyReferee
    >>> equal("sample", {}, parts_of(ToyPrior(), [ToyReferee()], size=(16, 16)), Prompt("red"), 1)
    Traceback (most recent call last):
        ...
    referee.errors.OptionError: No option of 'sample' sets what it costs; known are 'best-of' and 'noise'.
    """
    if name not in COUNTS:
        known = " and ".join(f"'{each}'" for each in COUNTS)
        raise OptionError(f"No option of '{name}' sets what it costs; known are {known}.")
    one, two = (of_draw(name, {**options, COUNTS[name]: count}, parts, prompt) for count in (1, 2))
    if two <= one:
        raise OptionError(f"'{name}' costs {two} FLOPs for two and {one} for one: none of its models can be counted.")
    return {**options, COUNTS[name]: max(1, 1 + round((flop - one) / (two - one)))}
