"""From a method's layer to something that draws: settings over a preset, checked before any model loads."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from referee.bench.about import Maker
from referee.bench.contract import Bench, Item, Layer
from referee.bench.draws import DRAWS, Way
from referee.errors import OptionError, PromptError, RefereeError, nearest
from referee.folder.record import hashes
from referee.hooks import Place
from referee.layers import merge, preset
from referee.options import validate
from referee.parts import Order, Parts, Plan, assemble, check, device_name, families, make
from referee.plugins import NAME, Registry
from referee.prompt import Prompt
from referee.settings import NO_ZOO, Part, Settings, build
from referee.typed import parse_part
from referee.zoos import options_of, resolve

OWN = ("draw", "preset")
"""What a method's layer may say beside settings."""
SAMPLED = ("zoo", "height", "width", "seeds", "device", "dtype", "prior")
"""The settings that decide a picture of a way in which no referee plays."""


@dataclass(frozen=True, slots=True)
class Method:
    """A method that was checked; nothing is loaded yet.

    Attributes:
        name: as in the table.
        plan: who plays.
        way, options: how it draws.
        maker: the same, for the record.
    """

    name: str
    plan: Plan
    way: Way
    options: BaseModel
    maker: Maker

    def load(self) -> Parts:
        """The parts; models load here."""
        return assemble(self.plan)


def given(texts: Iterable[str]) -> dict[str, Layer]:
    """Methods as the command line has them: ``FILE.toml``, or ``NAME={...}`` with a layer in JSON.

    Raises:
        OptionError: it is neither, or two have one name.
    """
    found: dict[str, Layer] = {}
    for text in texts:
        name, equals, said = text.partition("=")
        if equals and NAME.fullmatch(name):
            layer = _json(text, said)
        elif text.endswith(".toml"):
            name, layer = Path(text).stem, _toml(text)
        else:
            raise OptionError(f"--method {text}: give FILE.toml, or NAME={{...}} with settings as JSON.")
        if not NAME.fullmatch(name):
            raise OptionError(f"--method {text}: '{name}' is no name for a method: use lower case, digits and dashes.")
        if name in found:
            raise OptionError(f"--method {text}: two methods are called '{name}'.")
        found[name] = layer
    return found


def _json(text: str, said: str) -> Layer:
    try:
        layer = json.loads(said)
    except (ValueError, RecursionError) as error:
        raise OptionError(
            f'--method {text} is not JSON: {error}. For example: --method \'short={{"rules": {{"steps": 80}}}}\''
        ) from error
    if not isinstance(layer, dict):
        raise OptionError(f"--method {text}: settings are a table, {{...}}.")
    return layer


def _toml(path: str) -> Layer:
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise OptionError(f"--method {path}: {error.strerror or error}.") from error
    except (ValueError, RecursionError) as error:
        raise OptionError(f"--method {path} is not TOML: {error}.") from error


def choose(own: Mapping[str, Layer], added: Mapping[str, Layer], names: str | None) -> dict[str, Layer]:
    """Those that are drawn: the bench's own; if some were added, those alone; and whatever is named besides.

    Raises:
        OptionError: there is none of a name, or an added one has the name of one of the bench's.
    """
    if clash := sorted(own.keys() & added.keys()):
        raise OptionError(f"--method: the bench has a method '{clash[0]}' of its own. Give yours another name.")
    known = {**own, **added}
    if names == "all":
        return known
    asked = [name.strip() for name in names.split(",") if name.strip()] if names else []
    for name in asked:
        if name not in known:
            raise OptionError(f"--methods: there is no method '{name}'. {nearest(name, known)}")
    return {name: known[name] for name in dict.fromkeys([*(asked or ([] if added else own)), *added])}


def prepare(
    layers: Mapping[str, Layer], items: Sequence[Item], registry: Registry, *, zoo: str | None = None,
    over: Layer | None = None,
) -> list[Method]:  # fmt: skip
    """Check all methods with all prompts.

    Args:
        layers: by name.
        items: what will be drawn.
        registry: the plug-ins.
        zoo: for the layers that name none.
        over: settings over all layers: device, type, ``--set``.

    Raises:
        RefereeError: see `referee.parts.check`; the message names the method.
    """
    found = []
    for name, layer in layers.items():
        try:
            found.append(_method(name, layer, items, registry, zoo, over or {}))
        except RefereeError as error:
            raise type(error)(f"The method '{name}': {error}") from error
    return found


def _method(name: str, layer: Layer, items: Sequence[Item], registry: Registry, zoo: str | None, over: Layer) -> Method:
    said = {key: value for key, value in layer.items() if key not in OWN}
    asked = str(said.get("zoo") or zoo or "pocket")
    base_name = layer.get("preset") or (registry.find("zoo", asked).preset if asked != NO_ZOO else None)
    base = preset(str(base_name), registry) if base_name else {}
    settings = build([merge(merge(merge(base, {"zoo": asked}), said), over)])
    draw, way, options = _way(layer.get("draw", "invert"))
    if not way.referees:
        settings = Settings(**{name: getattr(settings, name) for name in SAMPLED})
    if way.asks and not any(part.weight.most > 0 for part in settings.referees):
        raise OptionError(f"draw '{draw}' asks referees, and none has a weight: name a referee.")
    plan = check(settings, registry, Prompt(items[0].prompt))
    _check_prompts(plan, items)
    from referee.folder.checkpoint import decisive  # imports torch: after all that can be refused

    maker = Maker(
        draw={"name": draw, **options.model_dump(mode="json", exclude_none=True)},  # TOML has no null
        settings=decisive(plan.settings.model_copy(update={"seeds": (0,)})),  # they are the item's
        weights=hashes(plan.settings, registry),
        families=tuple(sorted({family for order in plan.referees for family in families(order.spec)})),
    )
    return Method(name, plan, way, options, maker)


def _way(said: Any) -> tuple[str, Way, BaseModel]:
    """``"sample"``, or ``{name = "best-of", options = {n = 8}}``."""
    table = {"name": said} if isinstance(said, str) else said
    if not isinstance(table, Mapping) or not isinstance(table.get("name"), str) or table.keys() - {"name", "options"}:
        raise OptionError(f"draw: say the name of a way, or a table of name and options, not {said!r}.")
    name, options = table["name"], table.get("options", {})
    if name not in DRAWS:
        raise OptionError(f"draw: there is no way of drawing called '{name}'. {nearest(name, DRAWS)}")
    if not isinstance(options, Mapping):
        raise OptionError(f"draw: the options of '{name}' are a table, not {options!r}.")
    return name, DRAWS[name], validate(DRAWS[name].options, options, f"draw '{name}'")


def _check_prompts(plan: Plan, items: Sequence[Item]) -> None:
    """What `referee.parts.check` does for one prompt, for all."""
    seats = [*plan.referees, *([plan.judge] if plan.judge else [])]
    readers = [order.spec.check_prompt for order in seats if getattr(order.part, "prompt", None) is None]
    looks = [plan.zoo.check_prompt if plan.zoo else None, *readers]
    for item in items:
        try:
            text = Prompt(item.prompt).text
            for look in looks:
                if look:
                    look(text)
        except PromptError as error:
            raise PromptError(f"{item.suite} {item.index}: {error}") from error


def open_bench(
    text: str, registry: Registry, zoo: str | None = None, device: str | None = None, dtype: str | None = None
) -> tuple[Order, Bench, Place]:
    """A bench by name and options, as typed, and where it computes; the zoo may set some options, as for a part.

    Raises:
        PluginError: there is none, or it cannot be made.
        OptionError: an option is unknown or wrong.
    """
    said = Part.model_validate(parse_part(text, Part))
    spec = registry.find("bench", said.name)
    shelf = () if zoo in (None, NO_ZOO) else tuple(registry.find("zoo", str(zoo)).checkpoints())
    values = options_of(shelf, spec.name) | resolve(shelf, said.options)
    options = validate(spec.options, values, f"bench '{said.name}'")
    if spec.check:
        spec.check(options)
    order, place = Order(said, spec, options), Place(device_name(device or "auto"), dtype or "float32")
    bench: Bench = make(order, place, Bench)
    return order, bench, place
