"""The table: methods by columns, a block per suite; for the terminal, as Markdown, as CSV and as data.

A proportion is shown with its standard error over prompts. ``28/60`` says that 28 of 60 prompts were drawn, ``(12)``
behind a number that it is of 12 prompts alone, and a dagger that the number is measured with a model of the family that
steered the method: it is flattered.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from io import StringIO
from statistics import fmean
from typing import TYPE_CHECKING, Any

from referee.bench.about import Record
from referee.bench.records import Evidence
from referee.bench.statistics import Cell, Difference

if TYPE_CHECKING:
    from rich.table import Table

KIN = "†"


@dataclass(frozen=True, slots=True)
class Block:
    """One suite as text."""

    suite: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def blocks(evidence: Evidence, found: Sequence[Cell]) -> list[Block]:
    """All suites that have a picture, with the columns and methods that have a number there."""
    return [block for suite in evidence.about.suites if (block := _block(evidence, suite, found))]


def _block(evidence: Evidence, suite: str, found: Sequence[Cell]) -> Block | None:
    about = evidence.about
    here = {(one.method, one.column): one for one in found if one.suite == suite}
    keys = [key for key in about.columns if any((method, key) in here for method in about.methods)]
    rows, several = [], about.seeds > 1
    for method in about.methods:
        records = evidence.of(method, suite)
        if not records:
            continue
        drawn = len({record.index for record in records})
        row = [method, str(drawn) if drawn == about.suites[suite] else f"{drawn}/{about.suites[suite]}"]
        row += [str(len(records))] if several else []
        row += [_number(evidence, here.get((method, key)), drawn) for key in keys]
        rows.append((*row, cost(records, about.device)))
    if not rows:
        return None
    headings = ["method", "n", *(["pictures"] if several else []), *(about.columns[key].title for key in keys)]
    headings.append("CPU s / picture" if _on_cpu(about.device) else "s / picture")
    if all(row[-1] == "" for row in rows):  # nobody timed them
        headings, rows = headings[:-1], [row[:-1] for row in rows]
    return Block(suite, tuple(headings), tuple(rows))


def _number(evidence: Evidence, one: Cell | None, drawn: int) -> str:
    if one is None:
        return "–"
    column = evidence.about.columns[one.column]
    text = f"{one.mean:.2f} ± {one.error:.2f}" if column.proportion else f"{one.mean:.2f}"
    return f"{text}{KIN if is_kin(evidence, one) else ''}{f' ({one.n})' if one.n < drawn else ''}"


def is_kin(evidence: Evidence, one: Cell) -> bool:
    """Whether a model of one family measures and steers."""
    column, maker = evidence.about.columns[one.column], evidence.about.methods[one.method]
    return bool(set(column.families) & set(maker.families))


def cost(records: Sequence[Record], device: str) -> str:
    """Seconds per picture: of computing on a CPU, by the clock elsewhere."""
    cpu = _on_cpu(device)
    spent = [s for r in records if (s := r.cpu_seconds if cpu else r.seconds) is not None]
    return f"{fmean(spent):.1f}" if spent else ""


def _on_cpu(device: str) -> bool:
    return device in ("", "cpu")


def notes(evidence: Evidence, found: Sequence[Cell]) -> list[str]:
    """What must be said below the table: what is not complete, and which numbers flatter."""
    about, said = evidence.about, []
    for suite, count in about.suites.items():
        for method in about.methods:
            records = evidence.of(method, suite)
            if not records or len(records) == count * about.seeds:
                continue
            share = len(records) / (count * about.seeds)
            said.append(
                f"{method}, {suite}: {len(records)} of {count * about.seeds} pictures ({share:.0%}); the rest is not "
                "scored."
            )
    if kin := {one.column for one in found if is_kin(evidence, one)}:
        titles = ", ".join(column.title for key, column in about.columns.items() if key in kin)
        said.append(
            f"{KIN} {titles}: measured with a model of the family that steered the method, so a picture that fools one "
            "may well fool the other."
        )
    return said


def markdown(evidence: Evidence, found: Sequence[Cell]) -> str:
    """As Markdown, a heading per suite if there are several."""
    parts = []
    listed = blocks(evidence, found)
    for block in listed:
        heading = f"### {block.suite}\n\n" if len(listed) > 1 else ""
        rows = [" | ".join(cell.replace("|", "\\|") for cell in row) for row in (block.headings, *block.rows)]
        body = "\n".join(f"| {row} |" for row in rows[1:])
        parts.append(f"{heading}| {rows[0]} |\n|{'---|' * len(block.headings)}\n{body}\n")
    return "\n".join([*parts, *(f"{note}\n" for note in notes(evidence, found))])


def csv_text(evidence: Evidence, found: Sequence[Cell]) -> str:
    """As CSV, one line per number, with its errors."""
    out = StringIO()
    writer = csv.DictWriter(out, [*Cell.__dataclass_fields__, "title", "kin"], lineterminator="\n")
    writer.writeheader()
    for one in found:
        title = evidence.about.columns[one.column].title
        writer.writerow({**asdict(one), "title": title, "kin": int(is_kin(evidence, one))})
    return out.getvalue()


def data(evidence: Evidence, found: Sequence[Cell]) -> dict[str, Any]:
    """For --json."""
    about = evidence.about
    drawn = [
        {"suite": suite, "method": method, "pictures": len(rows), "of": count * about.seeds}
        for suite, count in about.suites.items()
        for method in about.methods
        if (rows := evidence.of(method, suite))
    ]
    return {
        "bench": about.bench,
        "drawn": drawn,
        "cells": [asdict(one) for one in found],
        "notes": notes(evidence, found),
    }


def rich_tables(evidence: Evidence, found: Sequence[Cell]) -> Iterator[Table]:
    """For the terminal."""
    from rich.table import Table

    for block in blocks(evidence, found):
        table = Table(title=block.suite, title_justify="left")
        for i, heading in enumerate(block.headings):
            table.add_column(heading, justify="left" if i == 0 else "right", no_wrap=i == 0)
        for row in block.rows:
            table.add_row(*row)
        yield table


def rich_differences(evidence: Evidence, first: str, second: str, found: Sequence[Difference]) -> Iterator[Table]:
    """A comparison for the terminal, a table per suite."""
    from rich.table import Table

    for suite in dict.fromkeys(one.suite for one in found):
        table = Table(title=f"{suite}: {first} less {second}", title_justify="left")
        for i, heading in enumerate(("", "prompts", first, second, "difference", "95 %", "wins", "ties", "losses")):
            table.add_column(heading, justify="left" if i == 0 else "right")
        for one in found:
            if one.suite == suite:
                table.add_row(*difference_row(evidence, one))
        yield table


def difference_row(evidence: Evidence, one: Difference) -> tuple[str, ...]:
    """One line of a comparison."""
    title = evidence.about.columns[one.column].title
    counts = ("–" if count is None else str(count) for count in (one.wins, one.ties, one.losses))
    span = f"{one.low:+.3f} to {one.high:+.3f}"
    return title, str(one.n), f"{one.first:.3f}", f"{one.second:.3f}", f"{one.mean:+.3f}", span, *counts
