"""Everything that a reader may want of a bench, as files: table, numbers, plot, contact sheets."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

from referee.bench import plot, table
from referee.bench.records import Evidence
from referee.bench.sheet import sheet
from referee.bench.statistics import Cell
from referee.folder.record import slug, write_whole


def write(evidence: Evidence, found: Sequence[Cell], out: Path, column: str) -> list[Path]:
    """Write table.md, table.csv, plot.svg and the sheets; gives what was written.

    Args:
        column: what is plotted.

    Raises:
        OutputError: the folder cannot be written to.
    """
    texts = {
        "table.md": table.markdown(evidence, found),
        "table.csv": table.csv_text(evidence, found),
        "plot.svg": plot.svg(evidence, found, column),
    }
    contents = {name: text.encode() for name, text in texts.items()}
    for suite in evidence.about.suites:
        for method in evidence.about.methods:
            if evidence.of(method, suite):
                buffer = BytesIO()
                sheet(evidence, method, suite).save(buffer, "png", optimize=True)
                contents[f"sheet-{method}-{slug(suite)}.png"] = buffer.getvalue()
    for name, content in contents.items():
        write_whole(out / name, content)
    return [out / name for name in contents]
