"""The table: methods by columns, a block per suite; for the terminal, as Markdown, as CSV and as data.

A proportion is shown with its standard error over prompts. ``28/60`` says that 28 of 60 prompts were drawn, ``(12)``
behind a number that it is of 12 prompts alone, and a dagger that the number is measured with a model of the family that
steered the method: it is flattered.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import asdict, dataclass
from io import StringIO
from statistics import fmean
from textwrap import fill
from typing import TYPE_CHECKING, Any

from referee.bench.about import Maker, Record
from referee.bench.contract import Column
from referee.bench.records import Evidence
from referee.bench.statistics import Cell, Difference

if TYPE_CHECKING:
    from rich.table import Table

KIN = "†"
MAX_DIGITS = 6
"""Behind the point, whatever a file says."""
TITLE = 28
"""Characters of a column's title in a comparison, where it stands at a row's head; longer ones are broken."""
FEW = 10
"""Prompts below which the bootstrap's interval is not to be relied on."""


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
    rows = []
    several = any(
        len(here) > len({one.index for one in here}) for here in (evidence.of(m, suite) for m in about.methods)
    )
    for method in about.methods:
        records = evidence.of(method, suite)
        if not records:
            continue
        drawn = len({record.index for record in records})
        row = [method, str(drawn) if drawn == (count := about.count(method, suite)) else f"{drawn}/{count}"]
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
    digits = min(max(column.digits, 0), MAX_DIGITS)
    text = f"{one.mean:.{digits}f}{f' ± {one.error:.{digits}f}' if column.proportion else ''}"
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
    for suite in about.suites:
        for method in about.methods:
            scored, wanted = coverage(evidence, method, suite)
            if 0 < scored < wanted:
                share = scored / wanted
                said.append(f"{method}, {suite}: {scored} of {wanted} pictures ({share:.0%}); the rest is not scored.")
    said += _blank(evidence)
    said += _pooled(evidence, found)
    if kin := {one.column for one in found if is_kin(evidence, one)}:
        titles = ", ".join(column.title for key, column in about.columns.items() if key in kin)
        said.append(
            f"{KIN} {titles}: measured with a model of the family that steered the method, so a picture that fools one "
            "may well fool the other."
        )
    return said


def coverage(evidence: Evidence, method: str, suite: str) -> tuple[int, int]:
    """How many pictures are scored of those that are asked for; what an item has beyond its number is not counted."""
    seeds = evidence.about.seeds
    pictures = Counter(record.index for record in evidence.of(method, suite))
    return sum(min(count, seeds) for count in pictures.values()), evidence.about.count(method, suite) * seeds


def _blank(evidence: Evidence) -> Iterator[str]:
    """Suites of which a method has nothing: no table tells of them."""
    for method in evidence.about.methods:
        each = {suite: coverage(evidence, method, suite) for suite in evidence.about.suites}
        if blank := [suite for suite, (scored, wanted) in each.items() if wanted and not scored]:
            scored, wanted = (sum(counts) for counts in zip(*each.values(), strict=True))
            yield (
                f"{method}: no picture of {', '.join(blank)} is scored; in all {scored} of {wanted} pictures "
                f"({scored / wanted:.0%})."
            )


def _pooled(evidence: Evidence, found: Sequence[Cell]) -> Iterator[str]:
    """The means of the suites' means, where all suites have one."""
    about = evidence.about
    for key, column in about.columns.items():
        for method in about.methods if column.pooled and len(about.suites) > 1 else ():
            means = [one.mean for one in found if (one.column, one.method) == (key, method)]
            if len(means) == len(about.suites):
                yield f"{method}: {column.title}, mean of the {len(means)} suites' means: {fmean(means):.3f}"


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
        {"suite": suite, "method": method, "pictures": len(rows), "scored": scored, "of": wanted}
        for suite in about.suites
        for method in about.methods
        if (rows := evidence.of(method, suite))
        for scored, wanted in [coverage(evidence, method, suite)]
    ]
    return {
        "bench": about.bench,
        "drawn": drawn,
        "cells": [asdict(one) for one in found],
        "notes": notes(evidence, found),
    }


def rich_tables(evidence: Evidence, found: Sequence[Cell], width: int) -> Iterator[Table]:
    """For a terminal so many characters wide: what does not stand beside each other stands below."""
    for block in blocks(evidence, found):
        yield from _tables(block, width)


def _tables(block: Block, width: int) -> Iterator[Table]:
    from rich.table import Table

    wide = widths(block)
    for i, columns in enumerate(fitting(wide, width)):
        table = Table(title="" if i else block.suite, title_justify="left")
        for column in columns:
            heading = fill(block.headings[column], wide[column]) if block.headings[column] else ""
            table.add_column(heading, justify="right" if column else "left", no_wrap=True)
        for row in block.rows:
            table.add_row(*(row[column] for column in columns))
        yield table


def widths(block: Block) -> list[int]:
    """How wide each column must be; headings may break at blanks."""
    columns = zip(block.headings, *block.rows, strict=True)
    lines = ((*heading.split(), *(line for cell in cells for line in cell.split("\n"))) for heading, *cells in columns)
    return [max(map(len, one)) for one in lines]


def fitting(wide: Sequence[int], width: int) -> list[list[int]]:
    """Columns, the first of them each time, in tables that are no wider.

    >>> fitting([6, 4, 4, 4], 24)
    [[0, 1, 2], [0, 3]]
    """
    found: list[list[int]] = []
    for i in range(1, len(wide)):
        if not found or 1 + sum(wide[j] + 3 for j in (*found[-1], i)) > width:  # a blank on either side, and a rule
            found.append([0])
        found[-1].append(i)
    return found


def rich_differences(
    suite: str, names: tuple[str, str], columns: Mapping[str, Column], found: Sequence[Difference],
    kin: Set[str], width: int,
) -> Iterator[Table]:  # fmt: skip
    """A suite's comparison for a terminal so many characters wide.

    Args:
        kin: columns that are measured with a model of a family that steered one of the two.
    """
    rows = tuple(difference_row(columns[one.column], one, kin) for one in found if one.suite == suite)
    headings = ("", "prompts", *names, "difference", "95 %", "wins", "ties", "losses")
    return _tables(Block(f"{suite}: {names[0]} less {names[1]}", headings, rows), width)


def difference_row(column: Column, one: Difference, kin: Set[str]) -> tuple[str, ...]:
    """One line of a comparison."""
    title = fill(column.title + (KIN if one.column in kin else ""), TITLE, break_on_hyphens=False)
    counts = ("–" if count is None else str(count) for count in (one.wins, one.ties, one.losses))
    span = f"{one.low:+.3f} to {one.high:+.3f}"
    return title, str(one.n), f"{one.first:.3f}", f"{one.second:.3f}", f"{one.mean:+.3f}", span, *counts


def compared_kin(columns: Mapping[str, Column], *makers: Maker) -> set[str]:
    """Columns that are measured with a model of a family that steered one of some methods."""
    steered = {family for maker in makers for family in maker.families}
    return {key for key, column in columns.items() if steered & set(column.families)}


def cautions(columns: Mapping[str, Column], found: Sequence[Difference], kin: Set[str]) -> Iterator[str]:
    """What must be said below a comparison."""
    if flattered := [column.title for key, column in columns.items() if key in kin & {one.column for one in found}]:
        yield (
            f"{KIN} {', '.join(flattered)}: measured with a model of the family that steered one of the two, so a "
            "picture that fools one may well fool the other."
        )
    if few := [one.n for one in found if one.n < FEW]:
        yield f"Of {min(few)} prompts an interval says little: with fewer than {FEW} it is narrower than it should be."
