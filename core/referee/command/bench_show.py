"""`referee bench table` and `compare`: what benches left, read back and shown."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from referee.command.flags import Json
from referee.errors import OptionError, nearest

if TYPE_CHECKING:
    from rich.console import Console

    from referee.bench.records import Evidence


def console_of(json_: bool) -> Console:
    """Where progress and tables are shown: on stderr, if stdout is for data."""
    from rich.console import Console

    return Console(stderr=json_, markup=False, emoji=False, highlight=False)


Folders = Annotated[
    list[Path], typer.Argument(metavar="DIR...", help="What `referee bench` wrote; several are joined.")
]
ColumnOption = Annotated[
    str | None,
    typer.Option("--column", metavar="KEY", help="What is plotted. [dim]default: the bench's main one[/dim]"),
]


def table(
    folders: Folders,
    methods: Annotated[str | None, typer.Option("--methods", metavar="a,b", help="These alone, in this order.")] = None,
    column: ColumnOption = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="DIR", help="Where to write. [dim]default: the folder; needed if there are several[/dim]"
        ),
    ] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the table as Markdown.")] = False,
    json_: Json = False,
) -> None:
    """Show a bench's table, and write it: table.md, table.csv, plot.svg, and a contact sheet per method and suite.

    [dim]referee bench table runs/bench
    referee bench table runs/bench-here runs/bench-there --out runs/both[/dim]
    """
    from referee.bench.records import read

    if markdown and json_:
        raise OptionError("--json and --markdown both say what is printed: choose one.")
    if len(folders) > 1 and out is None:
        raise OptionError("Several folders are joined: say where to write by --out DIR, so that none loses its table.")
    evidence = read(folders)
    if methods:
        evidence = evidence.only([_known(name, evidence.about.methods, "--methods") for name in methods.split(",")])
    if column:
        _known(column, evidence.about.columns, "--column")
    show(evidence, out or folders[0], column, console_of(json_ or markdown), json_=json_, markdown=markdown)


def _known(name: str, known: Any, flag: str) -> str:
    if name not in known:
        raise OptionError(f"{flag} {name}: there is none in these records. {nearest(name, known)}")
    return name


def show(
    evidence: Evidence, out: Path, column: str | None, console: Console, *, json_: bool = False, markdown: bool = False
) -> None:
    """Write table, plot and sheets, and show the table."""
    from referee.bench import table as tables
    from referee.bench.statistics import cells
    from referee.bench.writing import write

    found = cells(evidence)
    paths = write(evidence, found, out, column or next(iter(evidence.about.columns)))
    if json_:
        print(json.dumps({**tables.data(evidence, found), "files": [str(path) for path in paths]}))
        return
    if markdown:
        print(tables.markdown(evidence, found), end="")
        return
    for one in tables.rich_tables(evidence, found, console.width):
        console.print(one)
    for said in [*tables.notes(evidence, found), *map(str, paths)]:
        console.print(said, soft_wrap=True)


def compare(
    first: Annotated[str, typer.Argument(metavar="DIR[:METHOD]", show_default=False)],
    second: Annotated[str, typer.Argument(metavar="DIR[:METHOD]", show_default=False)],
    json_: Json = False,
) -> None:
    """Compare two methods prompt by prompt: the mean difference with its 95 % interval, and who wins how often.

    Two folders without METHOD are compared in each method that both have.

    [dim]referee bench compare runs/bench:blip2-sds runs/bench:plain-4
    referee bench compare runs/before runs/after[/dim]
    """
    from referee.bench.records import read
    from referee.bench.statistics import compare as compared
    from referee.bench.table import cautions, compared_kin, rich_differences

    (one, mine), (other, theirs) = (_folder(text) for text in (first, second))
    here, there = read([one]), read([other])
    pairs = _pairs(here, mine, there, theirs)
    console, rows = console_of(json_), []
    for a, b in pairs:
        found = compared(here, a, there, b)
        columns = here.about.columns | there.about.columns
        kin = compared_kin(columns, here.about.methods[a], there.about.methods[b])
        rows += [{"first": a, "second": b, **asdict(row), "kin": row.column in kin} for row in found]
        if json_:
            continue
        names = (a, b) if a != b else (f"{a} ({one})", f"{b} ({other})")
        for suite in dict.fromkeys(row.suite for row in found):
            for shown in rich_differences(suite, names, columns, found, kin, console.width):
                console.print(shown)
        for said in cautions(columns, found, kin):
            console.print(said, soft_wrap=True)
    if json_:
        print(json.dumps(rows))


def _folder(text: str) -> tuple[Path, str | None]:
    """``DIR:METHOD``, or a folder alone, whatever its name."""
    head, colon, name = text.rpartition(":")
    return (Path(text), None) if Path(text).is_dir() or not colon else (Path(head), name)


def _pairs(here: Evidence, mine: str | None, there: Evidence, theirs: str | None) -> Sequence[tuple[str, str]]:
    first, second = here.about.methods, there.about.methods
    if mine is not None or theirs is not None:
        given = (mine or _only(first, "first"), theirs or _only(second, "second"))
        _known(given[0], first, "The first:")
        _known(given[1], second, "The second:")
        return [given]
    if len(first) == len(second) == 1:
        return [(next(iter(first)), next(iter(second)))]
    if both := [(name, name) for name in first if name in second]:
        return both
    raise OptionError("The two folders have no method in common: say which, DIR:METHOD.")


def _only(methods: Any, which: str) -> str:
    if len(methods) != 1:
        raise OptionError(f"The {which} folder has several methods: say DIR:METHOD with one of {', '.join(methods)}.")
    return str(next(iter(methods)))
