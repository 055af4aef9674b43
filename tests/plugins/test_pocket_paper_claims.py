"""How a claim of the paper is decided: the rule, on numbers one knows; and what holds of all claims as data."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import product

import numpy as np
import pytest

from referee.bench.about import About, Maker, Record
from referee.bench.contract import Column
from referee.bench.records import Evidence
from referee.errors import OptionError
from referee_pocket.paper.catalogue import ALSO, TABLES, chosen, methods, wanted
from referee_pocket.paper.claims import ATTRIBUTES, SPATIAL, Number, Part, Table, Verdict
from referee_pocket.paper.figures import FIGURE_12, LOSSES, PROPOSITIONS, QUANTITIES, SPACES, TIMES, place
from referee_pocket.paper.page import Found, write
from referee_pocket.paper.verdicts import LEAST, decide, find, judge, of_evidence, overall

HOLDS, FAILS, OPEN, UNMEASURED = Verdict.HOLDS, Verdict.FAILS, Verdict.OPEN, Verdict.UNMEASURED


def part(rule: str = "more", margin: float = 0.05, *, aside: bool = False) -> Part:
    return Part("a is better than b", Number("a"), Number("b"), rule, margin, aside)  # type: ignore[arg-type]


def found(first: Sequence[float], second: Sequence[float], of: Part | None = None, *, share: bool = True) -> Verdict:
    numbers = {"a": dict(enumerate(first)), "b": dict(enumerate(second))}
    return find(of or part(), lambda number: numbers[number.method], share=share).verdict


def evidence(scores: Mapping[str, Sequence[Sequence[float]]]) -> Evidence:
    """Records of methods: for each prompt the shares that its seeds got."""
    records = [
        Record(
            method=method, digest="d", suite=ATTRIBUTES, index=i, item=f"{i}", prompt=f"{i}", seed=seed,
            scores={"binding": score},
        )
        for method, rows in scores.items()
        for i, row in enumerate(rows)
        for seed, score in enumerate(row)
    ]  # fmt: skip
    about = About(
        bench="paper", columns={"binding": Column("right", proportion=True)}, suites={ATTRIBUTES: 99},
        methods={name: Maker(draw={"name": "invert"}) for name in scores},
    )  # fmt: skip
    return Evidence(about, tuple(records), {})


# -- the rule


@pytest.mark.parametrize(
    ("low", "high", "rule", "verdict"),
    [
        (0.001, 0.9, "more", HOLDS), (0.0, 0.9, "more", OPEN), (-0.2, 0.051, "more", OPEN), (-0.2, 0.05, "more", FAILS),
        (-0.9, -0.5, "more", FAILS), (0.01, 0.02, "more", HOLDS), (-0.05, 0.05, "same", HOLDS),
        (-0.06, 0.01, "same", OPEN), (0.04, 0.2, "same", OPEN), (0.06, 0.2, "same", FAILS),
        (-0.2, -0.06, "same", FAILS),
    ],
)  # fmt: skip
def test_the_rule_reads_an_interval(low: float, high: float, rule: str, verdict: Verdict) -> None:
    assert decide(low, high, rule, 0.05) == verdict  # type: ignore[arg-type]


def test_a_clear_difference_is_decided_and_an_unclear_one_is_not() -> None:
    assert found([1.0] * 30 + [0.0] * 10, [0.0] * 30 + [1.0] * 10) == HOLDS
    assert found([0.0] * 30 + [1.0] * 10, [1.0] * 30 + [0.0] * 10) == FAILS
    assert found([1.0, 0.0] * 20, [0.0, 1.0] * 20) == OPEN
    assert found([1.0, 0.0] * 20, [0.0, 1.0] * 20, part("same")) == OPEN


def test_too_few_prompts_decide_nothing() -> None:
    assert found([1.0] * (LEAST - 1), [0.0] * (LEAST - 1)) == OPEN
    assert found([1.0] * LEAST, [0.0] * LEAST) == HOLDS


def test_equal_shares_are_no_proof_that_all_are_equal() -> None:
    """All right, both: what differs once in 20 prompts may not have been seen."""
    for n, verdict in ((LEAST, OPEN), (72, OPEN), (73, HOLDS)):
        assert found([1.0] * n, [1.0] * n, part("same")) == verdict
    assert found([1.0] * 73, [1.0] * 73) == FAILS
    assert found([0.5] * LEAST, [0.5] * LEAST, part("same"), share=False) == HOLDS  # losses are not shares


def seen(n: int, wins: int, losses: int, of: Part | None = None) -> Verdict:
    """The verdict on so many prompts, of which so many were won and lost."""
    return found([1.0] * wins + [0.0] * (n - wins), [0.0] * (n - losses) + [1.0] * losses, of)


def test_few_prompts_that_differ_decide_nothing() -> None:
    for n, wins, losses in ((40, 0, 0), (40, 0, 1), (20, 0, 1), (20, 4, 0), (40, 4, 0), (100, 4, 0), (20, 5, 0)):
        assert seen(n, wins, losses) == OPEN
    assert seen(20, 6, 0) == HOLDS
    assert seen(100, 7, 0) == HOLDS
    assert seen(100, 0, 1) == FAILS


@pytest.mark.parametrize("n", [LEAST, 40])
def test_a_loss_more_is_never_better_news(n: int) -> None:
    order = {FAILS: 0, OPEN: 1, HOLDS: 2}
    known = {(w, k): order[seen(n, w, k)] for w in range(n + 1) for k in range(n + 1 - w)}
    for (wins, losses), verdict in known.items():
        assert known.get((wins, losses + 1), 0) <= verdict
        assert known.get((wins - 1, losses), 0) <= verdict
    assert all(verdict < 2 or wins - losses >= 6 for (wins, losses), verdict in known.items())


def test_the_pairs_are_of_one_prompt_each() -> None:
    """Differences between prompts, far larger than that between methods, do not blur it."""
    hard = [i / 40 for i in range(40)]
    assert found([x + 0.01 for x in hard], hard, share=False) == HOLDS
    assert found([x + 0.01 for x in hard], hard[::-1], share=False) == OPEN


def test_only_prompts_that_both_have_count() -> None:
    finding = find(part(), lambda number: dict.fromkeys(range(*{"a": (0, 30), "b": (10, 50)}[number.method]), 1.0),
                   share=True)  # fmt: skip
    assert finding.n == 20
    assert find(part(), lambda number: {}, share=True).verdict == UNMEASURED


def test_a_number_may_stand_for_all_prompts() -> None:
    losses = dict.fromkeys(range(LEAST), 0.1)
    low = Part("loss is below 0.7", 0.7, Number("a"))
    assert find(low, lambda number: losses, share=False).verdict == HOLDS
    high = Part("loss is above 0.7", Number("a"), 0.7)
    finding = find(high, lambda number: losses, share=False)
    assert (finding.verdict, finding.first, finding.second) == (FAILS, pytest.approx(0.1), 0.7)


def test_equals_rarely_come_out_as_different() -> None:
    """Of 300 comparisons of methods that are right equally often, about 2.5 % hold by accident."""
    draw = np.random.default_rng(5)
    pairs = [(draw.random(60) < 0.6, draw.random(60) < 0.6) for _ in range(300)]
    held = sum(found(list(map(float, a)), list(map(float, b))) == HOLDS for a, b in pairs)
    assert held <= 15


def test_seeds_of_a_prompt_are_averaged_first() -> None:
    first = [[1.0, 0.0], *[[1.0, 1.0]] * 29]
    numbers = of_evidence(evidence({"a": first, "b": [[0.0, 0.0]] * 30}))
    assert numbers(Number("a"))[0] == 0.5
    (finding,) = judge(Table("0", "", "", parts=(part(),)), numbers, ["binding"])
    assert (finding.n, finding.verdict) == (30, HOLDS)
    assert finding.mean == pytest.approx(29.5 / 30)


def test_rows_of_a_table_are_of_the_same_prompts() -> None:
    """Table 3 draws the method's prompts 40 to 99 as well: no part of table 4's mean."""
    ones = [[1.0]] * 40
    drawn = evidence({"blip2-sds": ones + [[0.0]] * 60, "ema-none": ones})
    (table,) = chosen("4")
    page = Found(drawn, {}, {})
    assert page.values(table)(Number("blip2-sds")) == dict.fromkeys(range(40), 1.0)
    section = write(page, {}, {}).partition("## Table 4")[2].partition("\n## ")[0]
    assert [line.split(" | ")[2] for line in section.splitlines() if "`blip2-sds`; 75" in line] == ["1.00 ± 0.00 (40)"]
    assert page.findings(table)[0].first == 1.0
    assert len(page.values(chosen("1")[0])(Number("blip2-sds"))) == 100


def test_a_table_is_as_good_as_its_worst_part() -> None:
    def table(*verdicts: Verdict, aside: Verdict = HOLDS) -> Verdict:
        numbers = {HOLDS: ([1.0] * 40, [0.0] * 40), FAILS: ([0.0] * 40, [1.0] * 40), OPEN: ([1.0], [0.0])}
        findings = [
            find(part(aside=aside_), lambda number, pair=pair: dict(enumerate(pair[number.method == "b"])), share=True)
            for aside_, verdict in [*((False, one) for one in verdicts), (True, aside)]
            for pair in [numbers.get(verdict, ([], []))]
        ]
        return overall(findings)

    assert table(HOLDS, HOLDS, aside=FAILS) == HOLDS
    assert table(HOLDS, OPEN) == OPEN
    assert table(HOLDS, OPEN, FAILS, UNMEASURED) == FAILS
    assert table(HOLDS, UNMEASURED, OPEN) == UNMEASURED
    assert table() == Verdict.UNTESTABLE


# -- the claims


def margins(key: str) -> dict[str, float]:
    (table,) = chosen(key)
    return {one.says: table.margin(one) for one in table.parts}


def test_what_counts_is_at_most_half_of_what_the_paper_found() -> None:
    assert margins("7")["`plain-16` has more colours right than `plain-4`"] == pytest.approx((0.4012 - 0.3632) / 2)
    assert margins("9")["`blip2-sds` has more pictures with all attributes right than `noise-05`"] == pytest.approx(
        (0.7104 - 0.6821) / 2
    )
    assert margins("9")["`blip2-sds` and `noise-10` do not differ"] == 0.05  # nothing that counts, in the paper as well
    assert margins("3")["`blip2` has more pictures with all attributes right than `blip2-sds`"] == pytest.approx(
        (0.7311 - 0.7202) / 2
    )  # of colour, shape and texture the least
    assert set(margins("f6").values()) == {0.05}  # a figure without numbers
    assert set(margins("2").values()) == {0.693, 0.1, 0.05}  # losses, far apart


def test_the_papers_own_difference_is_on_the_side_of_each_claim() -> None:
    told = [(table.difference(one), one) for table in TABLES for one in table.parts if one.rule == "more"]
    assert all(theirs is None or theirs > 0 for theirs, _ in told)
    assert sum(theirs is not None for theirs, _ in told) > 30


def test_an_interval_that_holds_the_papers_number_is_no_refutation() -> None:
    """Colours of table 7: the paper found .038; an interval of -.01 to .045 holds it."""
    (table,) = chosen("7")
    gaps = [0.5] * 16 + [-0.5] * 10 + [0.0] * 144
    values = {"plain-16": dict(enumerate(gaps)), "plain-4": dict.fromkeys(range(170), 0.0)}
    (finding,) = [
        one
        for one in judge(table, lambda number: values.get(number.method, {}), ["colours"])
        if one.part.says == "`plain-16` has more colours right than `plain-4`"
    ]
    assert -0.02 < finding.low < 0 < 0.038 < finding.high < 0.05
    assert finding.verdict == OPEN


def test_tables_are_chosen_by_the_papers_numbers() -> None:
    assert chosen("all") == TABLES
    assert [table.key for table in chosen("9+4 + F7")] == ["4", "9", "f7"]
    assert [chosen(also)[0].key for also in ALSO] == list(ALSO.values())
    for wrong in ("10", "", "4,9", "table 4"):
        with pytest.raises(OptionError, match="There is no table"):
            chosen(wrong)


def test_all_that_the_task_names_is_there() -> None:
    assert [table.key for table in TABLES] == [
        "1",
        "2",
        "3",
        "4",
        "5",
        "6",
        "7",
        "9",
        "f6",
        "f7",
        "f10",
        "f12",
        "smooth",
    ]
    for table in TABLES:
        assert table.claim.endswith(".")
        assert table.parts or table.untestable


def test_a_name_is_one_method_in_all_tables() -> None:
    for name, layer in methods(TABLES).items():
        assert all(table.methods.get(name, layer) == layer for table in TABLES)
        assert any(wanted([table], name, suite) for table in TABLES for suite in table.prompts)


@pytest.mark.parametrize("table", [table for table in TABLES if table.rows], ids=lambda table: table.key)
def test_a_table_measures_what_its_claim_compares(table: Table) -> None:
    for one in table.parts:
        for side in (one.first, one.second):
            if isinstance(side, Number):
                assert table.wants(side.method, side.suite) >= LEAST, one.says
    headings = {beside.heading for beside in table.beside}
    for row in table.rows:
        assert row.paper.keys() <= headings
        assert bool(row.method) == (row.layer is not None)
        assert row.method or row.why
        assert all(re.fullmatch(r"\.\d{4}|\d\d\.\d\d|\d\.\d\d|\de-\d", number) for number in row.paper.values())
    assert any(not one.aside for one in table.parts)


def test_parts_of_films_and_of_smoothness_name_what_is_measured() -> None:
    known = {place(*names) for names in product(SPACES, TIMES, LOSSES, QUANTITIES)}
    sides = [side for one in PROPOSITIONS.parts for side in (one.first, one.second)]
    columns = {side.column for side in sides if isinstance(side, Number)}
    assert columns <= known
    main = [one for one in PROPOSITIONS.parts if not one.aside]
    assert len(main) == len(SPACES) * len(TIMES) * 2
    assert all(isinstance(one.first, Number) and one.first.column.startswith("gathers_") for one in FIGURE_12.parts)


def test_main_rows_are_sure_enough() -> None:
    """Prompts such that a share's standard error is at most .05, whatever the share."""
    (table,) = chosen("3")
    assert all(0.5 / count**0.5 <= 0.05 for count in table.prompts.values())
    assert wanted(TABLES, "blip2-sds", ATTRIBUTES) == 100
    assert wanted(chosen("f6"), "panel-flip", SPATIAL) == 40
    assert wanted(chosen("f6"), "panel-flip", ATTRIBUTES) == 0
