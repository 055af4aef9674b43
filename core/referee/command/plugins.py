"""`referee plugins`: the list, and show, check, new, install; its doctor is a file of its own."""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from importlib.util import find_spec
from inspect import formatannotation
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from referee.command.flags import Block, Files, Json, NoPlugins, open_registry
from referee.command.plugin_doctor import doctor
from referee.errors import OptionError, PluginError, nearest

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

    from referee.plugins import Kind, Plugin, Registry
    from referee.testing.outcome import Outcome

Name = Annotated[str, typer.Argument(metavar="NAME", help="A part, or a plug-in.", show_default=False)]

REQUIREMENT = re.compile(
    r"[a-z0-9]([a-z0-9._-]*[a-z0-9])?(\[[a-z0-9._, -]+\])?( *(===?|[<>!~]=|[<>]) *[a-z0-9.*+!_-]+ *,?)*", re.IGNORECASE
)

app = typer.Typer(
    help="List the plug-ins, what they offer, and why one is missing; more with the commands below.",
    epilog="Example: referee plugins --json",
    rich_markup_mode="rich",
)
app.command()(doctor)


@app.callback(invoke_without_command=True)
def plugins(
    context: typer.Context, json_: Json = False, block: Block = None, no_plugins: NoPlugins = False,
    plugin: Files = None,
) -> None:  # fmt: skip
    """List the plug-ins, what they offer, and why one is missing."""
    if context.invoked_subcommand:
        return
    list_(json_, block, no_plugins, plugin)


@app.command("list")
def list_(json_: Json = False, block: Block = None, no_plugins: NoPlugins = False, plugin: Files = None) -> None:
    """What `referee plugins` does without a word behind it.

    [dim]referee plugins list --json[/dim]
    """
    registry = open_registry(block, no_plugins, plugin)
    if json_:
        print(json.dumps([_row(found, registry) for found in registry.plugins], indent=2))
        return
    for found in registry.plugins:
        print(_line(found))
        for kind, name in found.offers:
            spec, others = _own(registry, found, kind, name)
            clash = f" (so is one of {', '.join(others)}: say {found.distribution}:{name})" if others else ""
            print(f"  {kind:14} {name:18} {spec.summary}{clash}")


def _own(registry: Registry, plugin: Plugin, kind: Kind, name: str) -> tuple[Any, list[str]]:
    """The spec that a plug-in offers by a name, and the distributions of others that offer one of the same."""
    offers = registry.offered(kind, name)
    (spec,) = (spec for owner, spec in offers if owner is plugin)
    return spec, [owner.distribution for owner, _ in offers if owner is not plugin]


def _line(found: Plugin) -> str:
    reason = f"  {found.reason}" if found.reason else ""
    return f"{found.name:18} {found.status:8} {found.distribution} {found.version}{reason}"


def _row(found: Plugin, registry: Registry) -> dict[str, Any]:
    return {
        "name": found.name,
        "distribution": found.distribution,
        "version": found.version,
        "status": found.status,
        "reason": found.reason,
        "offers": [_offer(registry, found, kind, name) for kind, name in found.offers],
    }


def _offer(registry: Registry, plugin: Plugin, kind: Kind, name: str) -> dict[str, Any]:
    spec, others = _own(registry, plugin, kind, name)
    fields = spec.options.model_fields if hasattr(spec, "options") else {}  # a zoo has none
    options = {field: about.description or "" for field, about in fields.items()}
    return {"kind": kind, "name": name, "summary": spec.summary, "options": options, "also": others}


def _named(registry: Registry, name: str) -> Iterator[tuple[Plugin, list[tuple[Kind, Any]]]]:
    """The plug-ins that have a name or offer a part of it, each with those parts.

    Raises:
        PluginError: there is none; says the nearest names.
    """
    known: set[str] = set()
    some = False
    for plugin in registry.plugins:
        known |= {plugin.name, *(part for _, part in plugin.offers)}
        parts = [
            (kind, registry.find(kind, f"{plugin.distribution}:{part}"))
            for kind, part in plugin.offers
            if name in (plugin.name, part, f"{plugin.distribution}:{part}")
        ]
        if parts or name == plugin.name:
            some = True
            yield plugin, parts
    if not some:
        mend = f"If it is a plug-in of its own: referee plugins install referee-{name}"
        raise PluginError(f"There is no plug-in or part called '{name}'. {nearest(name, known)} {mend}")


@app.command()
def show(
    name: Name, json_: Json = False, block: Block = None, no_plugins: NoPlugins = False, plugin: Files = None
) -> None:
    """All about a part: whose it is, and its options with types, defaults and meaning.

    [dim]referee plugins show clip[/dim]
    """
    found = list(_named(open_registry(block, no_plugins, plugin), name))
    if json_:
        rows = [
            {
                **{key: getattr(owner, key) for key in ("name", "distribution", "version", "status", "reason")},
                "offers": [
                    {"kind": kind, "name": spec.name, "summary": spec.summary, "options": _options(spec)}
                    for kind, spec in parts
                ],
            }
            for owner, parts in found
        ]
        print(json.dumps(rows, indent=2))
        return
    for owner, parts in found:
        print(_line(owner))
        for kind, spec in parts:
            print(f"  {kind} {spec.name}: {spec.summary}")
            for option in _options(spec):
                print(f"    {option['name']} ({option['type']}, {option['default']}): {option['help']}")


def _options(spec: Any) -> list[dict[str, str]]:
    fields: dict[str, FieldInfo] = spec.options.model_fields if hasattr(spec, "options") else {}  # a zoo has none
    return [
        {"name": name, "type": _type(field), "default": _default(field), "help": field.description or ""}
        for name, field in fields.items()
    ]


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "must be given"
    return "made anew" if field.default_factory else f"default {field.default!r}"


def _type(field: FieldInfo) -> str:
    """A field's type with its limits: ``float >= 0 <= 1``."""
    signs = {"gt": ">", "ge": ">=", "lt": "<", "le": "<=", "multiple_of": "multiple of"}
    limits = [
        f" {sign} {getattr(limit, key)}"
        for limit in field.metadata
        for key, sign in signs.items()
        if getattr(limit, key, None) is not None
    ]
    return formatannotation(field.annotation) + "".join(limits)


@app.command()
def check(
    name: Annotated[str, typer.Argument(metavar="NAME[:key=value,...]", show_default=False)],
    zoo: Annotated[
        str | None, typer.Option("--zoo", metavar="NAME|none", help="Whose checkpoints. [dim]default: pocket[/dim]")
    ] = None,
    prompt: Annotated[str, typer.Option("--prompt", help="What it reads.")] = "a red circle",
    skip: Annotated[
        list[str] | None, typer.Option("--skip", metavar="CHECK", help="Leave a check out; repeat for more.")
    ] = None,
    device: Annotated[str, typer.Option("--device", help="A torch device.")] = "cpu",
    dtype: Annotated[str, typer.Option("--dtype", help="float32, bfloat16, float16: of the models.")] = "float32",
    only: Annotated[
        str | None, typer.Option("--kind", metavar="KIND", help="Of several parts of that name, those of one kind.")
    ] = None,
    json_: Json = False,
    block: Block = None,
    no_plugins: NoPlugins = False,
    plugin: Files = None,
) -> None:
    """Hold a part to what its kind promises: gradient, shapes, batches, seeds, options. Exit code 1 if it fails.

    A converter needs something to convert, so it is looked at if --kind converter asks for it.

    [dim]referee plugins check clip
    referee plugins check hello:colour=teal --plugin hello.py
    referee plugins check blip2:lavis=blip2_pretrained.pth --kind converter[/dim]
    """
    from referee.plugins import KINDS
    from referee.settings import RefereePart
    from referee.typed import parse_part

    if only is not None and only not in KINDS:
        raise OptionError(f"--kind {only}: there is no such kind. {nearest(only, KINDS)}")
    registry = open_registry(block, no_plugins, plugin)
    layer = parse_part(name, RefereePart)
    options: dict[str, object] = layer.get("options", {})
    failed, rows = False, []
    for owner, parts in _named(registry, layer["name"]):
        if owner.status != "active":
            raise PluginError(f"The plug-in '{owner.name}' ({owner.distribution}) is {owner.status}: {owner.reason}")
        for kind, spec in parts:
            if only not in (None, kind):
                continue
            if not json_:
                print(f"{kind} {spec.name} ({owner.distribution} {owner.version})".replace(" )", ")"))
            for outcome in _examined(kind, spec, options, registry, zoo, prompt, skip or [], device, dtype, only):
                failed |= outcome.status == "failed"
                rows.append({"kind": kind, "name": spec.name, **{k: getattr(outcome, k) for k in outcome.__slots__}})
                if not json_:
                    print(_told(outcome))
    if json_:
        print(json.dumps(rows, indent=2))
    if failed:
        raise typer.Exit(1)


def _examined(
    kind: Kind, spec: Any, options: dict[str, object], registry: Registry, zoo: str | None, prompt: str,
    skip: list[str], device: str, dtype: str, only: str | None,
) -> Iterator[Outcome]:  # fmt: skip
    from referee.hooks import Place
    from referee.parts import device_name
    from referee.settings import NO_ZOO, Settings
    from referee.testing.checks import examine, examine_bench, examine_converter, examine_zoo
    from referee.testing.outcome import Outcome
    from referee.zoos import options_of

    if kind == "converter":
        if only == "converter":
            return examine_converter(spec, options, skip=skip)
        mend = f"it needs something to convert: referee plugins check {spec.name}:OPTION=FILE,... --kind converter"
        return iter([Outcome("converts", "skipped", mend)])
    if kind == "zoo":
        return examine_zoo(spec, registry, prompt=prompt, skip=skip)
    default = Settings.model_fields["zoo"].default
    named = zoo or (default if default in registry.names("zoo") else NO_ZOO)
    given = {} if named == NO_ZOO else options_of(registry.find("zoo", named).checkpoints(), spec.name)
    place = Place(device_name(device), dtype)
    if kind == "bench":
        return examine_bench(spec, registry, {**given, **options}, place=place, skip=skip)
    return examine(kind, spec, {**given, **options}, prompt=prompt, place=place, skip=skip)


def _told(outcome: Outcome) -> str:
    mark = {"ok": "ok", "failed": "FAILED", "skipped": "skipped"}[outcome.status]
    line = f"  {mark:8} {outcome.check:34} "
    if outcome.status != "failed":
        return (line + outcome.says).rstrip()
    return line.rstrip() + "\n" + textwrap.indent(textwrap.fill(outcome.says, 100), " " * 11)


@app.command()
def new(
    name: Annotated[str, typer.Argument(help="Of the plug-in; the project is referee-NAME.", show_default=False)],
    kind: Annotated[
        str, typer.Option("--kind", metavar="referee|prior|augmentation|balancer|zoo|bench", help="What it offers.")
    ] = "referee",
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Where to. [dim]default: ./referee-NAME[/dim]")
    ] = None,
) -> None:
    """Write a small, whole project for a plug-in of your own: its tests pass as they are.

    [dim]referee plugins new calm
    referee plugins new my-sd --kind prior[/dim]
    """
    from referee.command.scaffold import USAGE, check_name, project, write_project

    chosen = next((known for known in USAGE if known == kind), None)
    if chosen is None:
        raise OptionError(f"--kind {kind}: there is no such kind. {nearest(kind, USAGE)}")
    check_name(name, chosen, open_registry(None, False, None))
    folder = out or Path(f"referee-{name}")
    contents = project(name, chosen)
    write_project(contents, folder)
    for path in sorted(contents):
        print(folder / path)
    print(f"\nNext: cd {folder}; {Path(sys.executable).name} -m pip install -e .; referee plugins check {name}")


@app.command()
def install(
    packages: Annotated[list[str], typer.Argument(metavar="PACKAGE...", help="Names, as pip takes them.")],
    upgrade: Annotated[bool, typer.Option("--upgrade", "-U", help="To the newest version.")] = False,
) -> None:
    """Install plug-ins into the environment that this command runs in, by its own pip; their code runs from then on.

    [dim]referee plugins install referee-hello[/dim]
    """
    own = f"{sys.executable} -m pip install"
    for package in packages:
        if not REQUIREMENT.fullmatch(package):
            raise OptionError(
                f"'{package}' is no package name. Names with versions are taken here; for a folder, an URL or pip's "
                f"own options say: {own} ..."
            )
    if find_spec("pip") is None:
        raise PluginError(f"{sys.executable} has no pip: install with what made it, for example `uv pip install`.")
    before = {(found.name, found.version) for found in open_registry(None, False, None).plugins}
    words = [sys.executable, "-m", "pip", "install", *(["--upgrade"] if upgrade else []), *packages]
    if code := subprocess.run(words, check=False).returncode:
        raise typer.Exit(code)
    importlib.invalidate_caches()
    fresh = [found for found in open_registry(None, False, None).plugins if (found.name, found.version) not in before]
    for found in fresh:
        print(_line(found))
    if not fresh:
        print("No plug-in is new: they were there, or these packages offer none (see `referee plugins`).")
