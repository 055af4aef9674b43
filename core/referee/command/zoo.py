"""`referee zoo list | show | get | check`: which checkpoints there are, where they come from, whether they are here."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from referee.command.flags import Block, Files, Json, NoPlugins, names, open_registry
from referee.errors import OptionError, WeightsError, nearest

if TYPE_CHECKING:
    from referee.hooks import Checkpoint, ZooSpec
    from referee.plugins import Registry

app = typer.Typer(
    help="The zoos, sets of checkpoints: what is in them, what is here, how to get it.",
    epilog="Example: referee zoo get sd15",
    no_args_is_help=True,
    rich_markup_mode="rich",
)

Name = Annotated[
    str,
    typer.Argument(
        metavar="ZOO", autocompletion=names("zoo"), help="As listed by `referee zoo list`.", show_default=False
    ),
]
Names = Annotated[
    list[str] | None,
    typer.Argument(metavar="[CHECKPOINT]...", help="Some of it; by default all but the optional.", show_default=False),
]


@app.command("list")
def list_(json_: Json = False, block: Block = None, no_plugins: NoPlugins = False, plugin: Files = None) -> None:
    """All zoos, and whether their files are here.

    [dim]referee zoo list[/dim]
    """
    registry = open_registry(block, no_plugins, plugin)
    rows = [_outline(registry.find("zoo", name)) for name in registry.names("zoo")]
    if json_:
        print(json.dumps(rows, indent=2))
        return
    from referee.zoos import amount

    for row in rows:
        print(f"{row['name']:10} {row['state']:8} {amount(row['bytes'] or None):>12}  {row['summary']}")


@app.command()
def show(
    name: Name, json_: Json = False, block: Block = None, no_plugins: NoPlugins = False, plugin: Files = None
) -> None:
    """What a zoo holds: checkpoints, where they are published, sizes, licences, what is here.

    [dim]referee zoo show sd15[/dim]
    """
    spec = _find(open_registry(block, no_plugins, plugin), name)
    shelf = spec.checkpoints()
    if json_:
        print(json.dumps(_outline(spec) | {"checkpoints": [_row(checkpoint) for checkpoint in shelf]}, indent=2))
        return
    from rich.console import Console
    from rich.table import Table

    from referee.zoos import amount

    table = Table(title=f"{spec.name}: {spec.summary}", title_justify="left", show_lines=True)
    for heading in ("checkpoint", "for", "from", "licence", "files", "size", "here"):
        table.add_column(heading, overflow="fold")
    rows = [_row(checkpoint) for checkpoint in shelf]
    for row in rows:
        title = f"{row['name']}\n(optional)" if row["optional"] else row["name"]
        source = row["source"] or "not fetched: see below"
        parts = ", ".join(row["parts"]) or "-"
        size = amount(row["bytes"] or None)
        table.add_row(title, parts, source, row["licence"], str(len(row["files"])), size, row["state"])
    console = Console()
    console.print(table)
    for row in rows:
        console.print(f"{row['name']}: {row['folder']}", highlight=False, soft_wrap=True)
        if row["note"]:
            console.print(f"  {row['note']}", highlight=False, soft_wrap=True)


@app.command()
def get(
    name: Name, checkpoints: Names = None, block: Block = None, no_plugins: NoPlugins = False, plugin: Files = None
) -> None:
    """Fetch a zoo's files and check them; what is here already stays.

    [dim]referee zoo get sd15
    referee zoo get sd15 prior taesd[/dim]
    """
    from referee.zoos import amount, faults, total

    spec = _find(open_registry(block, no_plugins, plugin), name)
    chosen = _chosen(spec, checkpoints)
    lacking = {checkpoint.name: [file for file, _ in faults(checkpoint)] for checkpoint in chosen}
    wanted = [checkpoint for checkpoint in chosen if checkpoint.source and spec.get is not None]
    for checkpoint in chosen:
        files = lacking[checkpoint.name]
        print(f"{checkpoint.name:14} {f'{len(files)} files, {amount(total(files) or None)}' if files else 'here'}")
    size = total(file for checkpoint in wanted for file in lacking[checkpoint.name])
    print(f"to fetch: {amount(size)}", flush=True)
    if size:
        _check_space(next(checkpoint.folder for checkpoint in wanted if lacking[checkpoint.name]), size)
    for checkpoint in wanted:
        assert spec.get is not None
        spec.get(checkpoint)
        print(f"{checkpoint.name}: {checkpoint.folder}", flush=True)
    for checkpoint in chosen:
        if checkpoint not in wanted and lacking[checkpoint.name]:
            print(f"{checkpoint.name}: not fetched. {checkpoint.mend}")


@app.command()
def check(
    name: Name, checkpoints: Names = None, json_: Json = False, block: Block = None, no_plugins: NoPlugins = False,
    plugin: Files = None,
) -> None:  # fmt: skip
    """Read every file of a zoo and compare it with what was published: size and sha256, or else its form.

    [dim]referee zoo check pocket[/dim]
    """
    from rich.console import Console

    from referee.zoos import verify

    spec = _find(open_registry(block, no_plugins, plugin), name)
    console = Console(stderr=True)
    found = []
    for checkpoint in _chosen(spec, checkpoints):
        for file in checkpoint.files:
            with console.status(f"{checkpoint.name}: {file.name}"):
                fault = verify(checkpoint, file)
            row = {"checkpoint": checkpoint.name, "file": file.name, "hashed": bool(file.sha256), "fault": fault}
            found.append(row)
    bad = [row for row in found if row["fault"]]
    if json_:
        print(json.dumps(found, indent=2))
    else:
        for row in bad:
            print(f"{row['checkpoint']}: {row['file']}: {row['fault']}")
        whole = [row["hashed"] for row in found if not row["fault"]]
        print(f"{whole.count(True)} of {len(found)} files are as published, by sha256")
        if loose := whole.count(False):
            print(f"{loose} of {len(found)} have no published sum: their form is whole, more cannot be told")
    if bad:
        first = next(c for c in spec.checkpoints() if c.name == bad[0]["checkpoint"])
        raise WeightsError(f"The zoo {spec.name} is not whole: {bad[0]['file']} {bad[0]['fault']}. {first.mend}")


def _find(registry: Registry, name: str) -> ZooSpec:
    spec: ZooSpec = registry.find("zoo", name)
    return spec


def _chosen(spec: ZooSpec, names: Sequence[str] | None) -> list[Checkpoint]:
    shelf = spec.checkpoints()
    known = [checkpoint.name for checkpoint in shelf]
    for name in names or ():
        if name not in known:
            raise OptionError(f"The zoo {spec.name} has no '{name}'. {nearest(name, known)}")
    return [c for c in shelf if (c.name in names if names else not c.optional)]


def _check_space(folder: Path, size: int) -> None:
    """Refuse what does not fit on the disk of a folder that may not be there yet; a zoo fetches to one disk."""
    while not folder.exists() and folder.parent != folder:
        folder = folder.parent
    if (free := shutil.disk_usage(folder).free) < size:
        from referee.zoos import amount

        raise WeightsError(
            f"{amount(size)} are to be fetched, and the disk of {folder} has {amount(free)} left. "
            "Free some, or let HF_HOME name a folder on another disk."
        )


def _outline(spec: ZooSpec) -> dict[str, Any]:
    from referee.zoos import total

    shelf = [checkpoint for checkpoint in spec.checkpoints() if not checkpoint.optional]
    states = {_state(checkpoint) for checkpoint in shelf}
    return {
        "name": spec.name,
        "summary": spec.summary,
        "preset": spec.preset,
        "bytes": sum(total(checkpoint.files) for checkpoint in shelf),
        "state": states.pop() if len(states) == 1 else "partly",
    }


def _row(checkpoint: Checkpoint) -> dict[str, Any]:
    from referee.zoos import total

    return {
        "name": checkpoint.name,
        "parts": sorted(checkpoint.options),
        "source": checkpoint.source,
        "licence": checkpoint.licence,
        "optional": checkpoint.optional,
        "folder": str(checkpoint.folder),
        "note": " ".join(text for text in (checkpoint.note, "" if checkpoint.source else checkpoint.mend) if text),
        "bytes": total(checkpoint.files),
        "files": [{"name": f.name, "bytes": f.size, "sha256": f.sha256} for f in checkpoint.files],
        "state": _state(checkpoint),
    }


def _state(checkpoint: Checkpoint) -> str:
    """ "here", "partly" or "missing", told by names and sizes."""
    from referee.zoos import faults

    lacking = sum(1 for _ in faults(checkpoint))
    if not lacking:
        return "here"
    return "missing" if lacking == len(checkpoint.files) else "partly"
