"""`referee report`: runs on a page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

NAME = "report.html"


def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Folders of runs.", show_default=False)],
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="[dim]default: report.html, in the folder if it is one run[/dim]"),
    ] = None,
) -> None:
    """Show runs on a page: pictures, their way, curves, settings. One file, to look at or to send.

    [dim]referee report runs/a-red-circle-0
    referee report runs/* --out compare.html[/dim]
    """
    from referee.folder.run import open_run
    from referee.watching.report import write_report

    path = out or (runs[0] / NAME if len(runs) == 1 else Path(NAME))
    write_report(path, [open_run(folder) for folder in runs])
    print(path)
