"""The page: the paper's numbers, ours beside them, and what came of each claim. Markdown and WebP."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean

from referee.bench.about import MAX_SHOWN
from referee.bench.records import Evidence
from referee.bench.statistics import by_prompt, error
from referee_pocket.paper.catalogue import TABLES
from referee_pocket.paper.claims import Number, Part, Table, Verdict
from referee_pocket.paper.figures import FIGURE_12, PROPOSITIONS
from referee_pocket.paper.film import Film
from referee_pocket.paper.landscape import Landscape
from referee_pocket.paper.methods import ALONE, METHOD, PLAIN, SDS, UNITS
from referee_pocket.paper.verdicts import LEAST, Finding, Values, judge, of_evidence, overall

MAIN = (PLAIN, SDS, ALONE, METHOD)
"""Table 3's."""
DASH = "–"


@dataclass(frozen=True, slots=True)
class Found:
    """All that was measured.

    Attributes:
        evidence: the bench's records.
        films, landscapes: by method.
        changed: what was drawn by other settings than the catalogue's, by method: where they differ.
    """

    evidence: Evidence
    films: Mapping[str, Sequence[Film]]
    landscapes: Mapping[str, Sequence[Landscape]]
    changed: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def values(self, table: Table) -> Values:
        """Where a table's numbers come from."""
        if table is PROPOSITIONS:
            return lambda number: {
                one.index: one.numbers[number.column]
                for one in self.landscapes.get(number.method, ())
                if number.column in one.numbers
            }
        if table is FIGURE_12:
            return lambda number: {
                one.header.index: share
                for one in self.films.get(number.method, ())
                if (share := one.header.gathers.get(number.column.removeprefix("gathers_"))) is not None
            }
        return of_evidence(self.evidence, table.prompts)

    def findings(self, table: Table) -> list[Finding]:
        """All parts of its claim, decided."""
        shares = [name for name, column in self.evidence.about.columns.items() if column.proportion]
        return judge(table, self.values(table), shares)


def write(found: Found, pictures: Mapping[str, str], remarks: Mapping[str, str]) -> str:
    """The page.

    Args:
        found: what was measured.
        pictures: files, as the page names them, by a table's key.
        remarks: paragraphs of a person, by a table's key: what was tried where a claim does not hold.
    """
    judged = [(table, found.findings(table)) for table in TABLES]
    parts = [
        _opening(),
        *_changed(found.changed),
        _summary(judged),
        _units(),
        *(_section(table, findings, found, pictures, remarks) for table, findings in judged),
        _cost(found),
    ]
    return "\n".join(parts)


def _opening() -> str:
    return f"""# The paper's tables in the pocket world

Which claims of "Referee Can Play" (ICML 2024, arXiv 2402.16305) hold where everybody can repeat them: on one CPU, with
the [pocket zoo](evidence.md), whose little world has an independent detector for a judge. This page is written by
`python -m referee_pocket.paper page` from records; nothing in it is typed by hand but remarks.

```sh
referee bench paper --out runs/paper                     # or tables=4+9; goes on where it stopped, --shard shares it
python -m referee_pocket.paper film runs/paper           # for figures 10 to 12 and the propositions
python -m referee_pocket.paper smooth runs/paper
python -m referee_pocket.paper page runs/paper --out docs/paper.md
```

A claim is made of comparisons on the same prompts and seeds. Each has a difference, prompt by prompt, and a 95 %
interval of its mean over prompts. That of shares counts 1.92 prompts more as won and 1.92 more as lost (1.96² in all),
as what was not seen may only be rare: {LEAST} prompts without any difference say -0.16 to 0.16, one more loss always
moves both ends down, and with less than six prompts that differ no share is surely more. That of other numbers is by
bootstrap. "More" **holds** if the interval lies above 0, and **does not hold** if it lies at or below the smallest
difference that counts: the margin, 0.05 of a share, or half of what the paper itself found if that is less. "Do not
differ" holds if it lies within the margin. All else is **not decided at this error**, as is anything of fewer than
{LEAST} prompts. A table holds if all its comparisons do, asides apart, and does not if one does not. Intervals are not
widened for there being many. Numbers of paper and pocket differ in scale and in what is measured: what can be compared
is which is larger, and whether clearly. In brackets is the number of prompts: all rows of a table are of the same ones.
"""


def _changed(changed: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """Before all numbers: these are not of the rows' settings. Methods that differ alike are told together."""
    if not changed:
        return
    alike: dict[tuple[str, ...], list[str]] = {}
    for method, differ in changed.items():
        alike.setdefault(tuple(differ), []).append(f"`{method}`")
    yield "## Not the paper's rows\n"
    yield "What follows is **not of the settings that rows and units tell of**, nor are the verdicts:\n"
    yield "| what | as told, and as drawn |\n|---|---|"
    for told, names in alike.items():
        more = f"; and {len(told) - MAX_SHOWN} more" if len(told) > MAX_SHOWN else ""
        yield f"| {', '.join(names)} | {'; '.join(told[:MAX_SHOWN])}{more} |"
    yield ""


def _summary(judged: Iterable[tuple[Table, Sequence[Finding]]]) -> str:
    rows = [f"| {table.title} | {table.claim} | **{verdict(table, findings)}** |" for table, findings in judged]
    return "\n".join(["## What holds\n", "| in the paper | claim | here |", "|---|---|---|", *rows, ""])


def verdict(table: Table, findings: Sequence[Finding]) -> Verdict:
    """A table's: without parts it cannot be tested."""
    return overall(findings) if table.parts else Verdict.UNTESTABLE


def _units() -> str:
    rows = [f"| {what} | {theirs} | {ours} | {how} |" for what, theirs, ours, how in UNITS]
    return "\n".join(["## Units\n", "| | paper | here | how |", "|---|---|---|---|", *rows, ""])


def _section(
    table: Table, findings: Sequence[Finding], found: Found, pictures: Mapping[str, str], remarks: Mapping[str, str]
) -> str:
    lines = [f"## {table.title}\n", f"{table.claim} **{_capital(verdict(table, findings))}.**\n"]
    lines += [f"{text}\n" for text in (table.units, table.untestable, remarks.get(table.key, "")) if text]
    if table.rows:
        lines += [*_numbers(table, found), ""]
    if findings:
        lines += [*_comparisons(findings, ratio=table is PROPOSITIONS), ""]
    if table.key in pictures:
        lines += [f"![{table.title}]({pictures[table.key]})", ""]
    return "\n".join(lines)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _numbers(table: Table, found: Found) -> Iterator[str]:
    """The table itself: two columns for each of the paper's."""
    values = found.values(table)
    heads = [f"{beside.heading}, {whose}" for beside in table.beside for whose in ("paper", "here")]
    yield f"| | {' | '.join(heads)} | ours |"
    yield f"|{'---|' * (len(heads) + 2)}"
    for row in table.rows:
        cells = [
            cell
            for beside in table.beside
            for cell in (row.paper.get(beside.heading, DASH), _cell(found.evidence, values, row.method, beside.number))
        ]
        other = "**drawn by other settings**" if row.method in found.changed else ""
        said = "; ".join(text for text in (f"`{row.method}`" if row.method else "", row.why, other) if text)
        yield f"| {row.title} | {' | '.join(cells)} | {said} |"


def _cell(evidence: Evidence, values: Values, method: str, number: tuple[str, str] | None) -> str:
    """A mean over the table's prompts; in brackets over how many."""
    if number is None:
        return DASH
    suite, column = number
    mine = list(values(Number(method, column, suite)).values())
    if not mine:
        return DASH
    spread = f" ± {error(mine):.2f}" if evidence.about.columns[column].proportion else ""
    return f"{fmean(mine):.2f}{spread} ({len(mine)})"


def _comparisons(findings: Sequence[Finding], *, ratio: bool) -> Iterator[str]:
    """Each part with its numbers; those of logarithms are told as ratios."""
    yield f"| it says | first | second | {'ratio' if ratio else 'difference'}, 95 % | margin | prompts | so |"
    yield "|---|---|---|---|---|---|---|"
    for found in findings:
        part, told = found.part, math.exp if ratio else float
        says = f"{'aside: ' if part.aside else ''}{part.says}"
        if found.verdict == Verdict.UNMEASURED:
            yield f"| {says} | | | | | 0 | {found.verdict} |"
            continue
        form = ".2f" if ratio else "+.3f"  # a margin may be .005
        span = f"{told(found.mean):{form}} ({told(found.low):{form}} to {told(found.high):{form}})"
        cells = [f"{told(found.first):.3g}", f"{told(found.second):.3g}", span, f"{told(part.margin):.3g}"]
        yield f"| {says} | {' | '.join(cells)} | {found.n} | {_so(part, found)} |"


def _so(part: Part, found: Finding) -> str:
    return f"{found.verdict}" if part.aside else f"**{found.verdict}**"


def _cost(found: Found) -> str:
    """What it took, and how sure the main rows are."""
    about, records = found.evidence.about, found.evidence.records
    drawn = sum(record.cpu_seconds or 0.0 for record in records)
    filmed = sum(film.header.cpu_seconds for films in found.films.values() for film in films)
    looked = sum(one.cpu_seconds for ones in found.landscapes.values() for one in ones)
    rows = [
        f"| `{method}` | {len(mine)} | {sum(r.cpu_seconds or 0.0 for r in mine) / 3600:.2f} |"
        for method in about.methods
        if (mine := [record for record in records if record.method == method])
    ]
    libraries = ", ".join(f"{name} {version}" for name, version in about.libraries.items())
    return "\n".join(
        [
            "## What it took\n",
            f"{len(records)} pictures by {len(rows)} methods, {about.seeds} for each prompt, on "
            f"{about.device or 'cpu'}: {drawn / 3600:.1f} CPU hours of drawing, {filmed / 3600:.1f} of films, "
            f"{looked / 3600:.1f} of measuring smoothness; {(drawn + filmed + looked) / 3600:.1f} in all. "
            f"{_sure(found.evidence)}\n",
            "| method | pictures | CPU hours |", "|---|---|---|", *rows,
            "", f"With {libraries}." if libraries else "", "",
        ]
    )  # fmt: skip


def _sure(evidence: Evidence) -> str:
    """The largest standard error of table 3's shares of pictures that are right."""
    errors = [
        error(values)
        for number in (Number(method, column, suite) for method in MAIN for suite, column in
                       (("attributes", "binding"), ("spatial", "relation"), ("complex", "right")))
        if len(values := list(by_prompt(evidence.of(number.method, number.suite), number.column).values())) > 1
    ]  # fmt: skip
    return f"The largest standard error of table 3's main numbers is {max(errors):.3f}." if errors else ""
