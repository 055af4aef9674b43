"""A page for each built-in plug-in: what it offers, and every option."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from pages.prose import fenced, options, plain, prose
from referee.command.crash import OWN
from referee.hooks import PROJECT, ZooSpec
from referee.plugins import Plugin, Registry, discover
from referee.zoos import amount, total

FLAGS = {
    "referee": "referee generate PROMPT --referee {}", "prior": "referee generate PROMPT --prior {}",
    "augmentation": "referee generate PROMPT --aug {}", "balancer": "referee generate PROMPT --balancer {}",
    "zoo": "referee generate PROMPT --zoo {}", "converter": "referee convert {} --out FOLDER",
    "bench": "referee bench {} --out FOLDER",
}  # fmt: skip


def built_in() -> list[EntryPoint]:
    """The entry points of this distribution, by name."""
    return sorted((e for e in entry_points(group=PROJECT) if e.dist and e.dist.name == OWN), key=lambda e: e.name)


def registry() -> Registry:
    """The built-in plug-ins alone, whatever else is installed.

    Raises:
        RuntimeError: one failed to load: its page would be missing.
    """
    found = discover(found=built_in(), environment={})
    if failed := [plugin for plugin in found.plugins if plugin.status != "active"]:
        raise RuntimeError(f"{failed[0].name}: {failed[0].reason}")
    return found


def pages() -> dict[str, str]:
    """Their pages, and an index."""
    there = registry()
    modules = {entry.name: import_module(entry.module) for entry in built_in()}
    found = {plugin.name: _page(plugin, there, modules[plugin.name]) for plugin in there.plugins}
    rows = "\n".join(
        f"| {kind} | [`{name}`]({plugin.name}.md#{kind}-{name}) | {plain(there.summary(kind, name))} |"
        for plugin in sorted(there.plugins, key=lambda plugin: plugin.offers[0])
        for kind, name in plugin.offers
    )
    index = f"""# Built-in plug-ins

They are found as a stranger's plug-in is found, and have no privileges. `referee plugins` lists those of your
environment, `referee plugins show NAME` the options of one.

| kind | name | |
|---|---|---|
{rows}
"""
    return {"index": index} | found


def _page(plugin: Plugin, there: Registry, module: Any) -> str:
    text = f"# {plugin.name}\n\n{prose(module.__doc__)}\n"
    for kind, name in plugin.offers:
        spec = there.find(kind, name)
        text += f"## {kind} `{name}` {{ #{kind}-{name} }}\n\n{plain(spec.summary)}\n\n"
        text += fenced(FLAGS[kind].format(name), "text")
        text += "\n" + (_zoo(spec) if isinstance(spec, ZooSpec) else _options(spec.options))
    return text


def _options(model: Any) -> str:
    said = model.__doc__ if "Usage docs" not in (model.__doc__ or "") and model.model_fields else ""
    return (prose(said) + "\n" if said else "") + options(model)


def _zoo(spec: ZooSpec) -> str:
    rows = "\n".join(
        f"| `{c.name}`{' (optional)' if c.optional else ''} | {', '.join(sorted(c.options)) or '-'} "
        f"| {c.source or 'not fetched'} | {c.licence} "
        f"| {len(c.files)} | {amount(total(c.files) or None)} | {plain(c.note)} |"
        for c in spec.checkpoints()
    )
    text = "| checkpoint | for | from | licence | files | size | |\n|---|---|---|---|---|---|---|\n" + rows + "\n\n"
    for name, preset in spec.presets.items():
        text += f"The preset `{name}`:\n\n" + fenced(preset, "toml") + "\n"
    return text
