"""`referee plugins doctor`: each plug-in looked over: does it load, is all there that it needs, does it start fast?"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict
from importlib.metadata import EntryPoint, PackageNotFoundError, entry_points, requires, version
from typing import TYPE_CHECKING, Any

import typer

from referee.command.doctor import MARKS, Finding
from referee.command.flags import Block, Files, Json, NoPlugins, open_registry
from referee.errors import PluginError
from referee.hooks import PROJECT

if TYPE_CHECKING:
    from referee.plugins import Kind, Plugin, Registry

SLOW = 0.5
"""Seconds of computing: a module that takes longer to import, beyond referee's own time, is told."""


def doctor(json_: Json = False, block: Block = None, no_plugins: NoPlugins = False, plugin: Files = None) -> None:
    """Look each plug-in over: does it load, is all there that it needs, does it start fast, are its options sound?

    Ends with 1 if something is broken. What a part computes is looked at by `referee plugins check NAME`.

    [dim]referee plugins doctor[/dim]
    """
    findings = []
    for found in examine(open_registry(block, no_plugins, plugin)):
        findings.append(found)
        if not json_:
            print(f"{MARKS[found.status]} {found.about:26} {found.told}")
    broken = sorted({found.about for found in findings if found.status == "broken"})
    if json_:
        print(json.dumps({"broken": broken, "findings": [asdict(found) for found in findings]}, indent=2))
    elif broken:
        print(f"\nBroken: {', '.join(broken)}.")
    if broken:
        raise typer.Exit(1)


def examine(registry: Registry, found: Iterable[EntryPoint] | None = None) -> Iterator[Finding]:
    """Everything about the plug-ins of a registry.

    Args:
        found: the entry points; by default those of this environment.
    """
    plugins = entry_points(group=PROJECT) if found is None else found
    modules = {(entry.dist.name if entry.dist else "", entry.name): entry.module for entry in plugins}
    for plugin in registry.plugins:
        about = f"plug-in {plugin.name}"
        if plugin.status == "blocked":
            yield Finding(about, "note", f"blocked {plugin.reason}")
            continue
        if plugin.status == "failed":
            yield Finding(about, "broken", f"{plugin.reason}. {_mend(plugin)}")
            continue
        offers = ", ".join(f"{kind} {name}" for kind, name in plugin.offers) or "observes"
        yield Finding(about, "ok", f"{plugin.distribution} {plugin.version}".strip() + f": {offers}")
        if plugin.reason:
            yield Finding(about, "note", plugin.reason)
        elif module := modules.get((plugin.distribution, plugin.name)):
            yield from _start(about, module)
        for kind, name in plugin.offers:
            with suppress(PluginError):  # one distribution offers two of a name: told below
                yield from _part(kind, registry.find(kind, f"{plugin.distribution}:{name}"))
    for distribution in sorted({plugin.distribution for plugin in registry.plugins if plugin.version}):
        yield _needs(distribution)
    for kind, name, owners in _namesakes(registry):
        choices = " or ".join(f"{owner}:{name}" for owner in owners)
        yield Finding(f"{kind} {name}", "note", f"two plug-ins offer it: say {choices}, or leave one out by -p no:NAME")


def _mend(plugin: Plugin) -> str:
    """What to type for a plug-in that failed to load."""
    _, missing, name = plugin.reason.partition("No module named '")
    if missing:
        return f"Try: pip install {name.partition(chr(39))[0].partition('.')[0]}, or leave it out: -p no:{plugin.name}"
    return f"{plugin.mend}, or leave it out: -p no:{plugin.name}" if plugin.mend else f"Or: -p no:{plugin.name}"


def _start(about: str, module: str) -> Iterator[Finding]:
    """What the module costs whenever the command starts."""
    from referee.testing.start import start

    cost = start(module)
    if cost.error:
        yield Finding(about, "broken", f"{module} cannot be imported alone: {cost.error}")
    elif cost.heavy or cost.seconds > SLOW:
        library = f", and imports {', '.join(cost.heavy)}" if cost.heavy else ""
        told = f"slow: {module} takes {cost.seconds:.1f} s whenever the command starts{library}; "
        yield Finding(about, "note", told + "its factory should import what is heavy")


def _part(kind: Kind, spec: Any) -> Iterator[Finding]:
    """What is wrong with a part's options; they are not made here, as some must be given."""
    model = getattr(spec, "options", None)
    if model is None:  # a zoo
        return
    about = f"{kind} {spec.name}"
    bare = [name for name, field in model.model_fields.items() if not field.description]
    if bare:
        yield Finding(about, "note", f"nothing says what {', '.join(bare)} means: `referee plugins show {spec.name}`")
    if model.model_config.get("extra") != "forbid":
        yield Finding(about, "note", "a misspelt option would do nothing, without a word: its author left extra open")


def _needs(distribution: str) -> Finding:
    """Whether all that a distribution requires, by its own metadata, is installed, in versions that fit."""
    from packaging.requirements import InvalidRequirement, Requirement

    unmet = []
    for text in requires(distribution) or ():
        try:
            need = Requirement(text)
            if need.marker and not need.marker.evaluate({"extra": ""}):
                continue
            here = version(need.name)
            if not need.specifier.contains(here, prereleases=True):
                unmet.append(f"{need.name}{need.specifier} (here is {here})")
        except PackageNotFoundError:
            unmet.append(f"{need.name}{need.specifier} (not installed)")
        except InvalidRequirement as error:
            unmet.append(f"{text!r}, which is no requirement: {error}")
    if not unmet:
        return Finding(f"needs of {distribution}", "ok", "all met")
    told = f"{', '.join(unmet)}. Try: pip install --upgrade {distribution}"
    return Finding(f"needs of {distribution}", "broken", told)


def _namesakes(registry: Registry) -> Iterator[tuple[Kind, str, list[str]]]:
    """Parts of one kind and name that several plug-ins offer, with their distributions."""
    owners: dict[tuple[Kind, str], list[str]] = {}
    for plugin in registry.plugins:
        for kind, name in plugin.offers:
            owners.setdefault((kind, name), []).append(plugin.distribution)
    yield from ((kind, name, names) for (kind, name), names in owners.items() if len(names) > 1)
