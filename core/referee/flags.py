"""Flags that several commands share: about plug-ins, and what they open; and about the judge."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from referee.errors import OptionError, nearest

if TYPE_CHECKING:
    from referee.plugins import Kind, Registry

Block = Annotated[
    list[str] | None, typer.Option("-p", metavar="no:NAME", help="Leave a plug-in unloaded; repeat for more.")
]
NoPlugins = Annotated[bool, typer.Option("--no-plugins", help="Load no installed plug-in.")]
Files = Annotated[
    list[Path] | None, typer.Option("--plugin", metavar="FILE.py", help="A single file as a plug-in; its code runs.")
]
JudgeOption = Annotated[
    str | None,
    typer.Option(
        "--judge",
        metavar="NAME[:key=value,...]|none",
        help="A referee that does not play, but says which step was best, and warns where the others are fooled. "
        "every=, patience= (ends a picture that gets no better), prompt= and label= fit all. "
        "[dim]default: the preset's[/dim]",
    ),
]
Keep = Annotated[
    str | None,
    typer.Option(
        "--keep", metavar="best|last", help="Which picture: the judge's best, or the last. [dim]default: best[/dim]"
    ),
]
Pick = Annotated[bool, typer.Option("--pick", help="With -n: the judge says which picture is best.")]
Json = Annotated[bool, typer.Option("--json", help="Machine-readable output.")]


def names(kind: Kind) -> Callable[[str], list[tuple[str, str]]]:
    """For the shell's Tab: the parts of a kind, or the zoos, that begin as typed, each with its summary."""

    def found(incomplete: str) -> list[tuple[str, str]]:
        from referee.plugins import discover

        registry = discover()
        known = [name for name in registry.names(kind) if name.startswith(incomplete)]
        return [(name, registry.summary(kind, name)) for name in known]

    return found


def open_registry(block: list[str] | None, no_plugins: bool, files: list[Path] | None) -> Registry:
    """The plug-ins that the flags leave.

    Raises:
        OptionError: a ``-p`` is not of the form no:NAME.
        PluginError: a ``--plugin`` file is not there or failed.
    """
    from referee.plugins import discover

    for text in block or ():
        if not text.startswith("no:") or len(text) == 3:
            raise OptionError(f"-p {text}: write -p no:NAME to leave a plug-in unloaded.")
    names = [text[3:] for text in block or ()]
    registry = discover(enabled=not no_plugins, block=names, files=files or ())
    known = [plugin.name for plugin in registry.plugins]
    for name in names:
        if name not in known:
            print(f"referee: -p no:{name}: there is no plug-in of that name. {nearest(name, known)}", file=sys.stderr)
    return registry
