"""What a command was asked for: its flags and files as settings, and its prompt."""

from __future__ import annotations

from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any

from referee.errors import OptionError, PromptError

if TYPE_CHECKING:
    from referee.plugins import Registry
    from referee.settings import Settings


def settings_of(
    registry: Registry, config: Path | None, zoo: str | None, preset: str | None, sets: list[str] | None, **flags: Any
) -> Settings:
    """All layers in order: the preset (--preset, or the file's, or the zoo's), the config file, --set, flags. A run's
    record needs no preset.

    Raises:
        OptionError: a value that makes no sense, an unknown name, or flags that do not go together.
    """
    from referee.command.layer import flag_layer
    from referee.folder.run import read_config
    from referee.layers import RECORD, merge, parse_set
    from referee.layers import preset as read_preset
    from referee.settings import NO_ZOO, build

    file = read_config(config) if config else {}
    said = reduce(merge, (parse_set(text) for text in sets or ()), file)
    asked = zoo or str(said.get("zoo", ""))
    named = asked or "pocket"
    own = said.pop("preset", None)
    name = preset or own or (registry.find("zoo", named).preset if named != NO_ZOO and RECORD not in file else None)
    base = read_preset(str(name), registry) if name else {}
    layer = merge(merge(base, said), {"zoo": asked or base.get("zoo", named)})
    if flags.get("balancer"):
        flags["balancer"] = spelt(registry, flags["balancer"])
    over = flag_layer(**flags, seeds=layer.get("seeds"), referees=layer.get("referees"))
    if over.get("judge") and not {**(layer.get("judge") or {}), **over["judge"]}.get("name"):
        raise OptionError("--keep and --pick are about what a judge says: add --judge NAME.")
    if over.get("init") and not {**layer.get("init", {}), **over["init"]}.get("image"):
        raise OptionError("--mask and --strength are about the picture that a run begins with: add --init FILE.")
    settings = build([layer, over])
    if flags.get("pick") and len(settings.seeds) == 1:
        raise OptionError("--pick chooses among pictures, and there is one: add -n 4, for example.")
    return settings


def spelt(registry: Registry, text: str) -> str:
    """A balancer as it is typed, with the name of the option that a bare word is: torchjd:UPGrad."""
    name, colon, rest = text.partition(":")
    offers = registry.offered("balancer", name)
    if colon and len(offers) == 1 and (bare := offers[0][1].bare) and "=" not in rest.partition(",")[0]:
        return f"{name}:{bare}={rest}"
    return text


def prompt_of(said: str | None, config: Path | None) -> str:
    """What was said, or what the run of --config drew.

    Raises:
        PromptError: neither.
    """
    from referee.folder import run

    found = said if said is not None else run.prompt_of(run.read_config(config)) if config else None
    if found is None:
        raise PromptError('Say what to draw, for example: referee generate "a red circle and a blue square".')
    return found
